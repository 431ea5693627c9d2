//! Verifications of opaque tokens: which may be kept, how long, and what ends them.
//!
//! `POST /v1/api_keys/verify` and its like are one request for each request that an application serves. Clerk answers a
//! revoked or expired token with 200, too, so the body decides. A revocation names the token's ID, which only the answer
//! has.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde::Deserialize;

use super::CachedResponse;
use crate::webhook::Tag;

/// The resolution of `Date` (RFC 9110, section 5.6.7).
const DATE_RESOLUTION: Duration = Duration::from_secs(1);

/// What a response says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// The tags of the response. They replace those of the request.
    pub(super) tags: [Tag; 3],
    /// How long it may be kept, from the response on.
    pub(super) at_most: Duration,
}

#[derive(Deserialize)]
struct Verification {
    id: Arc<str>,
    revoked: bool,
    expired: bool,
    /// Milliseconds since 1970.
    #[serde(default)]
    expiration: Option<f64>,
}

/// Describes a verification; `None` if it must not be kept: it is no success, or what it says is incomplete.
pub(super) fn describe(answer: &CachedResponse) -> Option<Described> {
    if answer.status() != StatusCode::OK {
        return None;
    }
    // A list would be read as the fields in their order.
    if !answer.body().trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let verification: Verification = serde_json::from_slice(answer.body()).ok()?;
    if verification.revoked || verification.expired || verification.id.is_empty() {
        return None;
    }
    let at_most = match verification.expiration {
        None => Duration::MAX,
        Some(millis) => {
            let expires = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(millis / 1000.0).ok()?)?;
            expires.duration_since(responded_at(answer)).ok()?
        }
    };
    let tags = [Tag::Everything, Tag::AnyVerification, Tag::Verification(verification.id)];
    Some(Described { tags, at_most })
}

/// The latest time at which it may have been sent: by Clerk's clock, which decides when a token expires.
fn responded_at(answer: &CachedResponse) -> SystemTime {
    let date = ratelimit_headers::parse(answer.status(), answer.headers(), None).date;
    date.map_or(answer.fetched_at(), |date| date + DATE_RESOLUTION)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::header::DATE;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_795_883_650);

    fn answer(status: u16, body: &str) -> CachedResponse {
        let status = StatusCode::from_u16(status).unwrap();
        CachedResponse::new(status, HeaderMap::new(), Bytes::from(body.to_owned()), UNIX_EPOCH + NOW)
    }

    #[test]
    fn only_complete_successes_are_kept() {
        for (status, body, is_kept) in [
            (200, r#"{"id":"ak_1","revoked":false,"expired":false}"#, true),
            (200, r#"{"id":"ak_1","revoked":false,"expired":false,"expiration":null,"claims":{"revoked":true}}"#, true),
            (200, r#"{"id":"ak_1","revoked":true,"expired":false}"#, false),
            (200, r#"{"id":"ak_1","revoked":false,"expired":true}"#, false),
            (200, r#"{"id":"ak_1","revoked":false}"#, false),
            (200, r#"{"id":"ak_1","expired":false}"#, false),
            (200, r#"{"revoked":false,"expired":false}"#, false),
            (200, r#"{"id":"","revoked":false,"expired":false}"#, false),
            (200, r#"{"id":null,"revoked":false,"expired":false}"#, false),
            (200, r#"{"id":"ak_1","revoked":null,"expired":false}"#, false),
            (200, r#"{"id":"ak_1","revoked":"false","expired":false}"#, false),
            (200, r#"{"id":"ak_1","revoked":0,"expired":false}"#, false),
            (200, r#"{"id":"ak_1","revoked":false,"expired":false,"expiration":"soon"}"#, false),
            (200, r#"{"id":"ak_1","revoked":false,"expired":false,"expiration":-1}"#, false),
            (200, r#"{"id":"ak_1","revoked":false,"expired":false,"revoked":true}"#, false),
            (200, r#"{"id":"ak_1","revoked":true,"expired":false,"revoked":false}"#, false),
            (200, r#"[{"id":"ak_1","revoked":false,"expired":false}]"#, false),
            (200, r#"{"active":false}"#, false),
            (200, "", false),
            (201, r#"{"id":"ak_1","revoked":false,"expired":false}"#, false),
            (404, r#"{"id":"ak_1","revoked":false,"expired":false}"#, false),
        ] {
            assert_eq!(describe(&answer(status, body)).is_some(), is_kept, "{status} {body}");
        }
    }

    #[test]
    fn lists_in_place_of_objects_are_not_kept() {
        assert_eq!(describe(&answer(200, r#"["ak_1",false,false]"#)), None);
        assert_eq!(describe(&answer(200, r#"["ak_1",false,false,null]"#)), None);
    }

    #[test]
    fn token_is_not_kept_beyond_its_expiry() {
        let at_most = |millis: u128, date: Option<&'static str>| {
            let body = format!(r#"{{"id":"mt_1","revoked":false,"expired":false,"expiration":{millis}}}"#);
            let mut headers = HeaderMap::new();
            headers.extend(date.map(|date| (DATE, HeaderValue::from_static(date))));
            let answer = CachedResponse::new(StatusCode::OK, headers, Bytes::from(body), UNIX_EPOCH + NOW);
            describe(&answer).map(|described| described.at_most)
        };
        let in_30_seconds = NOW.as_millis() + 30_000;
        assert_eq!(at_most(in_30_seconds, None), Some(Duration::from_secs(30)));
        // Clerk's clock is 20 s ahead.
        assert_eq!(at_most(in_30_seconds, Some("Sat, 28 Nov 2026 16:34:30 GMT")), Some(Duration::from_secs(9)));
        assert_eq!(at_most(in_30_seconds, Some("yesterday")), Some(Duration::from_secs(30)));
        assert_eq!(at_most(NOW.as_millis() - 1, None), None);
        // Seconds in place of milliseconds are long past.
        assert_eq!(at_most(u128::from(NOW.as_secs()) + 30, None), None);
    }
}
