//! Consumption of the quota: requests that Clerk may have counted, by caller and route.
//!
//! A series starts with its first request, and `increase()` ignores the initial value. So a series that did not exist
//! at the start of the time range counts in full, unless its value may be older: if it exists from the first scrape of
//! an older process, as with a new Prometheus or after a gap in the scrapes.

use serde_json::json;

use super::panel::Panel;
use super::{cells, sources};

/// Text if no callers are known.
pub(super) const UNKNOWN: &str = "Callers unknown: receive traces, or use the gateway";

/// The labels of the counter of requests, except `source`.
const OWN: &str = "clerk_instance, bucket, caller, route, method, result";

/// Requests of the last minute, by these labels. With a scrape every 60 s, `increase()` over a minute has one sample,
/// so this is the difference to the value a minute ago; after a restart, the whole count of the new process.
pub(super) fn present(labels: &str, matchers: &str) -> String {
    let sum = sources::sum(labels, OWN, |source| {
        let requests = format!("clerk_ratelimit_requests_total{{{matchers}{source}}}");
        format!(
            "(({requests} - {requests} offset 1m) >= 0 or ({requests} and on (job, instance) \
             (clerk_exporter_build_info{{#}} offset 1m or time() - process_start_time_seconds{{#}} < 60)))"
        )
    });
    format!("({sum} > 0)")
}

/// Requests of a time range, by these labels. A series with fewer scrapes than its exporter started after the first
/// scrape.
pub(super) fn over(labels: &str, matchers: &str, range: &str, seconds: &str) -> String {
    counted("clerk_ratelimit_requests_total", OWN, labels, matchers, (range, seconds))
}

/// The same for any counter whose series start with their first event. `own` are its labels, except `source`; the time
/// range is given as a duration and in seconds.
pub(super) fn counted(metric: &str, own: &str, labels: &str, matchers: &str, (range, seconds): (&str, &str)) -> String {
    let sum = sources::sum(labels, own, |source| {
        let requests = format!("{metric}{{{matchers}{source}}}");
        format!(
            "(({requests} unless {requests} offset {range} \
             and (count_over_time({requests}[{range}]) < on (job, instance) group_left () \
             max by (job, instance) (count_over_time(clerk_exporter_build_info{{#}}[{range}])) \
             or ({requests} and on (job, instance) (time() - process_start_time_seconds{{#}} < {seconds})))) \
             or increase({requests}[{range}]))"
        )
    });
    format!("({sum} > 0)")
}

/// The requests of the dashboard's time range, by these labels.
pub(super) fn in_range(labels: &str, matchers: &str) -> String {
    over(labels, matchers, "$__range", "$__range_s")
}

/// Callers and routes, current top consumers first.
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
        "Top consumers",
        "Requests that Clerk may have counted, current top consumers first. Includes retries and rejected requests, \
         excludes cache hits. Counted by the gateway, from traces, by the client library and this exporter's probes; \
         other requests are missing. The last 10 seconds are on the exporter's landing page and in /api/v1/top. Share: of the last 5 \
         minutes.",
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
