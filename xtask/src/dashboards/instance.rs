//! One Clerk instance: which bucket is low, since when, and the forecast.

use serde_json::json;

use super::panel::{AGE, FEW_WANTED, HEADROOM, NEUTRAL, NONE_WANTED, Panel, USAGE};
use super::{Board, alerts_table, basis, cells, metered, sources, spending};

pub(super) fn dashboard() -> Board {
    Board::new(
        "clerk-instance",
        "Clerk rate limits: one instance",
        "Headroom of one Clerk instance, by window and by bucket.",
    )
    .variable("clerk_instance", "Clerk Instance", "clerk_instance_info{#}", false)
    .variable("bucket", "Bucket", "clerk_ratelimit_limit{@}", true)
    .row("$clerk_instance right now")
    .line(4, now())
    .row("Top consumers")
    .line(8, [(24, spending::table(false))])
    .row("Headroom")
    .line(9, [(12, windows()), (12, headroom())])
    .line(8, [(6, remaining()), (6, from_traces()), (6, low_windows()), (6, alerts_table(false))])
    .row("Buckets")
    .line(10, [(24, buckets_table())])
    .row("429s, blocks and forecast")
    .line(8, [(12, throttled()), (12, blocked())])
    .row("Responses and rejections")
    .line(8, [(8, answers()), (8, quota_refusals()), (8, header_errors())])
    .row("Metered operations")
    .line(8, [(11, metered::callers()), (13, metered::billing_month())])
    .row("Probe, clock and users")
    .line(8, [(8, probe_duration()), (8, probes()), (8, skipped())])
    .line(8, [(12, clock()), (12, users())])
}

fn now() -> [(usize, Panel); 8] {
    [
        (
            3,
            Panel::stat(
                "Headroom",
                &format!("The lowest remaining share of a limit in the last minute, over all buckets. {}", basis::SAID),
                &basis::headroom("", "@b"),
            )
            .named("{{basis}}")
            .share()
            .decimals(0)
            .thresholds(HEADROOM)
            .with_course()
            .runbook("ClerkRateLimitLow")
            .no_value("use unknown"),
        ),
        (
            3,
            Panel::stat(
                "Low windows",
                "Share of the windows closed in this time range whose remaining quota fell below the threshold. Only \
                 buckets whose usage is known.",
                &basis::low_share("", "@b", "increase", "$__range"),
            )
            .named("{{basis}}")
            .share()
            .decimals(1)
            .thresholds(&[(f64::MIN, "green"), (0.001, "orange"), (0.25, "red")])
            .runbook("ClerkRateLimitLow")
            .no_value("use unknown"),
        ),
        (
            3,
            Panel::stat(
                "429s",
                "Responses of Clerk with status 429 to the exporter or its gateway, or seen in traces, in this time range.",
                &sources::throttled("", "@b", "increase", "$__range"),
            )
            .decimals(0)
            .thresholds(NONE_WANTED)
            .runbook("ClerkRateLimitThrottled")
            .no_value("no data"),
        ),
        (
            3,
            Panel::stat(
                "Exhausted in",
                "Time until the quota is exhausted at the request rate of the current window. Only shown if that is \
                 before the reset.",
                "min(clerk_ratelimit_seconds_to_exhaustion{@b})",
            )
            .unit("s")
            .decimals(1)
            .thresholds(&[(f64::MIN, "green"), (0.0, "orange")])
            .runbook("ClerkRateLimitExhaustionForecast")
            .no_value("no"),
        ),
        (
            3,
            Panel::stat(
                "Blocked for",
                "The longest time until Clerk accepts requests again, from Retry-After.",
                "max(clerk_ratelimit_blocked_until_timestamp_seconds{@b} - time()) > 0",
            )
            .unit("s")
            .decimals(0)
            .thresholds(&[(f64::MIN, "green"), (0.0, "red")])
            .runbook("ClerkRateLimitBlockedForLong")
            .no_value("no"),
        ),
        (
            3,
            Panel::stat("Key", "Whether Clerk accepts the secret key.", "min(clerk_key_valid{@})")
                .mapped(&[("0", "rejected", "red"), ("1", "valid", "green")])
                .thresholds(&[(f64::MIN, "red"), (1.0, "green")])
                .unit("bool")
                .runbook("ClerkKeyInvalid")
                .no_value("unknown"),
        ),
        (
            3,
            Panel::stat(
                "Last probe",
                "Age of the last successful probe. It grows while probes fail.",
                "time() - max(clerk_probe_last_success_timestamp_seconds{@})",
            )
            .unit("s")
            .decimals(0)
            .thresholds(AGE)
            .runbook("ClerkProbeStale")
            .no_value("never"),
        ),
        (
            3,
            Panel::stat(
                "Users of limit",
                "Users as a share of the configured `users_limit`.",
                "max(clerk_users{@} / (clerk_users_limit{@} > 0))",
            )
            .share()
            .decimals(0)
            .thresholds(USAGE)
            .runbook("ClerkUsersNearLimit")
            .no_value("not counted"),
        ),
    ]
}

