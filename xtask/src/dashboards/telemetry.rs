//! The receiver of traces: which spans arrive, and how late.

use super::panel::Panel;

pub(super) fn spans() -> Panel {
    Panel::graph(
        "Spans in traces, by result",
        "Spans that the receiver took. `accepted`: calls to Clerk that count. `late`, `future` and `dropped` missed their \
         window: above 1 % of a minute's calls, the usage of windows is hidden. `unattributed` and `malformed` calls do \
         not count. The others are spans of other requests, or repeated ones.",
    )
    .query("max by (result) (sum by (job, instance, result) (rate(clerk_telemetry_spans_total{#}[$__rate_interval]))) > 0", "{{result}}")
    .fields("byRegexp", "/^(late|future|dropped)$/", serde_json::json!({ "color": { "mode": "shades", "fixedColor": "red" } }))
    .fields(
        "byRegexp",
        "/^(unattributed|malformed)$/",
        serde_json::json!({ "color": { "mode": "shades", "fixedColor": "orange" } }),
    )
    .unit("ops")
    .min(0.0)
    .runbook("ClerkTelemetrySpansLate")
    .runbook("ClerkTelemetryStopped")
    .no_value("No traces are received")
}

pub(super) fn delay() -> Panel {
    // Without a span in the interval, the quantile would be NaN.
    let quantile = |share: &str| {
        format!(
            "histogram_quantile({share}, \
             sum by (instance, le) (rate(clerk_telemetry_span_delay_seconds_bucket{{#}}[$__rate_interval]))) \
             and on (instance) sum by (instance) (rate(clerk_telemetry_span_delay_seconds_count{{#}}[$__rate_interval])) > 0"
        )
    };
    Panel::graph(
        "Delay of spans",
        "Time from the end of a call to Clerk to the arrival of its span, by exporter: the batches of the application and \
         of the Collector. It has to stay below `telemetry.lateness` (15 s by default).",
    )
    .query(&quantile("0.5"), "{{instance}} median")
    .query(&quantile("0.95"), "{{instance}} 95 %")
    .unit("s")
    .min(0.0)
    .runbook("ClerkTelemetrySpansLate")
    .no_value("No span of a call to Clerk in this time range")
}
