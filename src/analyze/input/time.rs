//! The notations of time in access logs.

use std::time::Duration;

use clerk_quota::Moment;

/// Days from 0000-03-01 to 1970-01-01, in the proleptic Gregorian calendar.
const EPOCH_DAYS: i64 = 719_468;

/// Earlier and later times are a mistake of the log's format: 2001-09-09 to 2096-10-02.
const PLAUSIBLE: std::ops::Range<u64> = 1_000_000_000..4_000_000_000;

/// Reads a time: seconds, milliseconds, microseconds or nanoseconds since the epoch, told apart by their size; RFC 3339;
/// or nginx's `$time_local`, `29/Nov/2026:23:04:13 +0000`. `None` for anything else and for times beyond this century.
pub(super) fn parse(text: &[u8]) -> Option<Moment> {
    let text = text.trim_ascii();
    let since = match text {
        [_, _, b'/', ..] => local(text)?,
        [_, _, _, _, b'-', ..] => rfc3339(text)?,
        _ => epoch(text)?,
    };
    PLAUSIBLE.contains(&since.as_secs()).then(|| Moment::from_unix(since))
}

/// Reads a span of time that is not negative, as a decimal number of units of `unit_nanos` nanoseconds each. Of several
/// (`0.004, 0.010`: nginx tried several servers) the sum.
pub(super) fn duration(text: &[u8], unit_nanos: u64) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for part in text.split(|byte| matches!(byte, b',' | b' ' | b':')).filter(|part| !matches!(*part, b"" | b"-")) {
        let (whole, fraction) = decimal(part)?;
        let nanos =
            u128::from(whole) * u128::from(unit_nanos) + u128::from(fraction) * u128::from(unit_nanos) / 1_000_000_000;
        sum = sum.checked_add(Duration::from_nanos(u64::try_from(nanos).ok()?))?;
    }
    Some(sum)
}

/// The whole part, and the fraction in billionths.
fn decimal(text: &[u8]) -> Option<(u64, u64)> {
    if text.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        // Some encoders write large or small numbers like this.
        let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        let duration = Duration::try_from_secs_f64(value).ok()?;
        return Some((duration.as_secs(), u64::from(duration.subsec_nanos())));
    }
    let (whole, fraction) = match memchr::memchr(b'.', text) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, &b""[..]),
    };
    if whole.is_empty() || whole.len() > 19 {
        return None;
    }
    Some((digits(whole)?, billionths(fraction)?))
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

fn billionths(fraction: &[u8]) -> Option<u64> {
    let kept = fraction.get(..9).unwrap_or(fraction);
    let rest = fraction.get(9..).unwrap_or_default();
    if !rest.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let scale = 10_u64.checked_pow(u32::try_from(9 - kept.len()).ok()?)?;
    Some(digits(kept)? * scale)
}

