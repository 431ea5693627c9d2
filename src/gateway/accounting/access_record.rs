//! A line of the gateway's access log: one attempt, as JSON.
//!
//! It holds no path, query, id or key. `resource` tells equal resources of one process apart and nothing else: it is a hash
//! under a key that the process forgets when it ends.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The version of the format that this program writes.
pub(crate) const VERSION: u32 = 1;

/// An attempt that was sent to Clerk. The version is the first member, so that a reader knows the line by its begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AccessRecord<'a> {
    /// [`VERSION`].
    #[serde(rename = "clerk_exporter_access")]
    pub(crate) version: u32,
    /// When the attempt was sent: RFC 3339, UTC, milliseconds or finer.
    #[serde(borrow)]
    pub(crate) time: Cow<'a, str>,
    /// Alias of the Clerk instance.
    #[serde(borrow)]
    pub(crate) instance: Cow<'a, str>,
    /// Name of the caller.
    #[serde(borrow)]
    pub(crate) caller: Cow<'a, str>,
    /// Template of the route as sent, or `other`.
    #[serde(borrow)]
    pub(crate) route: Cow<'a, str>,
    /// Method in upper case.
    #[serde(borrow)]
    pub(crate) method: Cow<'a, str>,
    /// Status of the response; null if none came.
    pub(crate) status: Option<u16>,
    /// What the gateway did with the request: the value of `x-clerk-exporter-decision`.
    #[serde(borrow)]
    pub(crate) decision: Cow<'a, str>,
    /// Seconds until the response head, or until the attempt ended without one.
    pub(crate) duration: f64,
    /// Keyed hash of what decides the response, 16 hexadecimal digits; absent for requests that share nothing.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) resource: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_one_line_that_begins_with_its_version() {
        let record = AccessRecord {
            version: VERSION,
            time: "2026-11-29T23:04:13.125Z".into(),
            instance: "prod".into(),
            caller: "web".into(),
            route: "/v1/users/{user_id}".into(),
            method: "GET".into(),
            status: None,
            decision: "forwarded".into(),
            duration: 0.012,
            resource: Some("00c0ffee00c0ffee".into()),
        };
        let line = serde_json::to_string(&record).unwrap();
        assert!(line.starts_with("{\"clerk_exporter_access\":1,") && !line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<AccessRecord<'_>>(&line).unwrap(), record);
    }
}
