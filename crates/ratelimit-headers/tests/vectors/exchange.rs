//! A response with arbitrary quota headers, and the invariants of its parsing.
//!
//! Shared by the property tests and the fuzz target `quota_headers`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use ratelimit_headers::{HeaderDialect, HeaderError, Quota, parse};

/// Every header name that the parser reads, and two that it must ignore.
pub(crate) const NAMES: [&str; 18] = [
    "RateLimit",
    "RateLimit-Policy",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-RateLimit-Reset-After",
    "X-Rate-Limit-Limit",
    "X-Rate-Limit-Remaining",
    "X-Rate-Limit-Reset",
    "X-Rate-Limit-Reset-After",
    "Retry-After",
    "Age",
    "Date",
    "X-RateLimit-Remaining-Tokens",
    "Content-Type",
];

const STATUSES: [u16; 8] = [200, 201, 304, 400, 403, 429, 500, 503];
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Status, local time and header lines of a response. A line is an index into [`NAMES`] and a value.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) status: StatusCode,
    pub(crate) now: Option<SystemTime>,
    pub(crate) lines: Vec<(usize, Vec<u8>)>,
}

impl Exchange {
    /// Decodes an exchange from any bytes: status, clock, then lines of name, length and value.
    pub(crate) fn from_bytes(data: &[u8]) -> Self {
        let (status, data) = split_byte(data);
        let (clock, mut data) = split_byte(data);
        let mut lines = Vec::new();
        while !data.is_empty() {
            let (name, rest) = split_byte(data);
            let (length, rest) = split_byte(rest);
            let (value, rest) = rest.split_at(rest.len().min(usize::from(length)));
            lines.push((usize::from(name) % NAMES.len(), value.to_vec()));
            data = rest;
        }
        Self::new(status, clock, lines)
    }

    /// `clock` 0 means that the local time is unknown, 1 that it is before the epoch.
    pub(crate) fn new(status: u8, clock: u8, mut lines: Vec<(usize, Vec<u8>)>) -> Self {
        for (_, value) in &mut lines {
            for byte in value {
                // HTTP libraries reject these bytes.
                if (*byte < b' ' && *byte != b'\t') || *byte == 0x7f {
                    *byte = b'?';
                }
            }
        }
        let status = STATUSES[usize::from(status) % STATUSES.len()];
        Self {
            status: StatusCode::from_u16(status).unwrap_or_default(),
            now: match clock {
                0 => None,
                1 => UNIX_EPOCH.checked_sub(YEAR),
                // 2026-11-25T12:00:00Z plus a fraction of a second.
                _ => Some(UNIX_EPOCH + Duration::from_millis(1_795_608_000_000 + u64::from(clock))),
            },
            lines,
        }
    }

    /// Checks the invariants and panics if one is violated.
    pub(crate) fn check(&self) {
        let quota = parse(self.status, &self.headers(str::to_owned), self.now);
        self.check_ranges(&quota);
        self.check_unknown(&quota);

        let upper_case = parse(self.status, &self.headers(str::to_ascii_uppercase), self.now);
        assert_eq!(quota, upper_case, "the case of a name changed the result");

        let mut reordered = self.clone();
        // A stable sort, because the order of lines with one name matters.
        reordered.lines.sort_by_key(|(name, _)| std::cmp::Reverse(*name));
        let reordered = parse(self.status, &reordered.headers(str::to_owned), self.now);
        assert_eq!(quota, reordered, "the order of different names changed the result");
    }

    fn check_ranges(&self, quota: &Quota) {
        for time in [quota.reset, quota.retry_after, quota.window].into_iter().flatten() {
            assert!(time <= YEAR, "{time:?}");
        }
        for count in [quota.limit, quota.remaining].into_iter().flatten() {
            assert!(count < 1 << 53, "{count}");
        }
        if quota.limit == Some(0) {
            assert_eq!(self.status, StatusCode::TOO_MANY_REQUESTS);
        }
        assert_ne!(quota.window, Some(Duration::ZERO));
        let resolutions = [Duration::from_millis(1), Duration::from_secs(1)];
        match quota.reset {
            Some(_) => assert!(resolutions.contains(&quota.reset_resolution)),
            None => assert_eq!(quota.reset_resolution, Duration::ZERO),
        }
    }

    fn check_unknown(&self, quota: &Quota) {
        let numbers = (quota.limit, quota.remaining, quota.reset, quota.window);
        let no_family = matches!(quota.dialect, None | Some(HeaderDialect::RetryAfter));
        if no_family || quota.errors.contains(HeaderError::Stale) {
            assert_eq!(numbers, (None, None, None, None));
        }
        if quota.window.is_some() {
            assert!(quota.limit.is_some(), "a window without its limit");
        }
        if quota.dialect == Some(HeaderDialect::RetryAfter) {
            assert!(quota.retry_after.is_some());
        }
        assert_eq!(quota.errors.is_empty(), quota.errors.first().is_none());
    }

    fn headers(&self, spell: impl Fn(&str) -> String) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.lines {
            let name = HeaderName::from_bytes(spell(NAMES[*name]).as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        headers
    }
}

fn split_byte(data: &[u8]) -> (u8, &[u8]) {
    match data {
        [first, rest @ ..] => (*first, rest),
        [] => (0, data),
    }
}