fn epoch(text: &[u8]) -> Option<Duration> {
    let (whole, fraction) = decimal(text)?;
    let unit: u64 = match whole {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1000,
        _ => 1,
    };
    let nanos = u128::from(whole) * u128::from(unit) + u128::from(fraction) * u128::from(unit) / 1_000_000_000;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// `2026-11-29T23:04:13.123+01:00`; the offset may lack its colon.
fn rfc3339(text: &[u8]) -> Option<Duration> {
    let (date, rest) = text.split_at_checked(19)?;
    let marks = [date[4], date[7], date[10], date[13], date[16]];
    if !matches!(marks, [b'-', b'-', b'T' | b't' | b' ', b':', b':']) {
        return None;
    }
    let day = day(digits(&date[..4])?, digits(&date[5..7])?, digits(&date[8..10])?)?;
    let seconds = time_of_day(&date[11..])?;
    let (fraction, offset) = match rest {
        [b'.' | b',', rest @ ..] => {
            let length = rest.iter().position(|byte| !byte.is_ascii_digit())?;
            if length == 0 {
                return None;
            }
            (billionths(&rest[..length])?, &rest[length..])
        }
        _ => (0, rest),
    };
    since_epoch(day, seconds, offset_seconds(offset)?, fraction)
}

/// `29/Nov/2026:23:04:13 +0000`
fn local(text: &[u8]) -> Option<Duration> {
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let (date, offset) = text.split_at_checked(20)?;
    if [date[2], date[6], date[11]] != *b"//:" {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == &date[3..6])?;
    let day = day(digits(&date[7..11])?, month as u64 + 1, digits(&date[..2])?)?;
    let seconds = time_of_day(&date[12..])?;
    since_epoch(day, seconds, offset_seconds(offset.strip_prefix(b" ")?)?, 0)
}

/// `23:04:13`, or 60 for a leap second.
fn time_of_day(text: &[u8]) -> Option<i64> {
    let (hour, minute, second) = (digits(text.get(..2)?)?, digits(text.get(3..5)?)?, digits(text.get(6..8)?)?);
    if text[2] != b':' || text[5] != b':' || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    i64::try_from(hour * 3600 + minute * 60 + second).ok()
}

fn offset_seconds(text: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match text {
        b"Z" | b"z" => return Some(0),
        [sign, hours @ .., b':', a, b] if hours.len() == 2 => (sign, hours, [*a, *b]),
        [sign, hours @ .., a, b] if hours.len() == 2 => (sign, hours, [*a, *b]),
        _ => return None,
    };
    let (hours, minutes) = (digits(hours)?, digits(&minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i64::try_from(hours * 3600 + minutes * 60).ok()?;
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

/// Days since the epoch.
fn day(year: u64, month: u64, day: u64) -> Option<i64> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > length {
        return None;
    }
    // Years begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(i64::try_from(days).ok()? - EPOCH_DAYS)
}

fn since_epoch(day: i64, seconds: i64, offset: i64, nanos: u64) -> Option<Duration> {
    let seconds = u64::try_from(day * 86_400 + seconds - offset).ok()?;
    Some(Duration::new(seconds, u32::try_from(nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Duration = Duration::new(1_795_993_453, 0);

    fn read(text: &str) -> Option<Duration> {
        parse(text.as_bytes()).map(Moment::since_epoch)
    }

    #[test]
    fn every_notation_gives_the_same_moment() {
        for text in [
            "1795993453",
            "1795993453.000",
            "1795993453000",
            "1795993453000000",
            "1795993453000000000",
            "1.795993453e9",
            "2026-11-29T23:04:13Z",
            "2026-11-29t23:04:13z",
            "2026-11-29 23:04:13+00:00",
            "2026-11-30T01:34:13+0230",
            "2026-11-29T22:04:13-01:00",
            "29/Nov/2026:23:04:13 +0000",
            "30/Nov/2026:00:04:13 +0100",
        ] {
            assert_eq!(read(text), Some(EXPECTED), "{text}");
        }
        let half = EXPECTED + Duration::from_millis(125);
        for text in ["1795993453.125", "1795993453125", "2026-11-29T23:04:13.125Z", "2026-11-29T23:04:13.125000001Z"] {
            let found = read(text).unwrap();
            assert_eq!(found.as_millis(), half.as_millis(), "{text}");
        }
        assert_eq!(read("2024-02-29T00:00:00Z"), Some(Duration::from_secs(1_709_164_800)));
    }

    #[test]
    fn impossible_times_are_refused() {
        for text in [
            "",
            "-",
            "0",
            "-5",
            "12",
            "soon",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-29T24:00:00Z",
            "2026-11-29T23:04:13",
            "2026-11-29T23:04:13.Z",
            "2026-11-29",
            "29/Now/2026:23:04:13 +0000",
            "29/Nov/2026:23:04:13",
            "9999-01-01T00:00:00Z",
            "99999999999999999999",
            "1e400",
            "1970-01-01T00:00:00Z",
            "2026-11-29T23:04:13+99:00",
            "2026-11-29T23:0:413Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn durations_have_units_and_add_up() {
        let seconds = |text: &str| duration(text.as_bytes(), 1_000_000_000);
        assert_eq!(seconds("0.012"), Some(Duration::from_millis(12)));
        assert_eq!(seconds("0.004, 0.010"), Some(Duration::from_millis(14)));
        assert_eq!(seconds("-, 0.010 : 0.001"), Some(Duration::from_millis(11)));
        assert_eq!(duration(b"12.5", 1_000_000), Some(Duration::from_micros(12_500)));
        assert_eq!(seconds("9.29675e-4"), Some(Duration::from_nanos(929_675)));
        for bad in ["-1", "x", "1.x", "99999999999999999999", "1.2.3"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
