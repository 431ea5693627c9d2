//! All Clerk instances: which of them have problems.

use serde_json::json;

use super::panel::{AGE, FEW_WANTED, HEADROOM, NEUTRAL, NONE_WANTED, Panel, USAGE};
use super::{Board, alerts_table, basis, cells, sources, spending, telemetry};

pub(super) fn dashboard() -> Board {
    Board::new(
        "clerk-overview",
        "Clerk rate limits: overview",
        "Which Clerk instances are close to their rate limit, throttled, or near their user limit. Click an instance \
         in a table to open its dashboard.",
    )
    .variable("clerk_instance", "Clerk Instance", "clerk_instance_info{#}", true)
    .row("Right now")
    .line(4, now())
    .row("Top consumers")
    .line(8, [(17, spending::table(true)), (7, basis::table())])
    .row("Headroom")
    .line(7, [(24, headroom_table())])
    .line(8, [(12, headroom()), (12, low_windows())])
    .row("429s and alerts")
    .line(8, [(12, throttled()), (12, alerts_table(true))])
    .row("Keys, probes and users")
    .line(7, [(14, instances_table()), (10, answering())])
    .line(7, [(8, users_share()), (8, users()), (8, probe_failures())])
    .row("Exporters")
    .line(6, [(12, exporters_table()), (6, memory()), (6, cpu())])
    .line(7, [(12, telemetry::spans()), (12, telemetry::delay())])
}

