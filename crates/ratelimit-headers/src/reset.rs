//! Resets and retry delays. One grammar for both, because servers send every format in both.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use sfv::BareItem;

use super::list::unquote;
use super::number::Number;

/// The longest plausible wait. No rate limit has a longer window.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;

/// Smaller numbers are seconds from now. 10^9 s is 31 years as a delta, or the year 2001 as an epoch.
const EPOCH_SECONDS_FROM: u64 = 1_000_000_000;
/// Smaller numbers are seconds since the epoch, larger ones milliseconds.
const EPOCH_MILLIS_FROM: u64 = 1_000_000_000_000;
/// The first second of the year 10000, too far away by any clock.
const END_OF_TIME: i128 = 253_402_300_800 * NANOS_PER_SECOND;

/// The reference for absolute times.
///
/// Prefers the `Date` of the same response: it is the clock of the machine that wrote the other headers, so that a
/// wrong local clock has no effect. Otherwise uses the local clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// Reference time in nanoseconds since the epoch.
    reference: Option<i128>,
    /// Resolution of the reference.
    resolution: Duration,
}

impl Clock {
    pub(super) fn new(date: Option<SystemTime>, now: Option<SystemTime>) -> Self {
        Self {
            reference: date.or(now).map(nanos_since_epoch),
            resolution: if date.is_some() { SECOND } else { Duration::ZERO },
        }
    }

    /// Returns the time from the response to an absolute time, 0 if that is in the past.
    fn until(&self, at: i128, resolution: Duration) -> Wait {
        if at >= END_OF_TIME {
            return Wait::TooLong;
        }
        match self.reference {
            None => Wait::NoClock,
            Some(reference) => Wait::after(at - reference, resolution.max(self.resolution)),
        }
    }
}

/// A readable reset or delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Ends this long after the response.
    After(Reset),
    /// Ends more than 365 days after the response.
    TooLong,
    /// Ends at an absolute time, but there is no reference clock.
    NoClock,
}

/// Time until a reset, with its resolution. Ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reset {
    pub(super) after: Duration,
    pub(super) resolution: Duration,
}

impl Wait {
    /// Parses delta seconds, epoch seconds or milliseconds, a duration (`1m30s`), RFC 3339, or one of the forms of
    /// an HTTP date (RFC 9110, section 5.6.7), with optional quotes and white space around.
    ///
    /// The whole text must match. Text that starts with a digit never reaches the HTTP date parser.
    pub(super) fn from_text(text: &[u8], clock: &Clock) -> Option<Self> {
        let text = unquote(text);
        if !text.first()?.is_ascii_digit() {
            return http_date(text).map(|at| clock.until(nanos_since_epoch(at), SECOND));
        }
        if let Some(number) = Number::from_text(text) {
            return Some(Self::from_number(number.whole(), number.billionths(), number.has_fraction(), clock));
        }
        duration(text).or_else(|| rfc3339(text, clock))
    }

    /// Converts a structured-field value.
    pub(super) fn from_bare_item(item: &BareItem, clock: &Clock) -> Option<Self> {
        match item {
            BareItem::Integer(integer) => {
                let whole = u64::try_from(i64::from(*integer)).ok()?;
                Some(Self::from_number(Some(whole), 0, false, clock))
            }
            BareItem::Decimal(decimal) => {
                let thousandths = u64::try_from(i64::from(decimal.as_integer_scaled_1000())).ok()?;
                let billionths = thousandths % 1000 * 1_000_000;
                Some(Self::from_number(Some(thousandths / 1000), billionths, true, clock))
            }
            BareItem::Date(date) => {
                let seconds = i64::from(date.unix_seconds());
                Some(clock.until(i128::from(seconds) * NANOS_PER_SECOND, SECOND))
            }
            BareItem::String(text) => Self::from_text(text.as_str().as_bytes(), clock),
            BareItem::Token(text) => Self::from_text(text.as_str().as_bytes(), clock),
            _ => None,
        }
    }

    /// `whole` is `None` if it exceeds `u64`.
    pub(super) fn from_number(whole: Option<u64>, billionths: u64, has_fraction: bool, clock: &Clock) -> Self {
        let Some(whole) = whole else {
            return Self::TooLong;
        };
        let resolution = if has_fraction { MILLISECOND } else { SECOND };
        let seconds = i128::from(whole) * NANOS_PER_SECOND + i128::from(billionths);
        if whole < EPOCH_SECONDS_FROM {
            Self::after(seconds, resolution)
        } else if whole < EPOCH_MILLIS_FROM {
            clock.until(seconds, resolution)
        } else {
            let fraction = i128::from(billionths.div_ceil(1000));
            clock.until(i128::from(whole) * NANOS_PER_MILLI + fraction, MILLISECOND)
        }
    }

