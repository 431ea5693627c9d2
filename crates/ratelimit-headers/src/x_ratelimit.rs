//! Families with one header per number: `RateLimit-*` of the drafts up to 06, `X-RateLimit-*` and `X-Rate-Limit-*`.

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;

use super::Present;
use super::header_quota::Fields;
use super::list::{Column, column, split_parameters, unquote};
use super::number::{Count, Limit};
use super::reset::{Clock, LONGEST, Wait};

static LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

static X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
static X_RESET_AFTER: HeaderName = HeaderName::from_static("x-ratelimit-reset-after");

static X_LIMIT_HYPHEN: HeaderName = HeaderName::from_static("x-rate-limit-limit");
static X_REMAINING_HYPHEN: HeaderName = HeaderName::from_static("x-rate-limit-remaining");
static X_RESET_HYPHEN: HeaderName = HeaderName::from_static("x-rate-limit-reset");
static X_RESET_AFTER_HYPHEN: HeaderName = HeaderName::from_static("x-rate-limit-reset-after");

/// The header names of one family, in all spellings.
struct Names<'a> {
    limit: &'a [&'a HeaderName],
    remaining: &'a [&'a HeaderName],
    reset: &'a [&'a HeaderName],
    reset_after: &'a [&'a HeaderName],
}

/// Reads `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset`.
pub(super) fn ietf_legacy(headers: &HeaderMap, throttled: bool, clock: &Clock) -> Fields {
    let names = Names { limit: &[&LIMIT], remaining: &[&REMAINING], reset: &[&RESET], reset_after: &[] };
    fields(headers, &names, throttled, clock)
}

/// Reads `X-RateLimit-*` and `X-Rate-Limit-*`, one family because gateways and their backends mix the spellings.
pub(super) fn x_ratelimit(headers: &HeaderMap, present: Present, throttled: bool, clock: &Clock) -> Fields {
    // Each name costs a lookup, and usually only one spelling is present.
    let spellings = usize::from(!present.x_ratelimit)..1 + usize::from(present.x_rate_limit);
    let names = Names {
        limit: &[&X_LIMIT, &X_LIMIT_HYPHEN][spellings.clone()],
        remaining: &[&X_REMAINING, &X_REMAINING_HYPHEN][spellings.clone()],
        reset: &[&X_RESET, &X_RESET_HYPHEN][spellings.clone()],
        reset_after: &[&X_RESET_AFTER, &X_RESET_AFTER_HYPHEN][spellings],
    };
    fields(headers, &names, throttled, clock)
}

fn fields(headers: &HeaderMap, names: &Names<'_>, throttled: bool, clock: &Clock) -> Fields {
    let remaining = column(headers, names.remaining, |element| Count::from_text(split_parameters(element).0));
    let mut windows = Column::new();
    let mut described = Column::new();
    let limits = column(headers, names.limit, |element| {
        let (value, parameters) = split_parameters(element);
        described.push(!parameters.is_empty());
        let limit = Limit::new(Count::from_text(value)?, throttled);
        if let Some(window) = window(parameters) {
            windows.push((limit, window));
        }
        Some(limit)
    });
    Fields {
        limits: without_policies(limits, &described, remaining.len()),
        remaining,
        resets: resets(headers, names, clock),
        windows,
    }
}

/// Removes limits that only describe a window.
///
/// The drafts up to 06 allow `100, 100;w=60, 5000;w=3600`: the first number is the limit, later items with parameters
/// are policies. If *every* limit has parameters and there are as many remaining counts, each limit is a bucket.
fn without_policies(
    limits: Column<Option<Limit>>,
    described: &Column<bool>,
    remaining: usize,
) -> Column<Option<Limit>> {
    if limits.len() == remaining && described.iter().all(|described| described) {
        return limits;
    }
    let policy = |place: usize, described: bool| place > 0 && described;
    limits
        .iter()
        .zip(described.iter().chain(std::iter::repeat(false)))
        .enumerate()
        .filter(|(place, (_, described))| !policy(*place, *described))
        .map(|(_, (limit, _))| limit)
        .collect()
}

/// Prefers `Reset-After`, which is always a delta, to `Reset` if it has a usable value.
fn resets(headers: &HeaderMap, names: &Names<'_>, clock: &Clock) -> Column<Option<Wait>> {
    let read = |element: &[u8]| Wait::from_text(split_parameters(element).0, clock);
    let after = column(headers, names.reset_after, read);
    if after.iter().flatten().any(|wait| wait.reset().is_some()) {
        return after;
    }
    let resets = column(headers, names.reset, read);
    // Keep an unusable `Reset-After`, so that its error is reported.
    resets.iter().chain(after.iter()).collect()
}

/// Returns the window length from parameters such as `;w=60` or `;window=60`. It is never the reset.
fn window(parameters: &[u8]) -> Option<Duration> {
    parameters.split(|byte| *byte == b';').find_map(|parameter| {
        let equals = parameter.iter().position(|byte| *byte == b'=')?;
        let key = unquote(&parameter[..equals]);
        if !key.eq_ignore_ascii_case(b"w") && !key.eq_ignore_ascii_case(b"window") {
            return None;
        }
        match Count::from_text(&parameter[equals + 1..])? {
            Count::Exact(seconds) => window_of_seconds(seconds),
            Count::Negative | Count::Unlimited => None,
        }
    })
}

/// Returns a valid window length, from 1 s to 365 days.
pub(super) fn window_of_seconds(seconds: u64) -> Option<Duration> {
    let window = Duration::from_secs(seconds);
    (!window.is_zero() && window <= LONGEST).then_some(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_found_among_the_parameters() {
        let seconds = |text: &str| window(text.as_bytes()).map(|window| window.as_secs());
        assert_eq!(seconds(";w=60"), Some(60));
        assert_eq!(seconds("; x=1 ; Window = \"3600\""), Some(3600));
        assert_eq!(seconds(";burst=1000;w=60"), Some(60));
        for text in ["", ";w", ";w=", ";w=0", ";w=-1", ";w=x", ";ww=60", ";w=31536001"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
