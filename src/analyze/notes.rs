//! What a reader of the numbers has to know.

use super::Sums;
use super::report::{LimitSource, Report};

/// The notes that apply to this result, the most important first.
pub(super) fn notes(report: &Report, source: &LimitSource, sums: &Sums) -> Vec<String> {
    let logs = &report.logs;
    let mut notes = Vec::new();
    if *source == LimitSource::Default {
        notes.push(format!(
            "The limit is an assumption: {} requests in {} s, Clerk's documented one for production instances. Write \
             --plan development for a development instance, or --limit.",
            report.limit.requests, report.limit.window_seconds
        ));
    }
    for log in &logs.incomplete {
        notes.push(format!("{} ended early: {}; the requests behind that are missing.", log.file, log.cause));
    }
    if logs.requests == 0 {
        return notes;
    }
    notes.push(
        "Windows count what the logs contain. Requests of applications with other logs are missing, so that low and \
         exhausted windows are at least as many."
            .to_owned(),
    );
    if sums.read.instances > 1 {
        notes.push(format!(
            "The gateway's access log has requests of {} instances, which count together as if they shared one limit; \
             choose one with --instance.",
            sums.read.instances
        ));
    }
    if logs.without_host > 0 {
        notes.push(format!(
            "{} requests have no host in their log and count as Clerk's; name its member with --field host=MEMBER.",
            logs.without_host
        ));
    }
    if logs.without_duration > 0 {
        notes.push(format!(
            "{} requests have no readable duration: their time counts as their start, and no other request could \
             join them.",
            logs.without_duration
        ));
    }
    if logs.out_of_order > 0 {
        notes.push(format!(
            "{} requests started more than a minute before those of earlier lines: they count in the sums, not in \
             windows and savings.",
            logs.out_of_order
        ));
    }
    if sums.was_full {
        notes.push(
            "So many requests came within a minute that some were put in order within a shorter time.".to_owned(),
        );
    }
    notes.push(
        "Savings are upper bounds, each of one policy alone; they do not add up. A policy saves less where changes are \
         made elsewhere (webhooks, Clerk's dashboard, applications with other logs), or where requests differ in a \
         header that the log lacks, such as the API version."
            .to_owned(),
    );
    if sums.savings.dropped_resources > 0 {
        notes.push(format!(
            "{} resources were forgotten early, to bound memory, as a cache of limited size would: their further \
             reads count as not saved.",
            sums.savings.dropped_resources
        ));
    }
    if sums.account.spenders.folded > 0 {
        notes.push(format!(
            "{} requests of rare callers and routes are counted as `other`.",
            sums.account.spenders.folded
        ));
    }
    notes
}