    fn after(nanos: i128, resolution: Duration) -> Self {
        match u64::try_from(nanos.max(0)).map(Duration::from_nanos) {
            Ok(after) if after <= LONGEST => Self::After(Reset { after, resolution }),
            _ => Self::TooLong,
        }
    }

    pub(super) fn reset(self) -> Option<Reset> {
        match self {
            Self::After(reset) => Some(reset),
            Self::TooLong | Self::NoClock => None,
        }
    }
}

/// Parses a duration in Go's format (`1h2m3.5s`, `500ms`), plus days: each unit at most once, larger units first.
fn duration(text: &[u8]) -> Option<Wait> {
    // `ms` before `m`, so that it is not taken for minutes. µ is U+00B5 or U+03BC.
    const UNITS: [(&[u8], u64); 9] = [
        (b"d", 86_400_000_000_000),
        (b"h", 3_600_000_000_000),
        (b"ms", 1_000_000),
        (b"m", 60_000_000_000),
        (b"s", 1_000_000_000),
        (b"us", 1_000),
        (b"\xc2\xb5s", 1_000),
        (b"\xce\xbcs", 1_000),
        (b"ns", 1),
    ];
    let mut rest = text;
    let mut total: i128 = 0;
    let mut previous = u64::MAX;
    let mut resolution = SECOND;
    let mut too_long = false;
    while !rest.is_empty() {
        let (number, tail) = Number::from_prefix(rest)?;
        let (name, nanos) = UNITS.into_iter().find(|(name, _)| tail.starts_with(name))?;
        if nanos >= previous {
            return None;
        }
        if number.has_fraction() || i128::from(nanos) < NANOS_PER_SECOND {
            resolution = MILLISECOND;
        }
        match number.whole() {
            Some(whole) => {
                let fraction = i128::from(number.billionths()) * i128::from(nanos);
                total += i128::from(whole) * i128::from(nanos) + div_ceil(fraction, NANOS_PER_SECOND);
            }
            None => too_long = true,
        }
        previous = nanos;
        rest = &tail[name.len()..];
    }
    Some(if too_long { Wait::TooLong } else { Wait::after(total, resolution) })
}

/// Rounds up. Both arguments must be positive.
fn div_ceil(dividend: i128, divisor: i128) -> i128 {
    (dividend + divisor - 1) / divisor
}

fn rfc3339(text: &[u8], clock: &Clock) -> Option<Wait> {
    // The parser would also accept a Unicode minus sign.
    let text = text.is_ascii().then(|| std::str::from_utf8(text).ok())??;
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    let resolution = if text.contains('.') { MILLISECOND } else { SECOND };
    let nanos = i128::from(at.timestamp()) * NANOS_PER_SECOND + i128::from(at.timestamp_subsec_nanos());
    Some(clock.until(nanos, resolution))
}

/// Parses any of the three forms that RFC 9110 requires recipients to accept.
pub(super) fn http_date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

