//! The access log of this program's gateway.

use std::sync::Arc;
use std::time::Duration;

use super::call::{LogCall, LogEvent, SharedRead};
use super::request::{self, Parts, Requests};
use super::skip::SkipKind;
use super::time;
use crate::gateway::{ACCESS_LOG_VERSION, AccessRecord, Decision, KeyedHash, WEBHOOK_EVENT, WebhookRecord};
use clerk_client::cache::simulation::TagSlots;
use clerk_quota::Moment;

/// The first member of every line.
pub(super) const MARKER: &[u8] = b"clerk_exporter_access";

/// Names of instances that are remembered.
const MAX_INSTANCES: usize = 100;

impl Requests {
    /// Reads a line of the gateway's access log.
    pub(super) fn parse_access_log(&mut self, line: &[u8]) -> Result<LogEvent, SkipKind> {
        match serde_json::from_slice::<AccessRecord<'_>>(line) {
            Ok(record) => self.attempt(&record).map(LogEvent::Request),
            Err(_) => webhook(line),
        }
    }

    /// The log has no ids: it says itself what requests share and change.
    fn attempt(&mut self, record: &AccessRecord<'_>) -> Result<LogCall, SkipKind> {
        if record.version != ACCESS_LOG_VERSION {
            return Err(SkipKind::Version);
        }
        if self.instance.as_deref().is_some_and(|instance| *instance != *record.instance) {
            return Err(SkipKind::OtherInstance);
        }
        if self.instances.len() < MAX_INSTANCES && !self.instances.iter().any(|name| **name == *record.instance) {
            self.instances.push(record.instance.as_ref().into());
        }
        let target = target(&record.route);
        let status = record.status.map_or(Ok(None), |status| request::status(status.to_string().as_bytes()))?;
        let parts = Parts {
            time: moment(&record.time)?,
            is_end: false,
            took: Duration::try_from_secs_f64(record.duration).ok(),
            method: record.method.as_bytes(),
            target: target.as_bytes(),
            is_clerk: true,
            host: None,
            caller: Some(record.caller.as_bytes()),
            status,
            quota: None,
        };
        let call = self.call(parts)?;
        let read = call.read.zip(record.resource).map(|(read, resource)| SharedRead {
            resource: resource.0,
            tags: slots(&record.shows).unwrap_or_default(),
            is_tagged: read.is_tagged,
            batch: record.batch.map(|kind| kind.0),
        });
        let is_repeat = record.decision == Decision::Retried.as_str();
        Ok(LogCall { read, changes: slots(&record.changes), is_repeat, ..call })
    }
}

fn webhook(line: &[u8]) -> Result<LogEvent, SkipKind> {
    let record: WebhookRecord<'_> = serde_json::from_slice(line).map_err(|_| SkipKind::Malformed)?;
    if record.version != ACCESS_LOG_VERSION || record.event != WEBHOOK_EVENT {
        return Err(SkipKind::Version);
    }
    let changes = slots(&record.changes).unwrap_or_default();
    Ok(LogEvent::Webhook { at: moment(&record.time)?, changes })
}

fn moment(text: &str) -> Result<Moment, SkipKind> {
    time::parse(text.as_bytes()).ok_or(SkipKind::BadTime)
}

/// `None` without any.
fn slots(hashes: &[KeyedHash]) -> Option<Arc<TagSlots>> {
    (!hashes.is_empty()).then(|| Arc::new(TagSlots::of_hashes(hashes.iter().map(|hash| hash.0))))
}

/// A path of the route; one id is as good as another.
fn target(template: &str) -> String {
    let mut target = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        target.push_str(before);
        target.push('-');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    target.push_str(rest);
    target
}
