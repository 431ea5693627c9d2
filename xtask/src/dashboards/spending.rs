//! Who spends the quota: requests that Clerk may have counted, by caller and route.
//!
//! These series are born with their first request, and `increase()` does not see what a series is born with. So a series
//! that was not there at the begin of the time counts in full, unless what it shows may be older: when it is there from the
//! first scrape of an older process on, as with a new Prometheus or after a gap in the scrapes.

use serde_json::json;

use super::cells;
use super::panel::Panel;

/// How to come to know who calls Clerk.
pub(super) const UNKNOWN: &str = "No caller is known: send the calls through the gateway";

/// Requests of the last minute, by these labels. With a scrape every 60 s `increase()` over a minute has one sample, so this
/// is the difference to a minute ago; after a restart, all that the new process has counted.
pub(super) fn present(labels: &str, matchers: &str) -> String {
    let requests = format!("clerk_ratelimit_requests_total{{{matchers}}}");
    format!(
        "(sum by ({labels}) (({requests} - {requests} offset 1m) >= 0 or ({requests} and on (job, instance) \
         (clerk_exporter_build_info{{#}} offset 1m or time() - process_start_time_seconds{{#}} < 60))) > 0)"
    )
}

/// Requests of a time, by these labels. A series of fewer scrapes than its exporter was born after the first one.
pub(super) fn over(labels: &str, matchers: &str, range: &str, seconds: &str) -> String {
    let requests = format!("clerk_ratelimit_requests_total{{{matchers}}}");
    format!(
        "(sum by ({labels}) (({requests} unless {requests} offset {range} \
         and (count_over_time({requests}[{range}]) < on (job, instance) group_left () \
         max by (job, instance) (count_over_time(clerk_exporter_build_info{{#}}[{range}])) \
         or ({requests} and on (job, instance) (time() - process_start_time_seconds{{#}} < {seconds})))) \
         or increase({requests}[{range}])) > 0)"
    )
}

/// The requests of the dashboard's time range, by these labels.
pub(super) fn in_range(labels: &str, matchers: &str) -> String {
    over(labels, matchers, "$__range", "$__range_s")
}

/// Callers and routes, the present ones first.
pub(super) fn table(with_clerk_instance: bool) -> Panel {
    let labels = if with_clerk_instance { "clerk_instance, caller, method, route" } else { "caller, method, route" };
    let minutes = over(labels, "@", "5m", "300");
    let share = if with_clerk_instance {
        let all = over("clerk_instance", "@", "5m", "300");
        format!("{minutes} / on (clerk_instance) group_left () {all}")
    } else {
        format!("{minutes} / scalar(sum({minutes}))")
    };
    let table = Panel::table(
        "Who spends it",
        "Requests that Clerk may have counted, the present ones first: retries and refused ones too, and none that the \
         cache answered. Counted by the gateway, the client library, and the probes of this \
         exporter; calls past all of these are not in it. The last 10 seconds are on the exporter's landing \
         page and in /api/v1/top. Share: of the last 5 minutes.",
    );
    let table = if with_clerk_instance {
        table.label("clerk_instance", "Clerk instance", cells::instance_link())
    } else {
        table
    };
    table
        .label("caller", "Caller", json!({}))
        .label("method", "Method", json!({ "custom.width": 90 }))
        .label("route", "Route", json!({}))
        .column("Last minute", &present(labels, "@"), cells::number())
        .column("5 minutes", &minutes, cells::number())
        .column("Hour", &over(labels, "@", "1h", "3600"), cells::number())
        .column("Share", &share, cells::gauge(&[(f64::MIN, "blue")]))
        .sorted("Last minute", true)
        .no_value(UNKNOWN)
        .runbook("ClerkRateLimitLow")
}