/// Six numbers that are green if nothing is wrong. Each is 0 while there are instances, and absent without any, so that
/// a dead exporter does not look healthy.
fn now() -> [(usize, Panel); 6] {
    let unknown = "no data";
    [
        (
            4,
            Panel::stat(
                "Lowest headroom",
                &format!(
                    "The lowest remaining share of a limit in the last minute, over all instances and buckets whose \
                     usage is known. Below 10 % the alert ClerkRateLimitLow fires. {}",
                    basis::SAID
                ),
                &basis::headroom("", "@"),
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
            4,
            Panel::stat(
                "Instances low, in range",
                "Clerk instances with at least one window in this time range whose remaining quota fell below the \
                 threshold (10 % by default). Counted from closed windows, so that none is missed between two scrapes. \
                 If the usage is unknown, only windows with a 429 count.",
                "count(sum by (clerk_instance) (increase(clerk_ratelimit_low_windows_total{@}[$__range])) > 0) \
                 or 0 * count(clerk_instance_info{@})",
            )
            .thresholds(FEW_WANTED)
            .runbook("ClerkRateLimitLow")
            .no_value(unknown),
        ),
        (
            4,
            Panel::stat(
                "429s, in range",
                "Responses of Clerk with status 429 to the exporter or its gateway, or seen in traces, in this time range.",
                &sources::throttled("", "@", "increase", "$__range"),
            )
            .decimals(0)
            .thresholds(NONE_WANTED)
            .runbook("ClerkRateLimitThrottled")
            .no_value(unknown),
        ),
        (
            4,
            Panel::stat(
                "Buckets blocked",
                "Buckets that Clerk blocks until the end of a Retry-After.",
                "count(clerk_ratelimit_blocked_until_timestamp_seconds{@} > time()) or 0 * count(clerk_instance_info{@})",
            )
            .thresholds(NONE_WANTED)
            .runbook("ClerkRateLimitBlockedForLong")
            .no_value(unknown),
        ),
        (
            4,
            Panel::stat(
                "Not responding",
                "Clerk instances whose last request got no usable response: timeout, connection, TLS or an error \
                 status. A 429 is a usable response.",
                "sum(clerk_up{@} == bool 0)",
            )
            .thresholds(NONE_WANTED)
            .runbook("ClerkProbeFailing")
            .no_value(unknown),
        ),
        (
            4,
            Panel::stat(
                "Rejected keys",
                "Secret keys that Clerk rejects with 401 or 403.",
                "sum(clerk_key_valid{@} == bool 0)",
            )
            .thresholds(NONE_WANTED)
            .runbook("ClerkKeyInvalid")
            .no_value(unknown),
        ),
    ]
}

fn headroom_table() -> Panel {
    // Buckets without any observation only have a limit.
    let seen = "and on (clerk_instance, bucket) clerk_ratelimit_sample_timestamp_seconds{@}";
    Panel::table(
        "Buckets by headroom",
        "The observed buckets of all instances, lowest headroom first. Headroom: the lowest remaining share in the \
         last 60 s. Low, exhausted and 429 count this time range. Empty forecast: lasts until the reset. Empty block: \
         not blocked. Counted usage may be lower than the actual usage; Clerk's headers are exact. Click an instance \
         to see its windows.",
    )
    .label("clerk_instance", "Clerk instance", cells::instance_link())
    .label("environment", "Environment", json!({ "custom.width": 120 }))
    .label("bucket", "Bucket", json!({}))
    .label("basis", "Basis", basis::cell(210))
    .labels_of(&format!(
        "max by (clerk_instance, environment, bucket, basis) (clerk_ratelimit_basis_info{{@}} \
         * on (job, instance, clerk_instance) group_left (environment) clerk_instance_info{{@}} {seen})"
    ))
    .column("Headroom, last 60 s", &basis::headroom("clerk_instance, bucket", "@"), cells::headroom())
    .column(
        "Remaining",
        &format!("min by (clerk_instance, bucket, basis) ({})", basis::known("clerk_ratelimit_remaining{@}", "@")),
        cells::number(),
    )
    .column("Limit", &format!("max by (clerk_instance, bucket) (clerk_ratelimit_limit{{@}} {seen})"), cells::number())
    .column(
        "Low windows",
        &basis::low_share("clerk_instance, bucket", "@", "increase", "$__range"),
        cells::share(&[(f64::MIN, "green"), (0.001, "orange"), (0.25, "red")]),
    )
    .column(
        "Exhausted",
        &format!(
            "sum by (clerk_instance, bucket) (increase(clerk_ratelimit_exhausted_windows_total{{@}}[$__range])) {seen}"
        ),
        cells::count(NONE_WANTED),
    )
    .column(
        "429s",
        &format!("{} {seen}", sources::throttled("clerk_instance, bucket", "@", "increase", "$__range")),
        cells::count(NONE_WANTED),
    )
    .column(
        "Exhausted in",
        "min by (clerk_instance, bucket) (clerk_ratelimit_seconds_to_exhaustion{@})",
        cells::seconds(&[(f64::MIN, "orange")]),
    )
    .column(
        "Blocked for",
        "max by (clerk_instance, bucket) (clerk_ratelimit_blocked_until_timestamp_seconds{@} - time()) > 0",
        cells::seconds(&[(f64::MIN, "red")]),
    )
    .sorted("Headroom, last 60 s", false)
    .no_value("–")
}

fn headroom() -> Panel {
    Panel::graph(
        "Headroom of each instance, minimum of 60 s",
        "The lowest remaining share in the last 60 s over the buckets of each instance. Each point covers one minute, \
         so that a short window cannot hide between two scrapes. Dashed: the configured threshold. In brackets: the \
         basis.",
    )
    .query(&basis::headroom("clerk_instance", "@"), "{{clerk_instance}} ({{basis}})")
    .limit_line("max(clerk_ratelimit_low_threshold_ratio{#})", "low threshold", "red")
    .share()
    .thresholds(HEADROOM)
    .legend(&["min", "lastNotNull"])
    .no_value("Use unknown: see the panel on usage")
}

fn low_windows() -> Panel {
    Panel::graph(
        "Share of low windows",
        "Share of the closed windows whose remaining quota fell below the threshold. 0 % is healthy; at 100 % every \
         window runs low. Only instances whose usage is known; in brackets: the basis.",
    )
    .query(&basis::low_share("clerk_instance", "@", "rate", "$__rate_interval"), "{{clerk_instance}} ({{basis}})")
    .share()
    .thresholds(USAGE)
    .legend(&["mean", "lastNotNull"])
    .no_value("No window closed, or use unknown")
}

fn throttled() -> Panel {
    Panel::graph(
        "429 responses per minute",
        "Responses of Clerk with status 429, by instance and bucket. A 429 of one bucket does not mean that the \
         instance is exhausted: invitations, bulk calls and changes of one user have separate limits.",
    )
    .query(
        &format!("60 * {} > 0", sources::throttled("clerk_instance, bucket", "@", "rate", "$__rate_interval")),
        "{{clerk_instance}} {{bucket}}",
    )
    .decimals(1)
    .min(0.0)
    .stacked_bars()
    .shades("red")
    .thresholds(NONE_WANTED)
    .runbook("ClerkRateLimitThrottled")
    .no_value("No 429 in this time range")
}

fn instances_table() -> Panel {
    Panel::table(
        "Instances",
        "State of each instance's key and probe. Last success: age of the last successful probe, which grows while \
         probes fail. Clock: Clerk's clock minus the clock of the exporter's machine.",
    )
    .label("clerk_instance", "Clerk instance", cells::instance_link())
    .label("api_host", "API host", json!({ "custom.width": 120 }))
    .column(
        "Responding",
        "min by (clerk_instance, api_host) (clerk_up{@} * on (job, instance, clerk_instance) group_left (api_host) \
         clerk_instance_info{@})",
        cells::words(&[("0", "no", "red"), ("1", "yes", "green")]),
    )
    .column(
        "Key",
        "min by (clerk_instance) (clerk_key_valid{@})",
        cells::words(&[("0", "rejected", "red"), ("1", "valid", "green")]),
    )
    .column(
        "Last success",
        "time() - max by (clerk_instance) (clerk_probe_last_success_timestamp_seconds{@})",
        cells::seconds(AGE),
    )
    .column(
        "Failed probes",
        "sum by (clerk_instance) (increase(clerk_probe_failures_total{@}[$__range])) \
         / (sum by (clerk_instance) (increase(clerk_probes_total{@}[$__range])) > 0)",
        cells::share(&[(f64::MIN, "green"), (0.01, "orange"), (0.5, "red")]),
    )
    .column("Clock", "max by (clerk_instance) (clerk_clock_offset_seconds{@})", cells::seconds(NEUTRAL))
    .sorted("Clerk instance", false)
    .no_value("–")
}

fn answering() -> Panel {
    Panel::states(
        "Responses of Clerk",
        "Whether the last request to each instance got a usable response. A 429 counts as usable.",
        "min by (clerk_instance) (clerk_up{@})",
        "{{clerk_instance}}",
    )
    .mapped(&[("0", "no response", "red"), ("1", "responding", "green")])
    .thresholds(&[(f64::MIN, "red"), (1.0, "green")])
    .unit("bool_yes_no")
    .runbook("ClerkProbeFailing")
    .no_value("No probe in this time range")
}

fn users_share() -> Panel {
    Panel::bars(
        "Users against the cap",
        "Users as a share of the configured `users_limit`. At 100 % Clerk rejects new users with 403.",
        "max by (clerk_instance) (clerk_users{@} / (clerk_users_limit{@} > 0))",
        "{{clerk_instance}}",
    )
    .share()
    .decimals(0)
    .thresholds(USAGE)
    .runbook("ClerkUsersNearLimit")
    .no_value("Users are not counted, or no cap is configured")
}

fn users() -> Panel {
    Panel::graph(
        "Users",
        "Users of each instance, and those active in the last 30 days. Counted on a slow schedule, if configured.",
    )
    .query("max by (clerk_instance) (clerk_users{@})", "{{clerk_instance}}")
    .query("max by (clerk_instance) (clerk_users_active_30d{@})", "{{clerk_instance}}, active")
    .min(0.0)
    .no_value("Users are not counted: see `users` in the configuration")
}

fn probe_failures() -> Panel {
    Panel::graph(
        "Failed probes per minute",
        "Probes without a usable response, by reason: `throttled` (quota), `key` (secret key); the others concern \
         Clerk or the network path to it.",
    )
    .query(
        "60 * sum by (clerk_instance, reason) (rate(clerk_probe_failures_total{@}[$__rate_interval])) > 0",
        "{{clerk_instance}} {{reason}}",
    )
    .decimals(1)
    .min(0.0)
    .stacked_bars()
    .shades("red")
    .runbook("ClerkProbeFailing")
    .no_value("No probe failed in this time range")
}

fn exporters_table() -> Panel {
    Panel::table("Exporters", "The exporters behind these numbers. Each replica uses quota for its own probes.")
        .label("instance", "Exporter", json!({}))
        .label("version", "Version", json!({ "custom.width": 110 }))
        .column("Up since", "1000 * max by (instance) (process_start_time_seconds{#})", cells::ago())
        .column(
            "Config",
            "min by (instance) (clerk_exporter_config_last_reload_successful{#})",
            cells::words(&[("0", "reload failed", "red"), ("1", "loaded", "green")]),
        )
        .column(
            "Loaded",
            "1000 * max by (instance) (clerk_exporter_config_last_reload_success_timestamp_seconds{#})",
            cells::ago(),
        )
        .column("Instances", "count by (instance) (clerk_instance_info{@})", cells::number())
        .labels_of("max by (instance, version) (clerk_exporter_build_info{#})")
        .sorted("Exporter", false)
        .no_value("–")
}

fn memory() -> Panel {
    Panel::graph("Memory", "Resident memory of each exporter.")
        .query("process_resident_memory_bytes{#}", "{{instance}}")
        .unit("bytes")
        .min(0.0)
        .no_value("no data")
}

fn cpu() -> Panel {
    Panel::graph("CPU time", "CPU time of each exporter: 100 % is one core.")
        .query("rate(process_cpu_seconds_total{#}[$__rate_interval])", "{{instance}}")
        .unit("percentunit")
        .min(0.0)
        .no_value("no data")
}
