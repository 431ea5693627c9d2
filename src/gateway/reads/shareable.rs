//! Which reads may share a response, and which responses may be cached.
//!
//! A request field is part of the cache key, removed from shared requests, or harmless: known not to affect the
//! response. A read with any other field is forwarded unchanged and not shared. `docs/gateway.md` has the lists; a test
//! compares them.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header with the Backend API version that a client uses.
pub(in crate::gateway) static API_VERSION: HeaderName = HeaderName::from_static("clerk-api-version");

/// Fields removed from shared requests: every client that gets the response must be able to decode it, and cookies
/// belong to one client.
pub(in crate::gateway) static LEFT_OUT_FIELDS: [HeaderName; 2] = [ACCEPT_ENCODING, COOKIE];

/// Fields that do not affect a response, sorted: user agents, trace and request IDs, fields that browsers and their
/// imitations add, and the type of an empty body. `authorization` is among them: all keys of an instance get the same
/// responses, and the key is checked before.
const HARMLESS_FIELDS: [&str; 33] = [
    "authorization",
    "b3",
    "baggage",
    "content-type",
    "dnt",
    "elastic-apm-traceparent",
    "newrelic",
    "priority",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "sec-gpc",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "user-agent",
    "x-amzn-trace-id",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-clerk-sdk",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-datadog-origin",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
    "x-datadog-trace-id",
    "x-request-id",
];

/// Fields that are harmless with one value only: any language, and an empty body.
static HARMLESS_VALUES: [(HeaderName, &str); 2] = [(ACCEPT_LANGUAGE, "*"), (CONTENT_LENGTH, "0")];

/// The request fields that affect the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct RequestDirectives<'a> {
    pub(in crate::gateway) accept: Option<&'a HeaderValue>,
    pub(in crate::gateway) api_version: Option<&'a HeaderValue>,
}

impl<'a> RequestDirectives<'a> {
    /// `None` if the response may depend on further fields, or if a field is repeated. One pass over all names is
    /// cheaper than a lookup of each.
    pub(in crate::gateway) fn of(headers: &'a HeaderMap) -> Option<Self> {
        Self::with(headers, &[])
    }

    /// The same for a request with a body, which is compared itself, with its type.
    pub(in crate::gateway) fn of_body(headers: &'a HeaderMap) -> Option<Self> {
        let is_single = headers.get_all(CONTENT_TYPE).iter().nth(1).is_none();
        is_single.then(|| Self::with(headers, &[CONTENT_LENGTH])).flatten()
    }

    fn with(headers: &'a HeaderMap, allowed: &[HeaderName]) -> Option<Self> {
        let mut directives = Self { accept: None, api_version: None };
        for (name, value) in headers {
            let is_fine = if *name == ACCEPT {
                directives.accept.replace(value).is_none()
            } else if *name == API_VERSION {
                directives.api_version.replace(value).is_none()
            } else {
                // The instance's own.
                *name == HOST
                    || LEFT_OUT_FIELDS.contains(name)
                    || allowed.contains(name)
                    || HARMLESS_FIELDS.binary_search(&name.as_str()).is_ok()
                    || HARMLESS_VALUES.iter().any(|(field, harmless)| name == field && value == harmless)
            };
            if !is_fine {
                return None;
            }
        }
        Some(directives)
    }

    /// Whether the client accepts JSON.
    pub(in crate::gateway) fn accepts_json(&self) -> bool {
        let Some(accept) = self.accept else { return true };
        let mut ranges = accept.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        ranges.any(|range| [&b"*/*"[..], b"application/json"].iter().any(|json| range.eq_ignore_ascii_case(json)))
    }
}

/// Whether a response may be cached or shared: `Cache-Control` allows it (RFC 9111, section 5.2.2), and `Vary` names
/// only known fields (section 4.1).
pub(in crate::gateway) fn may_be_kept(headers: &HeaderMap) -> bool {
    let elements = |name| {
        let values = headers.get_all(name).iter().map(|value: &HeaderValue| value.to_str().unwrap_or("*"));
        values.flat_map(|value| value.split(',')).map(str::trim)
    };
    let says_no = |directive: &str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        ["no-store", "private"].iter().any(|no| name.eq_ignore_ascii_case(no))
    };
    let is_known = |field: &str| KNOWN_TO_VARY.iter().any(|known| field.eq_ignore_ascii_case(known));
    !elements(CACHE_CONTROL).any(says_no) && elements(VARY).all(|field| field.is_empty() || is_known(field))
}

/// Fields that a response may vary by: the first two are in the cache key; compression and cookies are never sent in
/// shared requests; all keys of an instance get the same response; and `Origin` is sent by browsers, which have no
/// secret key.
const KNOWN_TO_VARY: [&str; 6] =
    ["accept", "clerk-api-version", "accept-encoding", "cookie", "authorization", "origin"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_lists_are_sorted_and_match_the_documentation() {
        assert!(HARMLESS_FIELDS.is_sorted());
        let docs = include_str!("../../../docs/gateway.md");
        let (_, list) = docs.split_once("<!-- shared reads: begin -->").unwrap();
        let (list, _) = list.split_once("<!-- shared reads: end -->").unwrap();
        let mut listed: Vec<String> =
            list.split('`').skip(1).step_by(2).map(|name| name.to_ascii_lowercase()).collect();
        listed.sort();
        let names = [ACCEPT, API_VERSION.clone()].into_iter().chain(LEFT_OUT_FIELDS.iter().cloned());
        let valued = HARMLESS_VALUES.iter().map(|(name, value)| format!("{name}: {value}"));
        let harmless = HARMLESS_FIELDS.iter().map(ToString::to_string);
        let mut known: Vec<String> = names.map(|name| name.to_string()).chain(valued).chain(harmless).collect();
        known.sort();
        assert_eq!(listed, known);
    }

    #[test]
    fn request_with_unknown_field_is_not_shared() {
        for (fields, is_shared) in [
            (&[("user-agent", "a"), ("traceparent", "b"), ("cookie", "c"), ("accept", "d")][..], true),
            (&[("accept-language", "*"), ("content-length", "0")], true),
            (&[("accept-language", "de")], false),
            (&[("content-length", "1")], false),
            (&[("accept", "a"), ("accept", "a")], false),
            (&[("clerk-api-version", "1"), ("clerk-api-version", "1")], false),
            (&[("x-unknown", "")], false),
            (&[("cache-control", "max-age=0")], false),
            (&[("te", "trailers")], false),
            (&[("trailer", "x")], false),
            (&[("range", "bytes=0-1")], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(RequestDirectives::of(&headers).is_some(), is_shared, "{fields:?}");
        }
    }
}
