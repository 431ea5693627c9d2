//! Parses rate-limit headers of HTTP responses.
//!
//! Clerk documents only `Retry-After`, and only on 429. Proxies and other versions may send any header family in use.
//! The first usable family is taken, in this order, and families are never mixed:
//!
//! | family | headers |
//! |---|---|
//! | [`HeaderDialect::Ietf`] | `RateLimit` and `RateLimit-Policy` since draft 08 (`"default";r=50;t=30`) |
//! | [`HeaderDialect::IetfDraft7`] | `RateLimit` of draft 07 (`limit=100, remaining=50, reset=30`) |
//! | [`HeaderDialect::IetfLegacy`] | `RateLimit-Limit`, `-Remaining`, `-Reset` of the drafts up to 06 |
//! | [`HeaderDialect::XRateLimit`] | `X-RateLimit-*`, `X-Rate-Limit-*` |
//! | [`HeaderDialect::RetryAfter`] | `Retry-After` (RFC 9110, section 10.2.3) alone |
//!
//! Header values are untrusted: [`parse`] never panics. Unreadable values are reported in [`Quota::errors`] and are
//! `None`, never 0.

mod error;
mod header_quota;
mod list;
mod number;
mod plain;
mod reset;
mod structured;
mod x_ratelimit;

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::{AGE, DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

pub use error::{HeaderError, HeaderErrors};

use header_quota::Reading;
use list::{Column, column, lines, trim};
use number::Count;
use reset::{Clock, LONGEST, Wait, http_date};
use structured::Structured;

/// The quota according to a response's headers. Unknown values are `None`, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Requests per window, below 2^53. 0 only on a 429, as a ban. `None` also if unlimited.
    pub limit: Option<u64>,
    /// Remaining requests, below 2^53. May exceed the limit (burst credit).
    pub remaining: Option<u64>,
    /// Time from the response until the window resets, at most 365 days, not rounded. 0 if it is in the past.
    pub reset: Option<Duration>,
    /// Resolution of [`reset`](Self::reset): resets that differ by no more may be equal.
    ///
    /// 1 s for whole seconds, HTTP dates and times relative to the `Date` header; 1 ms for finer values; zero without a
    /// reset.
    pub reset_resolution: Duration,
    /// Length of the window, if sent as a parameter of the limit (`w=10`, `window=3600`).
    pub window: Option<Duration>,
    /// Time from the response until a request may be retried, at most 365 days, not rounded. May be 0.
    pub retry_after: Option<Duration>,
    /// The family used; if none was usable, the first one present.
    pub dialect: Option<HeaderDialect>,
    /// Errors in the parsed headers.
    pub errors: HeaderErrors,
    /// The response's `Date` header, if readable.
    pub date: Option<SystemTime>,
}

/// A family of headers that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeaderDialect {
    /// `RateLimit` and `RateLimit-Policy` as lists of named items.
    Ietf,
    /// `RateLimit` as a dictionary.
    IetfDraft7,
    /// `RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset`.
    IetfLegacy,
    /// `X-RateLimit-*` or `X-Rate-Limit-*`.
    XRateLimit,
    /// Nothing but `Retry-After`.
    RetryAfter,
}

impl HeaderDialect {
    /// The families with quota numbers, in the order in which they are tried.
    const QUOTA: [Self; 4] = [Self::Ietf, Self::IetfDraft7, Self::IetfLegacy, Self::XRateLimit];

    /// The name in JSON and logs, in lower case with hyphens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ietf => "ietf",
            Self::IetfDraft7 => "ietf-draft7",
            Self::IetfLegacy => "ietf-legacy",
            Self::XRateLimit => "x-ratelimit",
            Self::RetryAfter => "retry-after",
        }
    }
}

impl fmt::Display for HeaderDialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returns whether a header with this name, in lower case, is about a quota in any dialect, also one that is not read.
///
/// ```
/// assert!(ratelimit_headers::is_quota_header("ratelimit-policy"));
/// assert!(ratelimit_headers::is_quota_header("x-rate-limit-limit"));
/// assert!(!ratelimit_headers::is_quota_header("retry-after"));
/// ```
#[must_use]
pub fn is_quota_header(name: &str) -> bool {
    ["ratelimit", "x-ratelimit", "x-rate-limit"].iter().any(|start| name.starts_with(start))
}

/// Parses the quota headers of a response.
///
/// `now` is the local time at which the response arrived. It is used only for absolute times in a response without a
/// readable `Date`. If it is also `None`, absolute times are unknown, but deltas still work.
///
/// A response from a cache (`Age` above 0) has outdated quota numbers, which are dropped. `Retry-After` is kept,
/// because waiting too long is harmless.
#[must_use]
pub fn parse(status: StatusCode, headers: &HeaderMap, now: Option<SystemTime>) -> Quota {
    let present = Present::scan(headers);
    let date = lines(headers, &DATE).find_map(|line| http_date(trim(line)));
    let clock = Clock::new(date, now);
    let (family, mut reading) = quota_dialect(status, headers, present, &clock);
    if family.is_some() && present.age && is_stale(headers) {
        reading = Reading { usable: reading.usable, errors: reading.errors, ..Reading::default() };
        reading.errors.insert(HeaderError::Stale);
    }
    let (retry_after, retry_errors) =
        if present.retry_after { retry_after(headers, &clock) } else { Default::default() };
    reading.errors.extend(retry_errors);
    Quota {
        limit: reading.limit,
        remaining: reading.remaining,
        reset: reading.reset.map(|reset| reset.after),
        reset_resolution: reading.reset.map(|reset| reset.resolution).unwrap_or_default(),
        window: reading.window,
        retry_after,
        dialect: match retry_after {
            Some(_) if !reading.usable => Some(HeaderDialect::RetryAfter),
            _ => family,
        },
        errors: reading.errors,
        date,
    }
}

