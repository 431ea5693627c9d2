//! The lines of the gateway's access log, as JSON: one for each attempt, and one for each webhook that changed something.
//!
//! They hold no path, query, id or key. Resources, and what changes them, are hashes under a key that the process forgets
//! when it ends: they tell what is equal within one process, and nothing else.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    /// What decides the response; absent for requests whose response no other request may share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resource: Option<KeyedHash>,
    /// Lookups of single users with the same value may share a batch; absent for other requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<KeyedHash>,
    /// What the response shows: a change of it outdates the response.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(crate) shows: Cow<'a, [KeyedHash]>,
    /// What the request may have changed, or what Clerk says is gone.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(crate) changes: Cow<'a, [KeyedHash]>,
}

/// A webhook of Clerk's that was accepted and changed something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WebhookRecord<'a> {
    /// [`VERSION`].
    #[serde(rename = "clerk_exporter_access")]
    pub(crate) version: u32,
    /// When what it changed was outdated in the caches: RFC 3339, UTC.
    #[serde(borrow)]
    pub(crate) time: Cow<'a, str>,
    /// [`WEBHOOK`].
    #[serde(borrow)]
    pub(crate) event: Cow<'a, str>,
    /// What it changed.
    pub(crate) changes: Cow<'a, [KeyedHash]>,
}

/// The value of `event` in a [`WebhookRecord`].
pub(crate) const WEBHOOK: &str = "webhook";

/// A hash under a key of the process, as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyedHash(pub(crate) u64);

impl Serialize for KeyedHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for KeyedHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'_, str>>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(D::Error::custom)
    }
}

fn is_empty(hashes: &[KeyedHash]) -> bool {
    hashes.is_empty()
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
            resource: Some(KeyedHash(0xc0ffee)),
            batch: None,
            shows: vec![KeyedHash(1), KeyedHash(u64::MAX)].into(),
            changes: Cow::default(),
        };
        let line = serde_json::to_string(&record).unwrap();
        assert!(line.starts_with("{\"clerk_exporter_access\":1,") && !line.contains('\n'), "{line}");
        assert!(
            line.ends_with(r#""resource":"0000000000c0ffee","shows":["0000000000000001","ffffffffffffffff"]}"#),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<AccessRecord<'_>>(&line).unwrap(), record);
    }
}