fn nanos_since_epoch(at: SystemTime) -> i128 {
    // A `Duration` has at most 2^64 seconds, which is 94 bits as nanoseconds.
    let signed = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => signed(since),
        Err(before) => -signed(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-25T12:00:00Z
    const NOW: u64 = 1_795_608_000;

    fn clock() -> Clock {
        Clock::new(None, Some(UNIX_EPOCH + Duration::from_secs(NOW)))
    }

    fn wait(text: &str) -> Option<Wait> {
        Wait::from_text(text.as_bytes(), &clock())
    }

    fn seconds(text: &str) -> f64 {
        match wait(text) {
            Some(Wait::After(reset)) => reset.after.as_secs_f64(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn number_size_selects_delta_or_epoch() {
        assert_eq!(seconds("0"), 0.0);
        assert_eq!(seconds("0000000000000000000000007"), 7.0);
        assert_eq!(seconds("31536000"), 31_536_000.0);
        assert_eq!(wait("31536000.1"), Some(Wait::TooLong));
        assert_eq!(wait("999999999.9"), Some(Wait::TooLong));
        assert_eq!(seconds("1000000000"), 0.0);
        assert_eq!(seconds("1795608010"), 10.0);
        assert_eq!(seconds("1795608010.25"), 10.25);
        assert_eq!(wait("999999999999"), Some(Wait::TooLong));
        assert_eq!(seconds("1000000000000"), 0.0);
        assert_eq!(seconds("1795608010000"), 10.0);
        assert_eq!(seconds("1795608010000.5"), 10.0005);
        assert_eq!(wait(&"9".repeat(5000)), Some(Wait::TooLong));
    }

    #[test]
    fn durations_have_units_in_descending_order() {
        for (text, expected) in [
            ("1h2m3.5s", 3723.5),
            ("500ms", 0.5),
            ("1m30s", 90.0),
            ("1.5h", 5400.0),
            ("1d", 86_400.0),
            ("24h0m0s", 86_400.0),
            ("8640h", 31_104_000.0),
            ("100us", 0.0001),
            ("100\u{b5}s", 0.0001),
            ("100\u{3bc}s", 0.0001),
            ("5ns", 0.000_000_005),
            ("1s500ms", 1.5),
            ("007s", 7.0),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for text in [
            "1m1m",
            "30s1m",
            "1M",
            "1S",
            "5 s",
            "1m 30s",
            "5sec",
            "5 seconds",
            "1w",
            "1h30",
            "s",
            ".5s",
            "5.s",
            "-5s",
            "+5s",
            "PT30S",
            "1hm",
        ] {
            assert_eq!(wait(text), None, "{text}");
        }
        assert_eq!(wait("99999999999999999999999h"), Some(Wait::TooLong));
        assert_eq!(wait("18446744073709551615d18446744073709551615h"), Some(Wait::TooLong));
        assert_eq!(wait("366d"), Some(Wait::TooLong));
    }

    #[test]
    fn all_three_http_date_forms_are_accepted() {
        for text in [
            "Wed, 25 Nov 2026 12:00:30 GMT",
            "Wednesday, 25-Nov-26 12:00:30 GMT",
            "Wed Nov 25 12:00:30 2026",
            "\"Wed, 25 Nov 2026 12:00:30 GMT\"",
        ] {
            assert_eq!(seconds(text), 30.0, "{text}");
        }
        for text in [
            "Wed, 25 Nov 2026 12:00:30",
            "Wed, 25 Nov 2026 12:00:30 CET",
            "Wed, 25 Nov 2026 12:00:30 GMT x",
            "Wed, 31 Feb 2026 12:00:30 GMT",
            "wednesday",
        ] {
            assert_eq!(wait(text), None, "{text}");
        }
    }

    #[test]
    fn rfc3339_is_accepted_with_offsets_and_in_lower_case() {
        for (text, expected) in [
            ("2026-11-25T12:00:20Z", 20.0),
            ("2026-11-25t12:00:20z", 20.0),
            ("2026-11-25 12:00:20Z", 20.0),
            ("2026-11-25T12:00:20.25+00:00", 20.25),
            ("2026-11-25T06:30:45-05:30", 45.0),
            ("2026-11-26T02:00:45+14:00", 45.0),
            ("2026-11-25T12:00:60Z", 60.0),
            ("0000-01-01T00:00:00Z", 0.0),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for text in [
            "2026-11-25T12:00:20",
            "2026-11-25",
            "2026-11-25T12:00Z",
            "2026-11-25T12:00:20 Z",
            "2026-11-25T12:00:20\u{2212}01:00",
            "2026-13-25T12:00:20Z",
            "20261125T120020Z",
        ] {
            assert_eq!(wait(text), None, "{text}");
        }
        assert_eq!(wait("9999-12-31T23:59:59-23:59"), Some(Wait::TooLong));
    }

    #[test]
    fn invalid_times_are_rejected() {
        for text in [
            "", "-1", "-0", "+5", ".5", "5.", "1e3", "1e9", "NaN", "inf", "0x10", "50%", "tomorrow", "\u{0667}", "7,",
            "1.2.3", "7;w=1",
        ] {
            assert_eq!(wait(text), None, "{text}");
        }
    }

    #[test]
    fn absolute_time_needs_a_clock_but_delta_does_not() {
        let none = Clock::new(None, None);
        let read = |text: &str| Wait::from_text(text.as_bytes(), &none);
        assert_eq!(read("1795608010"), Some(Wait::NoClock));
        assert_eq!(read("Wed, 25 Nov 2026 12:00:30 GMT"), Some(Wait::NoClock));
        assert_eq!(read(&"9".repeat(19)), Some(Wait::TooLong));
        assert_eq!(read(&"9".repeat(20)), Some(Wait::TooLong));
        assert!(matches!(read("7"), Some(Wait::After(_))));
        assert!(matches!(read("7s"), Some(Wait::After(_))));
    }

    #[test]
    fn resolution_depends_on_text_and_date() {
        let dated = Clock::new(Some(UNIX_EPOCH + Duration::from_secs(NOW)), None);
        let resolution = |text: &str, clock: &Clock| {
            let wait = Wait::from_text(text.as_bytes(), clock).unwrap();
            wait.reset().unwrap().resolution
        };
        for text in ["7", "1795608010", "1m30s", "2026-11-25T12:00:20Z", "Wed, 25 Nov 2026 12:00:30 GMT"] {
            assert_eq!(resolution(text, &clock()), SECOND, "{text}");
        }
        for text in ["7.5", "1795608010.5", "1795608010000", "500ms", "1m30.5s", "2026-11-25T12:00:20.5Z"] {
            assert_eq!(resolution(text, &clock()), MILLISECOND, "{text}");
        }
        assert_eq!(resolution("1795608010.5", &dated), SECOND);
        assert_eq!(resolution("1795608010000", &dated), SECOND);
        assert_eq!(resolution("7.5", &dated), MILLISECOND);
    }
}
