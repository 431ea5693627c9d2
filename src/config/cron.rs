//! Validation of cron expressions, with the same parser and settings as the scheduler.

use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};

/// Start of the search for due times: fixed, so that validity does not depend on the current time. A leap year, so that
/// 29 February is found.
const SEARCH_FROM: i64 = 1_704_067_200; // 2024-01-01T00:00:00Z, a Monday

/// Maximum number of due times examined: more than half an hour of an expression that is due every second.
const SAMPLES: usize = 2000;

/// How long after the first due time the busiest time is searched for. All matching days have the same times, so that
/// two consecutive days are enough; a week contains them wherever they are.
const SEARCH_SECONDS: i64 = 8 * 24 * 3600;

/// Nicknames that cron daemons accept, case-insensitive.
const NICKNAMES: [(&str, &str); 8] = [
    ("@yearly", "0 0 0 1 1 *"),
    ("@annually", "0 0 0 1 1 *"),
    ("@monthly", "0 0 0 1 * *"),
    ("@weekly", "0 0 0 * * 0"),
    ("@daily", "0 0 0 * * *"),
    ("@midnight", "0 0 0 * * *"),
    ("@hourly", "0 0 * * * *"),
    ("@minutely", "0 * * * * *"),
];

/// Normalizes an expression of six fields, seconds first, or a nickname such as `@hourly`, to six fields, which every
/// library accepts.
pub(super) fn normalize(expression: &str) -> Result<String, String> {
    let text = expression.trim();
    let nickname = NICKNAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    if nickname.is_none() && text.starts_with('@') {
        let names = NICKNAMES.map(|(name, _)| format!("`{name}`")).join(", ");
        return Err(format!("not a known nickname; write one of {names}, six fields, or `interval: 5m`"));
    }
    let text = nickname.map_or(text, |(_, fields)| fields);
    parse(text).map(|_| text.to_owned())
}

/// Parses an expression of six fields, seconds first.
///
/// The message says what to write and does not repeat the expression, which may be a misplaced key.
pub(super) fn parse(expression: &str) -> Result<Cron, String> {
    const EXAMPLE: &str = "write second, minute, hour, day, month, weekday, as in `*/15 * * * * *`";
    let fields = expression.split_whitespace().count();
    if fields == 5 {
        return Err("a cron expression of five fields; put the seconds in front, as in `0 */5 * * * *`".to_owned());
    }
    if fields != 6 || !expression.is_ascii() {
        return Err(format!("not a cron expression of six fields; {EXAMPLE}"));
    }
    let parser = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build();
    let cron = parser.parse(expression).map_err(|_| format!("not a cron expression; {EXAMPLE}"))?;
    if due_times(&cron).next().is_none() {
        return Err(format!("a cron expression that is never due; {EXAMPLE}"));
    }
    Ok(cron)
}

/// The maximum number of times `cron` is due within `horizon`.
pub(super) fn busiest(cron: &Cron, horizon: Duration) -> f64 {
    let horizon = i64::try_from(horizon.as_secs()).unwrap_or(i64::MAX);
    let first_due = due_times(cron).next().unwrap_or_default();
    let times: Vec<i64> = due_times(cron).take_while(|due| due - first_due < SEARCH_SECONDS).take(SAMPLES).collect();
    let (mut first, mut most) = (0, 0);
    for (last, time) in times.iter().enumerate() {
        while time - times[first] >= horizon {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    let span = times.last().zip(times.first()).map_or(0, |(last, first)| last - first);
    if most == times.len() && most == SAMPLES && span > 0 {
        // All samples lie within the horizon: extrapolate their rate.
        return (SAMPLES - 1) as f64 * horizon as f64 / span as f64;
    }
    most as f64
}

/// The longest time between two due times.
pub(super) fn longest_gap(cron: &Cron) -> Duration {
    let times: Vec<i64> = due_times(cron).take(SAMPLES).collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    Duration::from_secs(u64::try_from(longest).unwrap_or_default())
}

/// Due times in seconds since 1970.
///
/// Does not use the iterator of croner 3: it skips a time that is one second after the previous one.
fn due_times(cron: &Cron) -> impl Iterator<Item = i64> {
    let start = DateTime::<Utc>::from_timestamp(SEARCH_FROM, 0).unwrap_or_default();
    let first = cron.find_next_occurrence(&start, true).ok();
    std::iter::successors(first, |due| cron.find_next_occurrence(due, false).ok()).map(|due| due.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_fields_and_nicknames_are_understood() {
        for text in ["*/15 * * * * *", "0 0 * * * *", "0 30 4 * * MON", "0 0 0 L * *", "0 0 0 29 2 *"] {
            assert_eq!(normalize(text).as_deref(), Ok(text));
            assert_eq!(normalize(&format!(" {text}\n")).as_deref(), Ok(text));
        }
        for (name, fields) in NICKNAMES {
            assert_eq!(normalize(name).as_deref(), Ok(fields));
            assert_eq!(normalize(&format!(" {} ", name.to_uppercase())).as_deref(), Ok(fields));
        }
    }

    #[test]
    fn the_longest_gap_is_found() {
        for (text, seconds) in [("*/15 * * * * *", 15), ("0 0 * * * *", 3600), ("0,10 * * * * *", 50)] {
            assert_eq!(longest_gap(&parse(text).unwrap()), Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn invalid_expression_is_rejected_with_a_remedy() {
        let cases = [
            ("*/5 * * * *", "put the seconds in front"),
            ("", "six fields"),
            ("* * * * * * 2027", "six fields"),
            ("61 * * * * *", "not a cron expression"),
            ("a b c d e f", "not a cron expression"),
            ("@sometimes", "not a known nickname; write one of `@yearly`"),
            ("@reboot", "not a known nickname"),
            ("@every 5m", "`interval: 5m`"),
            ("ä * * * * *", "six fields"),
            ("0 0 0 30 2 *", "never due"),
        ];
        for (text, expected) in cases {
            let message = normalize(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
            assert!(message.contains('`'), "no example: {message}");
        }
    }

    #[test]
    fn the_busiest_time_is_found() {
        let busiest = |text, seconds| busiest(&parse(text).unwrap(), Duration::from_secs(seconds));
        assert_eq!(busiest("* * * * * *", 10), 10.0);
        assert_eq!(busiest("0-9 0 3 * * *", 60), 10.0);
        assert_eq!(busiest("0 0 * * * *", 60), 1.0);
        assert_eq!(busiest("* * * * * *", 86_400), 86_400.0);
    }
}
