//! The result as tables that fit the terminal.

use std::fmt::Write as _;

use crate::analyze::{Report, SavingReport};
use crate::cli::check::{cut, wrapped};

/// Rows of a table; the JSON form has more.
const MAX_ROWS: usize = 10;

const GAP: &str = "  ";

/// A table: headings, and rows of as many cells. The first column is cut where there is no room.
struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// All tables, the configuration and the notes.
pub(super) fn table(report: &Report, width: usize) -> String {
    let mut text = String::new();
    let logs = &report.logs;
    let span = match (&logs.first, &logs.last) {
        (Some(first), Some(last)) => format!(" from {first} to {last}"),
        _ => String::new(),
    };
    let limit = &report.limit;
    wrapped(&mut text, &format!("{} requests to Clerk{span}.", logs.requests), width);
    let basis = format!(
        "Limit: {} requests in {} s ({}). A window is low if less than {} % is left.",
        limit.requests,
        limit.window_seconds,
        limit.source,
        percent(limit.low_threshold)
    );
    wrapped(&mut text, &basis, width);
    section(&mut text, "Windows", &windows(report), width);
    section(&mut text, "Callers", &callers(report), width);
    section(&mut text, "Routes", &routes(report), width);
    section(&mut text, "Callers and routes", &spenders(report), width);
    section(&mut text, "Busiest windows", &busiest(report), width);
    section(&mut text, "Savings, at most", &savings(report), width);
    wrapped(&mut text, &pacing(report), width);
    text.push_str("\nConfiguration\n");
    for line in report.configuration.lines() {
        let _ = writeln!(text, "{GAP}{line}");
    }
    text.push_str("\nNotes\n");
    for note in report.notes.iter().chain(&skipped(report)) {
        wrapped(&mut text, &format!("- {note}"), width);
    }
    text
}

/// Why no request was found.
pub(super) fn what_was_found(report: &Report) -> String {
    let skipped = skipped(report);
    if skipped.is_empty() { "the logs are empty".to_owned() } else { skipped.join(" ") }
}

/// One sentence for each kind of skipped lines.
fn skipped(report: &Report) -> Vec<String> {
    let sentence = |skipped: &crate::analyze::SkippedReport| {
        let places: Vec<_> = skipped.examples.iter().map(|place| format!("{}:{}", place.file, place.line)).collect();
        let places = if places.is_empty() { String::new() } else { format!(" ({}, ...)", places.join(", ")) };
        format!("{} lines skipped: {}{places}.", skipped.lines, skipped.meaning)
    };
    report.logs.skipped.iter().map(sentence).collect()
}

fn windows(report: &Report) -> Table {
    let rows = report.buckets.iter().map(|bucket| {
        vec![
            bucket.bucket.clone(),
            bucket.limit.map_or_else(|| "-".to_owned(), |limit| format!("{limit}/{}s", bucket.window_seconds)),
            bucket.requests.to_string(),
            bucket.throttled.to_string(),
            bucket.windows.to_string(),
            bucket.low_windows.to_string(),
            bucket.exhausted_windows.to_string(),
        ]
    });
    let headings = vec!["BUCKET", "LIMIT", "REQUESTS", "429", "WINDOWS", "LOW", "EXHAUSTED"];
    Table { headings, rows: rows.collect() }
}

fn callers(report: &Report) -> Table {
    let rows = report.callers.iter().take(MAX_ROWS).map(|caller| {
        let counts = &caller.counts;
        vec![caller.caller.clone(), counts.requests.to_string(), share(counts.share), counts.throttled.to_string()]
    });
    Table { headings: vec!["CALLER", "REQUESTS", "SHARE", "429"], rows: rows.collect() }
}

fn routes(report: &Report) -> Table {
    let rows = report.routes.iter().take(MAX_ROWS).map(|route| {
        let counts = &route.counts;
        let name = format!("{} {}", route.method, route.route);
        vec![name, counts.requests.to_string(), share(counts.share), counts.throttled.to_string()]
    });
    Table { headings: vec!["ROUTE", "REQUESTS", "SHARE", "429"], rows: rows.collect() }
}

fn spenders(report: &Report) -> Table {
    let rows = report.spenders.iter().take(MAX_ROWS).map(|spender| {
        let name = format!("{}: {} {}", spender.caller, spender.method, spender.route);
        vec![name, spender.counts.requests.to_string(), share(spender.counts.share)]
    });
    Table { headings: vec!["CALLER AND ROUTE", "REQUESTS", "SHARE"], rows: rows.collect() }
}

fn busiest(report: &Report) -> Table {
    let rows = report.busiest_windows.iter().map(|window| {
        let most = window.senders.first().map_or_else(
            || "-".to_owned(),
            |sender| format!("{}: {} {} ({})", sender.caller, sender.method, sender.route, sender.requests),
        );
        vec![
            most,
            window.start.clone(),
            window.requests.map_or_else(|| "-".to_owned(), |requests| requests.to_string()),
            window.usage.map_or_else(|| "-".to_owned(), |usage| format!("{} %", percent(usage))),
        ]
    });
    Table { headings: vec!["MOST FROM", "START", "REQUESTS", "USED"], rows: rows.collect() }
}

fn savings(report: &Report) -> Table {
    let rows = report.savings.iter().map(|saving| {
        let most = saving
            .routes
            .first()
            .map_or_else(|| "-".to_owned(), |route| format!("{} {} ({})", route.method, route.route, route.requests));
        vec![policy(saving), saving.requests.to_string(), format!("{} %", percent(saving.share)), most]
    });
    Table { headings: vec!["POLICY", "REQUESTS", "SHARE", "MOST ON"], rows: rows.collect() }
}

/// The policy with its lifetime.
pub(super) fn policy(saving: &SavingReport) -> String {
    saving.ttl_seconds.map_or_else(|| saving.policy.to_owned(), |ttl| format!("{} {ttl} s", saving.policy))
}

/// What pacing would have done, in a sentence.
pub(super) fn pacing(report: &Report) -> String {
    let pacing = &report.pacing;
    let delayed = match (pacing.mean_wait_seconds, pacing.longest_wait_seconds) {
        (Some(mean), Some(longest)) => {
            format!("delayed {} requests, by {mean:.1} s on average and {longest:.1} s at most", pacing.delayed)
        }
        _ => "delayed no request".to_owned(),
    };
    let shed = match pacing.shed {
        0 => String::new(),
        shed => format!(", and rejected {shed} that would have waited longer than {} s", pacing.max_wait_seconds),
    };
    format!("Pacing would have {delayed}{shed}.")
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "no limit".to_owned(), |share| format!("{} %", percent(share)))
}

/// With one decimal, without a needless one.
pub(super) fn percent(ratio: f64) -> f64 {
    (ratio * 1000.0).round() / 10.0
}

fn section(text: &mut String, title: &str, table: &Table, width: usize) {
    if table.rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    let mut widths: Vec<usize> = table.headings.iter().map(|heading| heading.chars().count()).collect();
    for row in &table.rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    // The widest column of text gives way.
    let whole = widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
    if let Some(widest) = widths.iter_mut().max() {
        *widest = widest.saturating_sub(whole.saturating_sub(width)).max(8);
    }
    let headings: Vec<String> = table.headings.iter().map(|heading| (*heading).to_owned()).collect();
    for row in std::iter::once(&headings).chain(&table.rows) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{:<width$}", cut(cell.clone(), *width))).collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
}
