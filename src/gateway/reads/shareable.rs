//! Which reads may share an answer, and which answers may be given again.
//!
//! A field of a request is part of what is asked for, left out of a shared request, or harmless: known to change nothing
//! of an answer. A read with any other field is not shared, and goes unchanged. `docs/gateway.md` has the lists, and a test
//! compares.

use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_LENGTH, COOKIE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that says which version of the Backend API a client speaks.
pub(in crate::gateway) static API_VERSION: HeaderName = HeaderName::from_static("clerk-api-version");

/// What a shared request goes without: whoever gets the answer can read it, and none of it is for one client.
pub(in crate::gateway) static LEFT_OUT_FIELDS: [HeaderName; 2] = [ACCEPT_ENCODING, COOKIE];

/// Fields that change nothing of an answer, sorted: who asks, traces and names of requests, what browsers and their
/// imitations add, and a type of a body that is not there. All keys of an instance see the same answers; whether a request
/// has one of them is known before.
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

/// Fields that are harmless with one value: no preference of a language, and no body.
static HARMLESS_VALUES: [(HeaderName, &str); 2] = [(ACCEPT_LANGUAGE, "*"), (CONTENT_LENGTH, "0")];

/// What the fields of a read say of the answer that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct RequestDirectives<'a> {
    pub(in crate::gateway) accept: Option<&'a HeaderValue>,
    pub(in crate::gateway) api_version: Option<&'a HeaderValue>,
}

impl<'a> RequestDirectives<'a> {
    /// None where the answer may depend on more than is known, or the client contradicts itself. One look at all names
    /// costs less than asking for each.
    pub(in crate::gateway) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut directives = Self { accept: None, api_version: None };
        for (name, value) in headers {
            let is_fine = if *name == ACCEPT {
                directives.accept.replace(value).is_none()
            } else if *name == API_VERSION {
                directives.api_version.replace(value).is_none()
            } else {
                LEFT_OUT_FIELDS.contains(name)
                    || HARMLESS_FIELDS.binary_search(&name.as_str()).is_ok()
                    || HARMLESS_VALUES.iter().any(|(field, harmless)| name == field && value == harmless)
            };
            if !is_fine {
                return None;
            }
        }
        Some(directives)
    }

    /// Whether JSON is among the answers that are wanted.
    pub(in crate::gateway) fn accepts_json(&self) -> bool {
        let Some(accept) = self.accept else { return true };
        let mut ranges = accept.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        ranges.any(|range| [&b"*/*"[..], b"application/json"].iter().any(|json| range.eq_ignore_ascii_case(json)))
    }
}

/// Whether an answer may be given to who asks the same later: it does not say no (RFC 9111, section 5.2.2), and does not
/// depend on more of a request than is looked at (section 4.1) or is the same for all who are given it.
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

/// What an answer may vary by: the first two are part of what is asked for; compression and cookies are never asked for;
/// all keys of an instance see the same; and no browser, which has an origin, has a key.
const KNOWN_TO_VARY: [&str; 6] =
    ["accept", "clerk-api-version", "accept-encoding", "cookie", "authorization", "origin"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_are_those_of_the_documentation() {
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
    fn a_field_that_is_not_known_to_be_harmless_is_not_shared() {
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
