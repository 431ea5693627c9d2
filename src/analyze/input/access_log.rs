//! The access log of this program's gateway.

use super::call::LogCall;
use super::request::{self, Parts, Requests};
use super::skip::SkipKind;
use super::time;
use crate::gateway::{ACCESS_LOG_VERSION, AccessRecord};
use std::time::Duration;

/// The first member of every line.
pub(super) const MARKER: &[u8] = b"clerk_exporter_access";

/// Names of instances that are remembered.
const MAX_INSTANCES: usize = 100;

impl Requests {
    /// Reads a line of the gateway's access log.
    ///
    /// The log has no ids. Their places in the path take the keyed hash of the resource, so that equal resources are equal
    /// here, too; what a write changes is then unknown.
    pub(super) fn parse_access_log(&mut self, line: &[u8]) -> Result<LogCall, SkipKind> {
        let record: AccessRecord<'_> = serde_json::from_slice(line).map_err(|_| SkipKind::Malformed)?;
        if record.version != ACCESS_LOG_VERSION {
            return Err(SkipKind::Version);
        }
        if self.instance.as_deref().is_some_and(|instance| *instance != *record.instance) {
            return Err(SkipKind::OtherInstance);
        }
        if self.instances.len() < MAX_INSTANCES && !self.instances.iter().any(|name| **name == *record.instance) {
            self.instances.push(record.instance.as_ref().into());
        }
        let time = time::parse(record.time.as_bytes()).ok_or(SkipKind::BadTime)?;
        let resource = record.resource.as_deref().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let target = target(&record.route, resource.unwrap_or("-"));
        let status = record.status.map_or(Ok(None), |status| request::status(status.to_string().as_bytes()))?;
        let took = Duration::try_from_secs_f64(record.duration).ok();
        let parts = Parts {
            time,
            is_end: false,
            took,
            method: record.method.as_bytes(),
            target: target.as_bytes(),
            is_clerk: true,
            host: None,
            caller: Some(record.caller.as_bytes()),
            status,
            quota: None,
        };
        let call = self.call(parts)?;
        let read = call.read.filter(|_| resource.is_some());
        Ok(LogCall { read, ..call })
    }
}

/// A path of the route that has the resource's hash in place of its ids, or as its query.
fn target(template: &str, resource: &str) -> String {
    let mut target = String::with_capacity(template.len() + resource.len() + 1);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        target.push_str(before);
        target.push_str(resource);
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    target.push_str(rest);
    if !template.contains('{') {
        target.push('?');
        target.push_str(resource);
    }
    target
}