/// Returns the first usable family, otherwise the first one present. Keeps the errors of unusable families.
fn quota_dialect(
    status: StatusCode,
    headers: &HeaderMap,
    present: Present,
    clock: &Clock,
) -> (Option<HeaderDialect>, Reading) {
    // Clerk's usual response.
    if !present.ratelimit && !present.x_ratelimit && !present.x_rate_limit {
        return (None, Reading::default());
    }
    let throttled = status == StatusCode::TOO_MANY_REQUESTS;
    if !present.ratelimit
        && !present.x_rate_limit
        && let Some(reading) = plain::read(headers, throttled, clock)
    {
        return (Some(HeaderDialect::XRateLimit), reading);
    }
    let structured = if present.ratelimit { Structured::read(headers, throttled) } else { Structured::absent() };
    let mut errors = structured.errors;
    let mut seen = None;
    for family in HeaderDialect::QUOTA {
        let reading = match family {
            HeaderDialect::Ietf => structured.ietf(clock),
            HeaderDialect::IetfDraft7 => structured.draft7(throttled, clock),
            HeaderDialect::IetfLegacy if !present.ratelimit => None,
            HeaderDialect::XRateLimit if !present.x_ratelimit && !present.x_rate_limit => None,
            HeaderDialect::IetfLegacy => {
                let mut fields = x_ratelimit::ietf_legacy(headers, throttled, clock);
                fields.windows.extend(structured.windows());
                (!fields.is_absent()).then(|| fields.read())
            }
            HeaderDialect::XRateLimit => {
                let fields = x_ratelimit::x_ratelimit(headers, present, throttled, clock);
                (!fields.is_absent()).then(|| fields.read())
            }
            HeaderDialect::RetryAfter => None,
        };
        let Some(mut reading) = reading else {
            continue;
        };
        errors.extend(reading.errors);
        if reading.usable {
            reading.errors = errors;
            return (Some(family), reading);
        }
        seen = seen.or(Some(family));
    }
    // If `RateLimit` is unusable but policies are valid, use their limit.
    let mut reading = structured.policies_only().unwrap_or_default();
    let family = if reading.usable { Some(HeaderDialect::Ietf) } else { seen };
    errors.extend(reading.errors);
    reading.errors = errors;
    (family, reading)
}

/// Which headers are present. One pass over all names is cheaper than a lookup per name.
#[derive(Debug, Clone, Copy, Default)]
struct Present {
    age: bool,
    retry_after: bool,
    /// Whether a name starts with `ratelimit`; likewise below.
    ratelimit: bool,
    x_ratelimit: bool,
    x_rate_limit: bool,
}

impl Present {
    fn scan(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            present.age |= *name == AGE;
            present.retry_after |= *name == RETRY_AFTER;
            let name = name.as_str();
            if !name.starts_with(['r', 'x']) {
                continue;
            }
            present.ratelimit |= name.starts_with("ratelimit");
            present.x_ratelimit |= name.starts_with("x-ratelimit");
            present.x_rate_limit |= name.starts_with("x-rate-limit");
        }
        present
    }
}

/// Whether the response is an aged one from a cache (RFC 9111, section 5.1). An unreadable `Age` is ignored.
fn is_stale(headers: &HeaderMap) -> bool {
    let ages = column(headers, &[&AGE], Count::from_text);
    ages.iter().flatten().any(|age| !matches!(age, Count::Negative | Count::Exact(0)))
}

/// Parses `Retry-After`, for any status. Returns the longest of several: too early is worse than too late.
fn retry_after(headers: &HeaderMap, clock: &Clock) -> (Option<Duration>, HeaderErrors) {
    let waits = column(headers, &[&RETRY_AFTER], |element| Wait::from_text(element, clock));
    let mut errors = HeaderErrors::NONE;
    let mut delays = Column::new();
    for wait in waits.iter() {
        match wait {
            Some(Wait::After(reset)) => delays.push(reset.after),
            Some(Wait::TooLong) => {
                errors.insert(HeaderError::Clamped);
                delays.push(LONGEST);
            }
            Some(Wait::NoClock) => {}
            None => errors.insert(HeaderError::InvalidRetryAfter),
        }
    }
    if !delays.is_empty() && delays.agreed().is_none() {
        errors.insert(HeaderError::ConflictingValues);
    }
    (delays.iter().max(), errors)
}
