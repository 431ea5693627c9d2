//! Response headers: those that Clerk's responses have, and the quota headers of the selected profile.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER, SERVER, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::clock::{Epoch, ceil_seconds, system_time};
use super::limiter::Verdict;
use super::limits::SimulatedBucket;
use super::options::HeaderProfile;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");

const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const API_VERSION: HeaderName = HeaderName::from_static("clerk-api-version");
const CF_CACHE_STATUS: HeaderName = HeaderName::from_static("cf-cache-status");
const CF_RAY: HeaderName = HeaderName::from_static("cf-ray");
const X_CFWORKER: HeaderName = HeaderName::from_static("x-cfworker");
const X_CLERK_TRACE_ID: HeaderName = HeaderName::from_static("x-clerk-trace-id");
const X_CLOUD_TRACE_CONTEXT: HeaderName = HeaderName::from_static("x-cloud-trace-context");
const DEFAULT_API_VERSION: HeaderValue = HeaderValue::from_static("2025-11-10");

/// About as many as [`add_common`] adds; only a hint for the size of the map.
const COMMON_HEADERS: usize = 12;

/// Identifies a response, in its headers and in the body of an error.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    /// 32 hexadecimal digits.
    pub(super) id: String,
}

impl Trace {
    pub(super) fn new(high: u64, low: u64) -> Self {
        Self { id: format!("{high:016x}{low:016x}") }
    }
}

/// Adds the headers that every response of Clerk has. `date` is the wall-clock time that the response claims.
pub(super) fn add_common(headers: &mut HeaderMap, trace: &Trace, date: Epoch, requested_version: Option<&HeaderValue>) {
    headers.reserve(COMMON_HEADERS);
    headers.entry(CONTENT_TYPE).or_insert(JSON);
    headers.insert(DATE, date_value(system_time(date)));
    headers.insert(SERVER, HeaderValue::from_static("cloudflare"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(SET_COOKIE, HeaderValue::from_static("__cf_bm=simulated; path=/; HttpOnly; Secure; SameSite=None"));
    headers.insert(CF_CACHE_STATUS, HeaderValue::from_static("DYNAMIC"));
    headers.insert(X_CFWORKER, HeaderValue::from_static("1"));
    headers.insert(API_VERSION, requested_version.cloned().unwrap_or(DEFAULT_API_VERSION));
    insert_text(headers, CF_RAY, &format!("{}-FRA", &trace.id[..16]));
    insert_text(headers, X_CLERK_TRACE_ID, &trace.id);
    insert_text(headers, X_CLOUD_TRACE_CONTEXT, &trace.id);
}

/// Returns the API version that the request names, to be echoed.
pub(super) fn requested_version(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(API_VERSION)
}

/// Adds the quota headers of `profile`. `date` is the wall-clock time that the response claims.
pub(super) fn add_quota(
    headers: &mut HeaderMap,
    profile: HeaderProfile,
    bucket: SimulatedBucket,
    verdict: &Verdict,
    date: Epoch,
) {
    match profile {
        HeaderProfile::None => {}
        HeaderProfile::XRateLimit => add_x_rate_limit(headers, verdict, ceil_seconds(verdict.reset_after)),
        HeaderProfile::XRateLimitEpoch => {
            add_x_rate_limit(headers, verdict, ceil_seconds(date.saturating_add(verdict.reset_after)));
        }
        HeaderProfile::Ietf => {
            let mut text = String::with_capacity(48);
            let reset = ceil_seconds(verdict.reset_after);
            // Writing to a String does not fail.
            let _ = write!(text, "\"{bucket}\";r={};t={reset}", verdict.remaining);
            insert_text(headers, RATE_LIMIT, &text);
            text.clear();
            let window = ceil_seconds(verdict.window);
            let _ = write!(text, "\"{bucket}\";q={};w={window}", verdict.limit);
            insert_text(headers, RATE_LIMIT_POLICY, &text);
        }
    }
}

/// Replaces the quota headers with unusable ones.
pub(super) fn corrupt_quota(headers: &mut HeaderMap, profile: HeaderProfile) {
    if profile == HeaderProfile::Ietf {
        headers.insert(RATE_LIMIT, HeaderValue::from_static("\"instance\";r=many;t="));
        headers.insert(RATE_LIMIT_POLICY, HeaderValue::from_static("q==100"));
    } else {
        headers.insert(X_LIMIT, HeaderValue::from_static("plenty"));
        headers.insert(X_REMAINING, HeaderValue::from_static("4 2"));
        headers.insert(X_RESET, HeaderValue::from_static("soon"));
    }
}

/// Adds `Retry-After` in whole seconds, at least 1.
pub(super) fn add_retry_after(headers: &mut HeaderMap, after: Duration) {
    headers.insert(RETRY_AFTER, HeaderValue::from(ceil_seconds(after).max(1)));
}

fn add_x_rate_limit(headers: &mut HeaderMap, verdict: &Verdict, reset: u64) {
    headers.insert(X_LIMIT, HeaderValue::from(verdict.limit));
    headers.insert(X_REMAINING, HeaderValue::from(verdict.remaining));
    headers.insert(X_RESET, HeaderValue::from(reset));
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn date_value(at: SystemTime) -> HeaderValue {
    // `fmt_http_date` panics beyond the year 9999, which only an extreme clock skew reaches; use the epoch then.
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let at = if at > latest { SystemTime::UNIX_EPOCH } else { at };
    HeaderValue::from_str(&httpdate::fmt_http_date(at)).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict() -> Verdict {
        Verdict {
            allowed: true,
            limit: 100,
            remaining: 42,
            window: Duration::from_secs(10),
            reset_after: Duration::from_millis(6_001),
            retry_after: Duration::ZERO,
        }
    }

    fn written(profile: HeaderProfile) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        add_quota(&mut headers, profile, SimulatedBucket::Instance, &verdict(), Duration::from_millis(1_000_500));
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_profile_writes_its_headers_and_rounds_up() {
        assert_eq!(written(HeaderProfile::None), pairs(&[]));
        let delta = [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "42"), ("x-ratelimit-reset", "7")];
        assert_eq!(written(HeaderProfile::XRateLimit), pairs(&delta));
        let epoch = [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "42"), ("x-ratelimit-reset", "1007")];
        assert_eq!(written(HeaderProfile::XRateLimitEpoch), pairs(&epoch));
        let ietf = [("ratelimit", "\"instance\";r=42;t=7"), ("ratelimit-policy", "\"instance\";q=100;w=10")];
        assert_eq!(written(HeaderProfile::Ietf), pairs(&ietf));
    }

    #[test]
    fn retry_after_is_at_least_a_second() {
        let mut headers = HeaderMap::new();
        add_retry_after(&mut headers, Duration::ZERO);
        assert_eq!(headers[RETRY_AFTER], "1");
        add_retry_after(&mut headers, Duration::from_millis(8_001));
        assert_eq!(headers[RETRY_AFTER], "9");
    }

    #[test]
    fn clock_beyond_year_9999_still_gives_a_date() {
        let far = system_time(Duration::from_secs(1 << 40));
        assert_eq!(date_value(far), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
