//! The result as one page: no scripts, nothing from elsewhere. maud escapes every value.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{bar, timeline};
use super::table::{pacing, percent, policy};
use crate::analyze::{CountsReport, Report};

const STYLE: &str = include_str!("page.css");

/// Rows of a table; the JSON form has more.
const MAX_ROWS: usize = 20;

pub(super) fn page(report: &Report) -> String {
    let logs = &report.logs;
    let limit = &report.limit;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="UTF-8";
                title { "Clerk quota analysis" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Clerk quota analysis" }
                    p {
                        (logs.requests) " requests"
                        @if let (Some(first), Some(last)) = (&logs.first, &logs.last) { " from " (first) " to " (last) }
                    }
                }
                main {
                    p {
                        "Limit: " (limit.requests) " requests in " (limit.window_seconds) " s (" (limit.source)
                        "). A window is low if less than " (percent(limit.low_threshold)) " % is left."
                    }
                    h2 { "Windows over time" }
                    (timeline(report))
                    p class="legend" {
                        i class="good" {} "enough left " i class="low" {} "low " i class="bad" {} "exhausted or 429. "
                        "Each bar is the fullest window of " (report.timeline.seconds) " s; the line is the threshold."
                    }
                    (windows(report))
                    h2 { "Who spends it" }
                    (callers(report))
                    (routes(report))
                    h2 { "Busiest windows" }
                    (busiest(report))
                    h2 { "What policies would have saved, at most" }
                    (savings(report))
                    p { (pacing(report)) }
                    h2 { "Configuration" }
                    pre { (report.configuration) }
                    h2 { "Notes" }
                    ul {
                        @for note in &report.notes { li { (note) } }
                        @for skipped in &logs.skipped {
                            li {
                                (skipped.lines) " lines skipped: " (skipped.meaning)
                                @for place in &skipped.examples { " " code { (place.file) ":" (place.line) } }
                            }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn windows(report: &Report) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th { "Bucket" } th { "Limit" } th { "Requests" } th { "429" } th { "Windows" } th { "Low" }
                    th { "Exhausted" }
                }
            }
            @for bucket in &report.buckets {
                tr {
                    td { (bucket.bucket) }
                    td data-label="Limit" {
                        @match bucket.limit {
                            Some(limit) => { (limit) " in " (bucket.window_seconds) " s" }
                            None => "unknown",
                        }
                    }
                    td data-label="Requests" { (bucket.requests) }
                    td data-label="429" { (bucket.throttled) }
                    td data-label="Windows" { (bucket.windows) }
                    td data-label="Low" { (bucket.low_windows) }
                    td data-label="Exhausted" { (bucket.exhausted_windows) }
                }
            }
        }
    }
}

fn callers(report: &Report) -> Markup {
    let rows = report.callers.iter().map(|caller| (caller.caller.clone(), caller.counts));
    shares("Caller", rows)
}

fn routes(report: &Report) -> Markup {
    let rows = report.routes.iter().map(|route| (format!("{} {}", route.method, route.route), route.counts));
    shares("Route", rows)
}

fn shares(heading: &str, rows: impl Iterator<Item = (String, CountsReport)>) -> Markup {
    html! {
        table {
            thead { tr { th { (heading) } th { "Requests" } th { "Share" } th { "429" } th { "5xx" } } }
            @for (name, counts) in rows.take(MAX_ROWS) {
                tr {
                    td { (name) }
                    td data-label="Requests" { (counts.requests) }
                    td data-label="Share" {
                        @match counts.share {
                            Some(share) => { (percent(share)) " %" (bar(share, "good")) }
                            None => "no limit",
                        }
                    }
                    td data-label="429" { (counts.throttled) }
                    td data-label="5xx" { (counts.failed) }
                }
            }
        }
    }
}

fn busiest(report: &Report) -> Markup {
    html! {
        table {
            thead { tr { th { "Start" } th { "Used" } th { "Requests" } th { "Most from" } } }
            @for window in &report.busiest_windows {
                @let kind = if window.exhausted { "bad" } else if window.low { "low" } else { "good" };
                tr {
                    td { (window.start) }
                    td data-label="Used" {
                        @if let Some(usage) = window.usage { (percent(usage)) " %" (bar(usage, kind)) }
                    }
                    td data-label="Requests" { @if let Some(requests) = window.requests { (requests) } }
                    td data-label="Most from" {
                        @for sender in &window.senders {
                            div { (sender.caller) ": " (sender.method) " " (sender.route) " (" (sender.requests) ")" }
                        }
                    }
                }
            }
        }
    }
}

fn savings(report: &Report) -> Markup {
    html! {
        table {
            thead { tr { th { "Policy" } th { "Requests" } th { "Share" } th { "Most on" } } }
            @for saving in &report.savings {
                tr {
                    td { (policy(saving)) }
                    td data-label="Requests" { (saving.requests) }
                    td data-label="Share" { (percent(saving.share)) " %" (bar(saving.share, "good")) }
                    td data-label="Most on" {
                        @for route in saving.routes.iter().take(3) {
                            div { (route.method) " " (route.route) " (" (route.requests) ")" }
                        }
                    }
                }
            }
        }
    }
}
