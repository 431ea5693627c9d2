//! Counters by source. Exporters of one job see different requests, which add up. But receivers of traces get the same
//! spans: of them the largest count is used.

/// The sum by these labels of what `of` computes for the series with the given matchers. `labels` may be empty. `own` are
/// the metric's labels, except `source`.
pub(super) fn sum(labels: &str, own: &str, of: impl Fn(&str) -> String) -> String {
    let by = if labels.is_empty() { String::new() } else { format!(" by ({labels})") };
    let (others, telemetry) = (of(",source!=\"telemetry\""), of(",source=\"telemetry\""));
    format!("sum{by} ({others} or max by (job, source, {own}) ({telemetry}))")
}

/// Throttled responses by these labels, with these matchers. `function` is `rate` or `increase`.
pub(super) fn throttled(labels: &str, at: &str, function: &str, range: &str) -> String {
    sum(labels, "clerk_instance, bucket", |source| {
        format!("{function}(clerk_ratelimit_throttled_responses_total{{{at}{source}}}[{range}])")
    })
}

/// Responses of Clerk per second by status, with these matchers.
pub(super) fn responses(at: &str) -> String {
    sum("code", "clerk_instance, code", |source| {
        format!("rate(clerk_responses_total{{{at}{source}}}[$__rate_interval])")
    })
}
