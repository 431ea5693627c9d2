//! Reads the quota headers of one answer.
//!
//! Clerk documents only `Retry-After`, and only on 429; proxies and earlier or later versions may send any of the
//! families that are in use. All of them are understood, the first usable one is taken, and two are never mixed:
//!
//! | family | headers |
//! |---|---|
//! | [`HeaderDialect::Ietf`] | `RateLimit` and `RateLimit-Policy` since draft 08 (`"default";r=50;t=30`) |
//! | [`HeaderDialect::IetfDraft7`] | `RateLimit` of draft 07 (`limit=100, remaining=50, reset=30`) |
//! | [`HeaderDialect::IetfLegacy`] | `RateLimit-Limit`, `-Remaining`, `-Reset` of the drafts up to 06 |
//! | [`HeaderDialect::XRateLimit`] | `X-RateLimit-*`, `X-Rate-Limit-*` |
//! | [`HeaderDialect::RetryAfter`] | `Retry-After` (RFC 9110, section 10.2.3) alone |
//!
//! Header values come from outside: whatever they are, [`parse`] does not panic, and what it cannot read is reported in
//! [`Quota::errors`] and is otherwise unknown. It is never 0.

mod error;
mod header_quota;
mod list;
mod number;
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

/// What the headers of one answer say of the quota. Unknown is `None`, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Requests per window, below 2^53. 0 only on a 429, where it is a ban. `None` also for "unlimited".
    pub limit: Option<u64>,
    /// Requests that are left, below 2^53. It may exceed the limit (burst credit).
    pub remaining: Option<u64>,
    /// From the moment of the answer until the window resets, at most 365 days, not rounded. 0 if that is over.
    pub reset: Option<Duration>,
    /// How exact [`reset`](Self::reset) is: two resets that differ by no more may be one. 1 s for whole seconds, HTTP
    /// dates and what was measured against the `Date` header, 1 ms for finer values, zero without a reset.
    pub reset_resolution: Duration,
    /// Length of the window, where the server names it beside the limit (`w=10`, `window=3600`).
    pub window: Option<Duration>,
    /// From the moment of the answer until a request may be repeated, at most 365 days, not rounded. May be 0.
    pub retry_after: Option<Duration>,
    /// The family that was used; if none was usable, the first one that was there.
    pub dialect: Option<HeaderDialect>,
    /// What was wrong with the headers that were read.
    pub errors: HeaderErrors,
    /// The answer's `Date` header, if readable.
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

    /// The name for JSON and logs, in lower case with hyphens.
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

/// Reads everything that the headers of one answer say of the quota.
///
/// `now` is the local time at which the answer arrived. It is used only for absolute times on an answer without a
/// readable `Date`; if it is `None` too, such times are unknown, while deltas still work.
///
/// An answer from a cache (`Age` above 0) describes another moment: its quota numbers are dropped. `Retry-After` is
/// kept, because a wait that is too long does no harm.
#[must_use]
pub fn parse(status: StatusCode, headers: &HeaderMap, now: Option<SystemTime>) -> Quota {
    let present = Present::look(headers);
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

/// The first usable family, else the first one that is there. Errors of families that were tried in vain are kept.
fn quota_dialect(
    status: StatusCode,
    headers: &HeaderMap,
    present: Present,
    clock: &Clock,
) -> (Option<HeaderDialect>, Reading) {
    // Clerk's ordinary answer.
    if !present.ratelimit && !present.x_ratelimit && !present.x_rate_limit {
        return (None, Reading::default());
    }
    let throttled = status == StatusCode::TOO_MANY_REQUESTS;
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
    // An unusable `RateLimit` beside good policies: their limit is better than nothing.
    let mut reading = structured.policies_only().unwrap_or_default();
    let family = if reading.usable { Some(HeaderDialect::Ietf) } else { seen };
    errors.extend(reading.errors);
    reading.errors = errors;
    (family, reading)
}

/// Which headers there are. One look at all names costs less than asking for each that may be there.
#[derive(Debug, Clone, Copy, Default)]
struct Present {
    age: bool,
    retry_after: bool,
    /// Names that begin so.
    ratelimit: bool,
    x_ratelimit: bool,
    x_rate_limit: bool,
}

impl Present {
    fn look(headers: &HeaderMap) -> Self {
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

/// Whether the answer was taken from a cache some time after it was made (RFC 9111, section 5.1). An unreadable age
/// says nothing.
fn is_stale(headers: &HeaderMap) -> bool {
    let ages = column(headers, &[&AGE], Count::from_text);
    ages.iter().flatten().any(|age| !matches!(age, Count::Negative | Count::Exact(0)))
}

/// `Retry-After`, on whatever status it comes. Of several the longest: too early is worse than too late.
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
