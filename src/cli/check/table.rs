//! The result of `check` as a table that fits the terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::{CLOCK_OFFSET_MATTERS, Row, Verdict};

/// Without `COLUMNS` and without a terminal.
const DEFAULT_WIDTH: usize = 80;
/// On narrower terminals, lines are longer than the terminal.
const MIN_WIDTH: usize = 40;
const GAP: &str = "  ";

/// A column. Where there is no room, those with the highest number are left out first; 0 stays.
struct Column {
    heading: &'static str,
    dispensable: u8,
    cell: fn(&Row) -> String,
}

const COLUMNS: [Column; 10] = [
    Column { heading: "INSTANCE", dispensable: 0, cell: |row| row.instance.to_string() },
    Column { heading: "VERDICT", dispensable: 0, cell: verdict },
    Column { heading: "ENVIRONMENT", dispensable: 3, cell: |row| row.environment.to_owned() },
    Column { heading: "KEY", dispensable: 2, cell: key },
    Column { heading: "HEADERS", dispensable: 5, cell: |row| row.quota_headers.unwrap_or("-").to_owned() },
    Column { heading: "LIMIT", dispensable: 0, cell: |row| number(row.limit) },
    Column { heading: "LEFT", dispensable: 0, cell: |row| number(row.remaining) },
    Column { heading: "RESET", dispensable: 1, cell: reset },
    Column { heading: CLOCK, dispensable: 4, cell: clock },
    Column { heading: "LATENCY", dispensable: 6, cell: |row| format!("{:.0} ms", row.latency_seconds * 1000.0) },
];
const CLOCK: &str = "CLOCK";

/// Longest line: `COLUMNS`, or the width of the terminal.
pub(in crate::cli) fn width() -> usize {
    let given = std::env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
    let terminal = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    given.filter(|width| *width > 0).or_else(terminal).unwrap_or(DEFAULT_WIDTH).max(MIN_WIDTH)
}

/// One line per instance, hints below. Columns that are left out are in the JSON.
pub(super) fn table(rows: &[Row], width: usize, styled: bool) -> String {
    let mut columns: Vec<(&Column, usize)> = COLUMNS
        .iter()
        .filter(|column| column.heading != CLOCK || rows.iter().any(has_clock))
        .map(|column| {
            let longest = rows.iter().map(|row| (column.cell)(row).chars().count()).max().unwrap_or_default();
            (column, longest.max(column.heading.len()))
        })
        .collect();
    let whole = |columns: &[(&Column, usize)]| {
        columns.iter().map(|(_, width)| width).sum::<usize>() + GAP.len() * columns.len().saturating_sub(1)
    };
    while whole(&columns) > width {
        let first_out = columns.iter().map(|(column, _)| column.dispensable).max().unwrap_or_default();
        if first_out == 0 {
            break;
        }
        columns.retain(|(column, _)| column.dispensable != first_out);
    }
    // Long names are cut last.
    let excess = whole(&columns).saturating_sub(width);
    if let Some((column, name)) = columns.first_mut() {
        *name = name.saturating_sub(excess).max(column.heading.len());
    }

    let name_width = columns.first().map_or(width, |(_, width)| *width);
    let mut text = String::new();
    let mut line = |cell: &dyn Fn(&Column) -> String, verdict: Option<Verdict>| {
        let mut parts = Vec::new();
        for (column, width) in &columns {
            let padded = format!("{:<width$}", cut(cell(column), *width));
            parts.push(match verdict {
                Some(verdict) if column.heading == "VERDICT" => {
                    let style = colour(verdict);
                    format!("{style}{padded}{style:#}")
                }
                _ => padded,
            });
        }
        text.push_str(parts.join(GAP).trim_end());
        text.push('\n');
    };
    line(&|column| column.heading.to_owned(), None);
    for row in rows {
        line(&|column| (column.cell)(row), styled.then_some(row.verdict));
    }
    for row in rows {
        for hint in &row.hints {
            wrapped(&mut text, &format!("{}: {hint}", cut(row.instance.to_string(), name_width)), width);
        }
    }
    text
}

