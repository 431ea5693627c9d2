//! Durations as people write them: `30s`, `1h 30m`, `500ms`. The same in the file, in flags and in variables.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How a message shows the syntax.
const SYNTAX: &str = "write a number and a unit, as in `15s` or `1m30s`";

/// Reads a duration with a unit, within `range`. The error says what to write instead and does not repeat the text.
pub(crate) fn parse(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    if let Some(seconds) = bare_number(text) {
        return Err(format!("a duration without a unit; write `{seconds}s` for seconds"));
    }
    let not_a_duration = || format!("not a duration; {SYNTAX}");
    // Bounded before it is parsed: humantime adds without an overflow check near the largest numbers.
    if text.len() > 40 || text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 12) {
        return Err(not_a_duration());
    }
    within(humantime::parse_duration(text).map_err(|_| not_a_duration())?, range)
}

/// Like [`parse`], but a number without a unit is seconds.
pub(crate) fn parse_or_seconds(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let Some(digits) = bare_number(text) else { return parse(text, range) };
    // A number beyond u64 is beyond every range.
    within(digits.parse().map_or(Duration::MAX, Duration::from_secs), range)
}

fn bare_number(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

fn within(duration: Duration, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (low, high) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
    let fault = if duration < *range.start() { "too short" } else { "too long" };
    Err(format!("{fault}; write a duration from {low} to {high}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

    #[test]
    fn duration_units_and_range() {
        for (text, millis) in [("1m30s", 90_000), ("1500ms", 1500), ("1h 30m", 5_400_000), ("500ms", 500)] {
            assert_eq!(parse(text, &ANY), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(parse_or_seconds(text, &ANY), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert!(parse("20", &ANY).unwrap_err().contains("write `20s`"));
        for bad in ["", "s", "-1s", "1 fortnight", "1.5.s", "1e3s", "\u{0}"] {
            assert!(parse(bad, &ANY).unwrap_err().contains("`15s`"), "{bad:?}");
            assert!(parse_or_seconds(bad, &ANY).unwrap_err().contains("`15s`"), "{bad:?}");
        }
        let range = Duration::from_secs(1)..=Duration::from_secs(3600);
        assert_eq!(parse("2h", &range), Err("too long; write a duration from 1s to 1h".to_owned()));
        assert_eq!(parse("0s", &range), Err("too short; write a duration from 1s to 1h".to_owned()));
    }

    #[test]
    fn duration_without_unit_is_seconds_in_flags() {
        let range = Duration::from_secs(1)..=Duration::from_secs(3600);
        assert_eq!(parse_or_seconds("30", &range), Ok(Duration::from_secs(30)));
        assert!(parse_or_seconds("0", &range).unwrap_err().contains("too short"));
        for long in ["3601", "99999999999999999999999999999999999999999999"] {
            assert!(parse_or_seconds(long, &range).unwrap_err().contains("from 1s to 1h"), "{long}");
        }
    }

    #[test]
    fn duration_overflow_is_refused() {
        for bad in ["18446744073709551615s 999999999ns 1ns", "18446744073709551615years", "9999999999999s"] {
            assert!(parse(bad, &ANY).is_err(), "{bad}");
        }
        assert!(parse("999999999999y 999999999999y", &ANY).is_err());
    }
}