fn windows() -> Panel {
    Panel::heatmap(
        "Closed windows by usage",
        "Closed windows by the used share of their limit: brighter is more. The top band has windows with at most 1 % \
         remaining, the two below it 1 to 5 % and 5 to 10 %. A rising band shows the quota filling up long before the \
         first 429. Only buckets whose usage is known; the table of buckets shows the basis. Choose a single bucket if \
         the bases differ.",
        "sum by (le) (increase(clerk_ratelimit_window_usage_ratio_bucket{@b}[$__rate_interval]))",
    )
    .runbook("ClerkRateLimitLow")
    .no_value("No window closed, or use unknown")
}

fn headroom() -> Panel {
    Panel::graph(
        "Headroom of each bucket, minimum of 60 s",
        "The lowest remaining share in the last 60 s. Each point covers one minute, so that a short window cannot hide \
         between two scrapes. Dashed: the configured threshold. In brackets: the basis.",
    )
    .query(&basis::headroom("bucket", "@b"), "{{bucket}} ({{basis}})")
    .limit_line("max(clerk_ratelimit_low_threshold_ratio{#})", "low threshold", "red")
    .share()
    .thresholds(HEADROOM)
    .legend(&["min", "lastNotNull"])
    .runbook("ClerkRateLimitLow")
    .no_value("Nothing observed, or use unknown")
}

fn remaining() -> Panel {
    Panel::graph(
        "Remaining requests, as sampled",
        "Remaining requests at each scrape, and the limit. Windows are short (10 s for most buckets), and this is one \
         sample per scrape: to see how often the quota runs low, use the panels of closed windows. In brackets: the \
         basis.",
    )
    .query(
        &format!("min by (bucket, basis) ({})", basis::known("clerk_ratelimit_remaining{@b}", "@b")),
        "{{bucket}} ({{basis}})",
    )
    .query(
        "max by (bucket) (clerk_ratelimit_limit{@b} and on (clerk_instance, bucket) clerk_ratelimit_sample_timestamp_seconds{@b})",
        "{{bucket}}, limit",
    )
    .fields(
        "byRegexp",
        "/, limit$/",
        json!({ "custom.lineStyle": { "dash": [10, 10], "fill": "dash" }, "custom.lineWidth": 1, "custom.fillOpacity": 0 }),
    )
    .decimals(0)
    .min(0.0)
    .steps()
    .legend(&["min", "lastNotNull"])
    .no_value("Use unknown, or nothing was observed in this time range")
}

fn from_traces() -> Panel {
    Panel::graph(
        "Lowest in the last windows (from traces)",
        "The lowest remaining share of the limit in the windows that closed in the last 60 s, for buckets whose usage is \
         known from traces alone. Traces arrive seconds after the calls, so that these windows ended some 15 s ago, and \
         the remaining quota of now is unknown. In brackets: the basis.",
    )
    .query(&basis::windows_from_traces("bucket", "@b"), "{{bucket}} ({{basis}})")
    .limit_line("max(clerk_ratelimit_low_threshold_ratio{#})", "low threshold", "red")
    .share()
    .thresholds(HEADROOM)
    .legend(&["min", "lastNotNull"])
    .runbook("ClerkTelemetrySpansLate")
    .no_value("No bucket is known from traces alone, or too many spans are late")
}

fn low_windows() -> Panel {
    Panel::graph(
        "Low and exhausted windows per minute",
        "Windows whose remaining quota fell below the threshold, and windows that were exhausted or had a 429. A 10 s \
         bucket has six windows a minute. If the usage is unknown, only windows with a 429 are low or exhausted.",
    )
    // Averaged over exporters: two exporters of the same instance observe the same windows.
    .query("60 * sum(avg by (bucket) (rate(clerk_ratelimit_windows_total{@b}[$__rate_interval])))", "closed")
    .query("60 * sum(avg by (bucket) (rate(clerk_ratelimit_low_windows_total{@b}[$__rate_interval])))", "low")
    .query(
        "60 * sum(avg by (bucket) (rate(clerk_ratelimit_exhausted_windows_total{@b}[$__rate_interval])))",
        "exhausted",
    )
    .field("closed", json!({ "color": { "mode": "fixed", "fixedColor": "text" }, "custom.fillOpacity": 0 }))
    .field("low", json!({ "color": { "mode": "fixed", "fixedColor": "orange" }, "custom.fillOpacity": 30 }))
    .field("exhausted", json!({ "color": { "mode": "fixed", "fixedColor": "red" }, "custom.fillOpacity": 60 }))
    .decimals(1)
    .min(0.0)
    .legend(&["mean", "max"])
    .runbook("ClerkRateLimitExhausted")
    .no_value("No window closed in this time range")
}