/// The text, cut to the width.
pub(in crate::cli) fn cut(text: String, width: usize) -> String {
    if text.chars().count() <= width {
        return text;
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A paragraph, indented after its first line. Only a word longer than a line exceeds the width.
pub(in crate::cli) fn wrapped(text: &mut String, paragraph: &str, width: usize) {
    let mut length = 0;
    for word in paragraph.split_whitespace() {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > width {
            text.push_str("\n  ");
            length = 2;
        } else if length > 0 {
            text.push(' ');
            length += 1;
        }
        text.push_str(word);
        length += word_length;
    }
    let _ = writeln!(text);
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn verdict(row: &Row) -> String {
    match row.trouble {
        Some(trouble) if row.verdict == Verdict::Unknown => trouble.to_owned(),
        _ => row.verdict.as_str().to_owned(),
    }
}

fn key(row: &Row) -> String {
    let word = match row.key_valid {
        Some(true) => "valid",
        Some(false) => "refused",
        None => "-",
    };
    word.to_owned()
}

fn reset(row: &Row) -> String {
    match (row.retry_after_seconds, row.reset_seconds) {
        (Some(wait), _) => format!("retry in {wait:.0} s"),
        (None, Some(reset)) => format!("{reset:.0} s"),
        (None, None) => "-".to_owned(),
    }
}

/// Whether the clocks differ by more than the resolution of a `Date` header explains.
fn has_clock(row: &Row) -> bool {
    row.clock_offset_seconds.is_some_and(|offset| offset.abs() > CLOCK_OFFSET_MATTERS)
}

fn clock(row: &Row) -> String {
    match row.clock_offset_seconds {
        Some(offset) if has_clock(row) => format!("{offset:+.0} s"),
        _ => "-".to_owned(),
    }
}

const fn colour(verdict: Verdict) -> Style {
    let colour = match verdict {
        Verdict::Fine => AnsiColor::Green,
        Verdict::Low | Verdict::UseUnknown | Verdict::Unknown => AnsiColor::Yellow,
        Verdict::Throttled => AnsiColor::Red,
    };
    colour.on_default().bold()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(instance: &str, verdict: Verdict, trouble: Option<&'static str>, offset: f64) -> Row {
        Row {
            instance: instance.into(),
            verdict,
            trouble,
            environment: "development",
            api_host: "api.clerk.com".to_owned(),
            key_valid: Some(false),
            status: Some(200),
            quota_headers: Some("ratelimit-structured"),
            limit: Some(100_000),
            limit_source: "Clerk's headers",
            remaining: Some(99_999),
            reset_seconds: Some(10.0),
            retry_after_seconds: Some(3600.0),
            clock_offset_seconds: Some(offset),
            latency_seconds: 12.345,
            header_errors: Vec::new(),
            failure: None,
            hints: vec!["key valid, use unknown: let the applications call Clerk through the gateway. ".repeat(4)],
            steps: None,
        }
    }

    #[test]
    fn table_lines_fit_and_headings_are_whole() {
        let long = "a-very-long-name-for-an-instance-that-serves-production-in-several-regions";
        let rows = [
            row("default", Verdict::UseUnknown, None, 0.4),
            row(long, Verdict::Unknown, Some("Clerk is failing"), -90.0),
        ];
        for width in 60..200 {
            for rows in [&rows[..1], &rows[..]] {
                let text = table(rows, width, false);
                for line in text.lines() {
                    assert!(line.chars().count() <= width, "{width}: {line}");
                }
                let headings = text.lines().next().unwrap().split_whitespace();
                assert!(
                    headings.clone().all(|heading| COLUMNS.iter().any(|column| column.heading == heading)),
                    "{text}"
                );
                for heading in ["INSTANCE", "VERDICT", "LIMIT", "LEFT"] {
                    assert!(headings.clone().any(|found| found == heading), "{width}: {heading}");
                }
            }
        }
        assert!(table(&rows, 60, false).contains('…'));
    }

    #[test]
    fn clock_column_shows_whole_seconds_above_threshold() {
        assert!(!table(&[row("a", Verdict::Fine, None, 0.5)], 200, false).contains(CLOCK));
        let text = table(&[row("a", Verdict::Fine, None, 0.5), row("b", Verdict::Fine, None, -90.4)], 200, false);
        assert!(text.contains(CLOCK) && text.contains("-90 s") && !text.contains("0.5"), "{text}");
    }
}
