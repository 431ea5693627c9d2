//! The basis of a number: Clerk's headers, or a count, and which part of the program counted.

use super::cells;
use super::panel::Panel;

/// Bases without known usage: only 429s and blocks are reliable for these buckets.
const UNKNOWN: &str = r#"basis!~"probe|configured|sampled""#;

/// The label values: value, text, colour.
const WORDS: [(&str, &str, &str); 8] = [
    ("headers", "known: Clerk's headers", "green"),
    ("gateway", "counted by the gateway", "green"),
    ("client", "counted by the client", "green"),
    ("telemetry", "counted from traces", "green"),
    ("mixed", "counted by several", "green"),
    ("sampled", "use unknown: traces are a sample", "orange"),
    ("probe", "use unknown: only probes", "orange"),
    ("configured", "use unknown: nothing seen", "orange"),
];

/// The sentence on the basis in descriptions.
pub(super) const SAID: &str = "Basis `headers`: Clerk's headers state the remaining quota. `gateway`, `client`, \
     `telemetry` and `mixed`: counted here, the actual usage may be higher. `telemetry`: some 15 s late.";

/// The values of a query over buckets with known usage, with the basis as a label. `at`: the query's own matchers.
pub(super) fn known(query: &str, at: &str) -> String {
    format!(
        "{query} * on (job, instance, clerk_instance, bucket) group_left (basis) \
         clerk_ratelimit_basis_info{{{at},{UNKNOWN}}}"
    )
}

/// The lowest remaining share in the last 60 s, by these labels and the basis.
pub(super) fn headroom(labels: &str, at: &str) -> String {
    let by = if labels.is_empty() { "basis".to_owned() } else { format!("{labels}, basis") };
    let peak = format!("clamp_min(1 - clerk_ratelimit_usage_peak_ratio{{{at}}}, 0)");
    format!("min by ({by}) ({})", known(&peak, at))
}

/// The same for the buckets that are known from traces, whose current remaining quota is unknown.
pub(super) fn windows_from_traces(labels: &str, at: &str) -> String {
    format!(
        "min by ({labels}, basis) (clamp_min(1 - clerk_ratelimit_usage_peak_ratio{{{at}}}, 0) \
         * on (job, instance, clerk_instance, bucket) group_left (basis) \
         clerk_ratelimit_basis_info{{{at},basis=\"telemetry\"}})"
    )
}

/// The share of low windows, by these labels and the basis. `function` is `rate` or `increase`.
pub(super) fn low_share(labels: &str, at: &str, function: &str, range: &str) -> String {
    let by = if labels.is_empty() { "basis".to_owned() } else { format!("{labels}, basis") };
    let of = |metric: &str| {
        let counted = format!("{function}(clerk_ratelimit_{metric}_total{{{at}}}[{range}])");
        format!("sum by ({by}) ({})", known(&counted, at))
    };
    format!("{} / ({} > 0)", of("low_windows"), of("windows"))
}

/// Settings of the basis column.
pub(super) fn cell(width: u32) -> serde_json::Value {
    let mut cell = cells::words(&WORDS);
    cell["custom.width"] = serde_json::json!(width);
    cell["custom.align"] = serde_json::json!("left");
    cell
}

/// The instances whose usage is known.
pub(super) fn table() -> Panel {
    Panel::table(
        "Is usage known?",
        "The source of the usage of each instance's 10 s limit. Use unknown: Clerk sends no quota headers, and a probe \
         cannot see other clients' usage. Then only 429s and blocks are reliable, and headroom stays empty. To count \
         usage, receive the applications' traces or send their requests through the gateway.",
    )
    .label("clerk_instance", "Clerk instance", cells::instance_link())
    .label("basis", "Usage", cell(230))
    .labels_of("max by (clerk_instance, basis) (clerk_ratelimit_basis_info{@,bucket=\"instance\"})")
    .sorted("Usage", true)
    .no_value("no data")
}
