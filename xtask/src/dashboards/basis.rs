//! On what basis a number is known: Clerk's headers, or what was counted, and by which part.

use super::cells;
use super::panel::Panel;

/// Bases that do not know the use: only 429s and blocks are true of these buckets.
const UNKNOWN: &str = r#"basis!~"probe|configured|sampled""#;

/// What a basis means. Value, words, colour.
const WORDS: [(&str, &str, &str); 6] = [
    ("headers", "known: Clerk's headers", "green"),
    ("gateway", "counted by the gateway", "green"),
    ("client", "counted by the client", "green"),
    ("mixed", "counted by several", "green"),
    ("probe", "use unknown: only probes", "orange"),
    ("configured", "use unknown: nothing seen", "orange"),
];

/// What each description says of its numbers.
pub(super) const SAID: &str = "The basis is `headers` where Clerk names what is left; `gateway`, `client` and \
                               `mixed` are counts of what was seen here, and the truth may be higher.";

/// The values of a query over buckets, each with its basis, where the use is known. `at` are the query's own matchers.
pub(super) fn known(query: &str, at: &str) -> String {
    format!(
        "{query} * on (job, instance, clerk_instance, bucket) group_left (basis) \
         clerk_ratelimit_basis_info{{{at},{UNKNOWN}}}"
    )
}

/// The smallest share left in the last 60 s, by these labels and the basis.
pub(super) fn headroom(labels: &str, at: &str) -> String {
    let by = if labels.is_empty() { "basis".to_owned() } else { format!("{labels}, basis") };
    let peak = format!("clamp_min(1 - clerk_ratelimit_usage_peak_ratio{{{at}}}, 0)");
    format!("min by ({by}) ({})", known(&peak, at))
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

/// Settings of a column that holds the basis.
pub(super) fn cell(width: u32) -> serde_json::Value {
    let mut cell = cells::words(&WORDS);
    cell["custom.width"] = serde_json::json!(width);
    cell["custom.align"] = serde_json::json!("left");
    cell
}

/// Of which instances the use is known.
pub(super) fn table() -> Panel {
    Panel::table(
        "Is the use known?",
        "On what basis the use of each instance's limit of 10 s is known. Use unknown: Clerk sends no quota headers, and \
         probes do not see who else calls. Then only 429s and blocks are true, and headroom stays empty. To know it, let \
         the applications call Clerk through the gateway.",
    )
    .label("clerk_instance", "Clerk instance", cells::instance_link())
    .label("basis", "The use is", cell(230))
    .labels_of("max by (clerk_instance, basis) (clerk_ratelimit_basis_info{@,bucket=\"instance\"})")
    .sorted("The use is", true)
    .no_value("no data")
}
