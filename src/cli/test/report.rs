//! The report of `test`.

use std::fmt::Write as _;

use serde::Serialize;

use super::bounds::Exceeded;
use super::record::SuiteCounts;

/// Repeated reads in the table; JSON has all.
const SHOWN_READS: usize = 10;

#[derive(Serialize)]
struct Report<'a> {
    /// The status of the command.
    command_status: u8,
    requests: u64,
    throttled: u64,
    routes: Vec<RouteLine<'a>>,
    repeated_reads: Vec<ReadLine<'a>>,
    exceeded: &'a [Exceeded],
}

#[derive(Serialize)]
struct RouteLine<'a> {
    route: &'a str,
    caller: &'a str,
    requests: u64,
    throttled: u64,
}

#[derive(Serialize)]
struct ReadLine<'a> {
    resource: &'a str,
    requests: u64,
}

/// For people.
pub(super) fn table(counts: &SuiteCounts) -> String {
    let mut text = format!("Requests to Clerk: {}, throttled (429): {}\n", counts.total(), counts.throttled());
    let routes = counts.routes();
    let width = routes.iter().map(|(route, ..)| route.len()).max().unwrap_or_default();
    if !routes.is_empty() {
        let _ = writeln!(text, "\nREQUESTS   429  {:width$}  CALLER", "ROUTE");
    }
    for (route, caller, count) in routes {
        let _ = writeln!(text, "{:8} {:5}  {route:width$}  {caller}", count.requests, count.throttled);
    }
    let reads = counts.repeated_reads();
    if !reads.is_empty() {
        text.push_str("\n   READS  RESOURCE (read more than once)\n");
    }
    for (resource, count) in reads.iter().take(SHOWN_READS) {
        let _ = writeln!(text, "{count:8}  {resource}");
    }
    if reads.len() > SHOWN_READS {
        let _ = writeln!(text, "          and {} more; --format json has all", reads.len() - SHOWN_READS);
    }
    text
}

/// For programs.
///
/// # Errors
/// Never, since the report is plain data.
pub(super) fn json(counts: &SuiteCounts, exceeded: &[Exceeded], command_status: u8) -> anyhow::Result<String> {
    let routes = counts.routes().into_iter();
    let reads = counts.repeated_reads().into_iter();
    let report = Report {
        command_status,
        requests: counts.total(),
        throttled: counts.throttled(),
        routes: routes
            .map(|(route, caller, count)| RouteLine {
                route,
                caller,
                requests: count.requests,
                throttled: count.throttled,
            })
            .collect(),
        repeated_reads: reads.map(|(resource, requests)| ReadLine { resource, requests }).collect(),
        exceeded,
    };
    Ok(format!("{}\n", serde_json::to_string_pretty(&report)?))
}