fn buckets_table() -> Panel {
    Panel::table(
        "Buckets",
        "All buckets of this instance, with the basis of their usage. Clerk's headers are exact; counted usage may be \
         lower than the actual usage. If the usage is unknown, only 429s, blocks and exhausted windows are reliable. \
         Low, exhausted and 429 count this time range. Buckets without numbers were not observed.",
    )
    .label("bucket", "Bucket", json!({ "custom.width": 230 }))
    .label("basis", "Basis", basis::cell(210))
    .labels_of("max by (bucket, basis) (clerk_ratelimit_basis_info{@b})")
    .column("Headroom, last 60 s", &basis::headroom("bucket", "@b"), cells::headroom())
    .column(
        "Remaining",
        &format!("min by (bucket, basis) ({})", basis::known("clerk_ratelimit_remaining{@b}", "@b")),
        cells::number(),
    )
    .column("Limit", "max by (bucket) (clerk_ratelimit_limit{@b})", cells::number())
    .column("Window", "max by (bucket) (clerk_ratelimit_window_seconds{@b})", cells::seconds(NEUTRAL))
    .column(
        "Resets in",
        "min by (bucket) (clerk_ratelimit_reset_timestamp_seconds{@b} - time()) > 0",
        cells::seconds(NEUTRAL),
    )
    .column(
        "Low",
        "sum by (bucket) (increase(clerk_ratelimit_low_windows_total{@b}[$__range]))",
        cells::count(FEW_WANTED),
    )
    .column(
        "Exhausted",
        "sum by (bucket) (increase(clerk_ratelimit_exhausted_windows_total{@b}[$__range]))",
        cells::count(NONE_WANTED),
    )
    .column(
        "429s",
        &sources::throttled("bucket", "@b,bucket!=\"none\"", "increase", "$__range"),
        cells::count(NONE_WANTED),
    )
    .column(
        "Blocked for",
        "max by (bucket) (clerk_ratelimit_blocked_until_timestamp_seconds{@b} - time()) > 0",
        cells::seconds(&[(f64::MIN, "red")]),
    )
    .column("Newest response", "1000 * max by (bucket) (clerk_ratelimit_sample_timestamp_seconds{@b})", cells::ago())
    .sorted("Newest response", true)
    .no_value("–")
}

fn throttled() -> Panel {
    Panel::graph(
        "429 responses per minute",
        "Responses of Clerk with status 429, by bucket and recipient: the exporter's probe, the gateway, the client \
         library, or an application whose traces show it (`telemetry`).",
    )
    .query(
        &format!("60 * {} > 0", sources::throttled("bucket, source", "@b", "rate", "$__rate_interval")),
        "{{bucket}}, {{source}}",
    )
    .decimals(1)
    .min(0.0)
    .stacked_bars()
    .shades("red")
    .runbook("ClerkRateLimitThrottled")
    .no_value("No 429 in this time range")
}

fn blocked() -> Panel {
    Panel::graph(
        "Blocked for, exhausted in",
        "Blocked: time until Clerk accepts requests again, from Retry-After. Long blocks mean that requests continued \
         while blocked. Exhausted: time until the quota was exhausted at the request rate of that window, if before \
         the reset.",
    )
    // Relative to the sample's time: many blocks end before the next sample.
    .query(
        "max by (bucket) (clerk_ratelimit_blocked_until_timestamp_seconds{@b} \
         - timestamp(clerk_ratelimit_blocked_until_timestamp_seconds{@b})) > 0",
        "{{bucket}} blocked for",
    )
    .query("min by (bucket) (clerk_ratelimit_seconds_to_exhaustion{@b})", "{{bucket}} exhausted in")
    .fields("byRegexp", "/blocked for$/", json!({ "color": { "mode": "fixed", "fixedColor": "red" } }))
    .fields("byRegexp", "/exhausted in$/", json!({ "color": { "mode": "fixed", "fixedColor": "orange" } }))
    .unit("s")
    .min(0.0)
    .points()
    .runbook("ClerkRateLimitBlockedForLong")
    .runbook("ClerkRateLimitExhaustionForecast")
    .no_value("Neither blocked nor close to it in this time range")
}

fn answers() -> Panel {
    Panel::graph(
        "Responses of Clerk",
        "All responses of Clerk to the exporter and its gateway, and those in traces, by status.",
    )
    .query(&sources::responses("@"), "{{code}}")
    .fields("byRegexp", "/^2/", json!({ "color": { "mode": "fixed", "fixedColor": "green" } }))
    .fields("byRegexp", "/^429$/", json!({ "color": { "mode": "fixed", "fixedColor": "red" } }))
    .fields("byRegexp", "/^4(?!29)/", json!({ "color": { "mode": "fixed", "fixedColor": "orange" } }))
    .fields("byRegexp", "/^5/", json!({ "color": { "mode": "fixed", "fixedColor": "purple" } }))
    .unit("reqps")
    .min(0.0)
    .stacked()
    .no_value("No response in this time range")
}

fn quota_refusals() -> Panel {
    Panel::graph(
        "Quota rejections (403) per minute",
        "Responses with status 403 and a quota code: too many users, organizations, members, domains or roles for the \
         plan. Waiting does not help; the plan or the data has to change.",
    )
    .query("60 * sum by (code) (rate(clerk_quota_exceeded_total{@}[$__rate_interval])) > 0", "{{code}}")
    .decimals(1)
    .min(0.0)
    .stacked_bars()
    .shades("red")
    .runbook("ClerkUserQuotaExceeded")
    .no_value("No rejection in this time range")
}

fn header_errors() -> Panel {
    Panel::graph(
        "Malformed quota headers per minute",
        "Invalid quota headers, by error. Invalid values are ignored, so that headroom may be missing.",
    )
    .query("60 * sum by (error) (rate(clerk_ratelimit_header_errors_total{@}[$__rate_interval])) > 0", "{{error}}")
    .decimals(1)
    .min(0.0)
    .stacked_bars()
    .shades("red")
    .runbook("ClerkRateLimitHeadersMalformed")
    .no_value("All quota headers were valid")
}

fn probe_duration() -> Panel {
    // Without a probe in the interval, the quantile would be NaN.
    let quantile = |share: &str| {
        format!(
            "histogram_quantile({share}, sum by (le) (rate(clerk_probe_duration_seconds_bucket{{@}}[$__rate_interval]))) \
             and on () sum(rate(clerk_probe_duration_seconds_count{{@}}[$__rate_interval])) > 0"
        )
    };
    Panel::graph("Probe duration", "Time until Clerk's response to the probe, including failed probes.")
        .query(&quantile("0.5"), "median")
        .query(&quantile("0.95"), "95 %")
        .unit("s")
        .min(0.0)
        .no_value("No probe in this time range")
}

fn probes() -> Panel {
    Panel::graph(
        "Probes",
        "Probes sent, and failed probes by reason: `throttled` (quota), `key` (secret key); the others concern Clerk \
         or the network path to it.",
    )
    .query("sum(rate(clerk_probes_total{@}[$__rate_interval]))", "sent")
    .query("sum by (reason) (rate(clerk_probe_failures_total{@}[$__rate_interval])) > 0", "failed: {{reason}}")
    .fields("byRegexp", "/^failed/", json!({ "custom.fillOpacity": 60 }))
    .unit("reqps")
    .min(0.0)
    .runbook("ClerkProbeFailing")
    .no_value("No probe in this time range")
}

fn skipped() -> Panel {
    Panel::graph(
        "Skipped probes",
        "Due probes that were skipped, by reason: `fresh` (other traffic reported the quota), `blocked` (Retry-After), \
         `backoff` (after failures), `in_flight` (the previous one was still running), `missed` (the machine was \
         suspended).",
    )
    .query("sum by (reason) (rate(clerk_probes_skipped_total{@}[$__rate_interval]))", "{{reason}}")
    .unit("reqps")
    .min(0.0)
    .stacked()
    .no_value("no data")
}

fn clock() -> Panel {
    Panel::graph(
        "Clock offset",
        "Clerk's clock minus the clock of the exporter's machine, accurate to half a second. An offset of seconds \
         makes resets and Retry-After dates wrong for every program on that machine.",
    )
    .query("clerk_clock_offset_seconds{@}", "{{instance}}")
    .unit("s")
    .soft_bounds(-2.0, 2.0)
    .runbook("ClerkClockOffset")
    .no_value("No response with a Date header in this time range")
}

fn users() -> Panel {
    Panel::graph("Users", "Users, those active in the last 30 days, and the configured limit.")
        .query("max(clerk_users{@})", "users")
        .query("max(clerk_users_active_30d{@})", "active in 30 days")
        .limit_line("max(clerk_users_limit{@})", "cap", "red")
        .min(0.0)
        .runbook("ClerkUsersNearLimit")
        .no_value("Users are not counted: see `users` in the configuration")
}
