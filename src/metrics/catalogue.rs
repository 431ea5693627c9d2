//! Every metric's name, type, help text and labels. `docs/metrics.md` is made from this, and a test keeps both equal.
//!
//! The OpenMetrics encoder writes help texts without escaping them: they hold no quotes, backslashes or line breaks,
//! and no final full stop, which the encoder adds.

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up; its name ends in `_total` (or is a process metric).
    Counter,
    /// Goes up and down, and is absent where the value is unknown.
    Gauge,
    /// A classic histogram.
    Histogram,
}

impl Kind {
    /// The word of the exposition formats.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Which part of the program has a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricGroup {
    /// The exporter: always there.
    Exporter,
    /// The gateway, where one is configured.
    Gateway,
    /// The client in an application that shows its metrics.
    Client,
}

/// One metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricFamily {
    /// The name as it is exposed.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Who has it.
    pub part: MetricGroup,
}

macro_rules! families {
    ($($part:ident { $($ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)* })*) => {
        $($(
            #[doc = $help]
            pub const $ident: MetricFamily =
                MetricFamily { name: $name, kind: Kind::$kind, help: $help, labels: &[$($label),*], part: MetricGroup::$part };
        )*)*

        /// All families, in the order in which they are exposed.
        pub const ALL: &[MetricFamily] = &[$($($ident),*),*];
    };
}

families! {
    Exporter {
        UP = Gauge "clerk_up" ["clerk_instance"]
            "Whether the last exchange with Clerk got a usable answer (a 429 is usable); absent before the first";
        KEY_VALID = Gauge "clerk_key_valid" ["clerk_instance"]
            "Whether Clerk accepts the secret key; absent until known";
        INSTANCE_INFO = Gauge "clerk_instance_info" ["clerk_instance", "environment", "api_host"]
            "Always 1; environment (production, development or unknown) and host of the Backend API";
        TROUBLE_INFO = Gauge "clerk_trouble_info" ["clerk_instance", "trouble"]
            "Always 1; why requests fail now: key (Clerk refuses it), network (Clerk cannot be reached from here), clerk (Clerk is failing) or throttled; absent where they do not";
        LIMIT = Gauge "clerk_ratelimit_limit" ["clerk_instance", "bucket"]
            "Requests that the bucket allows per window";
        REMAINING = Gauge "clerk_ratelimit_remaining" ["clerk_instance", "bucket"]
            "Requests left, by Clerk's headers or as counted (see clerk_ratelimit_basis_info); 0 while a 429 blocks; absent where the use is not known, or was known too long ago";
        RESET_TIMESTAMP = Gauge "clerk_ratelimit_reset_timestamp_seconds" ["clerk_instance", "bucket"]
            "UNIX time at which the window resets, as the newest answer said";
        WINDOW = Gauge "clerk_ratelimit_window_seconds" ["clerk_instance", "bucket"]
            "Length of the window";
        BASIS_INFO = Gauge "clerk_ratelimit_basis_info" ["clerk_instance", "bucket", "basis"]
            "Always 1; where the numbers come from: headers (Clerk names them), gateway, client or mixed (what these counted is taken off the limit: never more is left than that), probe (only probes are seen: the use is unknown) or configured (only the limit is known)";
        SAMPLE_TIMESTAMP = Gauge "clerk_ratelimit_sample_timestamp_seconds" ["clerk_instance", "bucket"]
            "UNIX time of the newest observation";
        USAGE_PEAK = Gauge "clerk_ratelimit_usage_peak_ratio" ["clerk_instance", "bucket"]
            "Highest used share of the limit in the last 60 s; absent where the use is not known";
        WINDOW_USAGE = Histogram "clerk_ratelimit_window_usage_ratio" ["clerk_instance", "bucket"]
            "Closed windows by the highest used share of the limit in them, of those in which the use is known";
        WINDOWS = Counter "clerk_ratelimit_windows_total" ["clerk_instance", "bucket"]
            "Windows closed with at least one observation, whether or not the use is known";
        LOW_WINDOWS = Counter "clerk_ratelimit_low_windows_total" ["clerk_instance", "bucket"]
            "Closed windows in which less than the low threshold of the limit was left, or a 429 came";
        EXHAUSTED_WINDOWS = Counter "clerk_ratelimit_exhausted_windows_total" ["clerk_instance", "bucket"]
            "Closed windows with nothing left or a 429";
        LOW_THRESHOLD = Gauge "clerk_ratelimit_low_threshold_ratio" []
            "Share of the limit below which a window counts as low, from the configuration";
        THROTTLED = Counter "clerk_ratelimit_throttled_responses_total" ["clerk_instance", "bucket", "source"]
            "Answers of Clerk with status 429";
        BLOCKED_UNTIL = Gauge "clerk_ratelimit_blocked_until_timestamp_seconds" ["clerk_instance", "bucket"]
            "UNIX time at which the current Retry-After ends; absent when not blocked";
        SECONDS_TO_EXHAUSTION = Gauge "clerk_ratelimit_seconds_to_exhaustion" ["clerk_instance", "bucket"]
            "Seconds until nothing is left at the present pace; absent unless that is before the reset, or within a window where requests are counted";
        SPENT = Counter "clerk_ratelimit_requests_total" ["clerk_instance", "bucket", "caller", "route", "method", "source", "result"]
            "Requests sent to Clerk that it may have counted, retries included, by who spends them; result served, refused (429) or unknown (no answer came)";
        HEADER_ERRORS = Counter "clerk_ratelimit_header_errors_total" ["clerk_instance", "error"]
            "Malformed or contradictory quota headers on answers of Clerk";
        QUOTA_EXCEEDED = Counter "clerk_quota_exceeded_total" ["clerk_instance", "code"]
            "Answers of Clerk with status 403 because a quota of the plan is used up";
        USERS = Gauge "clerk_users" ["clerk_instance"]
            "Users of the instance, counted on the schedule of its own";
        USERS_ACTIVE_30D = Gauge "clerk_users_active_30d" ["clerk_instance"]
            "Users active in the last 30 days, counted on the schedule of its own";
        USERS_LIMIT = Gauge "clerk_users_limit" ["clerk_instance"]
            "Cap of users, from the configuration";
        RESPONSES = Counter "clerk_responses_total" ["clerk_instance", "source", "code"]
            "Answers of Clerk by HTTP status";
        PROBES = Counter "clerk_probes_total" ["clerk_instance"]
            "Probes made";
        PROBE_FAILURES = Counter "clerk_probe_failures_total" ["clerk_instance", "reason"]
            "Probes that failed";
        PROBES_SKIPPED = Counter "clerk_probes_skipped_total" ["clerk_instance", "reason"]
            "Probes that were due and not made";
        PROBE_DURATION = Histogram "clerk_probe_duration_seconds" ["clerk_instance"]
            "Duration of probes, failed ones included";
        PROBE_LAST_SUCCESS = Gauge "clerk_probe_last_success_timestamp_seconds" ["clerk_instance"]
            "UNIX time of the last successful probe";
        CLOCK_OFFSET = Gauge "clerk_clock_offset_seconds" ["clerk_instance"]
            "Clock of Clerk, by its Date header, minus the clock of this machine; exact to half a second";
        BUILD_INFO = Gauge "clerk_exporter_build_info" ["version", "revision", "rustversion"]
            "Always 1; what this program was built from";
        CONFIG_RELOAD_SUCCESSFUL = Gauge "clerk_exporter_config_last_reload_successful" []
            "Whether the last attempt to load the configuration succeeded";
        CONFIG_RELOAD_TIMESTAMP = Gauge "clerk_exporter_config_last_reload_success_timestamp_seconds" []
            "UNIX time of the last successful load of the configuration";
        FILE_RELOAD_FAILURES = Counter "clerk_exporter_file_reload_failures_total" ["kind"]
            "Attempts to read a file again that failed, each repetition counted; what was read before stays in force. kind is config, secret_key, caller_token, web_config, tls_certificate, client_ca, ca_file, signing_secret or encryption_key";
        FILE_RELOAD_TIMESTAMP = Gauge "clerk_exporter_file_reload_success_timestamp_seconds" ["kind"]
            "UNIX time at which a file of the kind was last read well; absent where there is none";
        TASKS = Gauge "clerk_exporter_tasks" []
            "Tasks of the async runtime that are alive: connections, probes, watches of files and the like";
        PROCESS_CPU = Counter "process_cpu_seconds_total" []
            "Total user and system CPU time spent in seconds";
        PROCESS_OPEN_FDS = Gauge "process_open_fds" []
            "Number of open file descriptors";
        PROCESS_MAX_FDS = Gauge "process_max_fds" []
            "Maximum number of open file descriptors";
        PROCESS_VIRTUAL_MEMORY = Gauge "process_virtual_memory_bytes" []
            "Virtual memory size in bytes";
        PROCESS_VIRTUAL_MEMORY_MAX = Gauge "process_virtual_memory_max_bytes" []
            "Maximum amount of virtual memory available in bytes";
        PROCESS_RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" []
            "Resident memory size in bytes";
        PROCESS_START_TIME = Gauge "process_start_time_seconds" []
            "Start time of the process since the UNIX epoch in seconds";
        PROCESS_THREADS = Gauge "process_threads" []
            "Number of operating system threads in the process";
    }
    Gateway {
        GATEWAY_REQUESTS = Counter "clerk_gateway_requests_total" ["clerk_instance", "caller", "route", "method", "code"]
            "Requests to the gateway; route is a template of the Backend API or other; code 499 is a client that did not wait";
        GATEWAY_DURATION = Histogram "clerk_gateway_request_duration_seconds" ["clerk_instance", "route"]
            "From the head of a request to the end of its answer";
        GATEWAY_UPSTREAM_DURATION = Histogram "clerk_gateway_upstream_duration_seconds" ["clerk_instance", "route"]
            "From the start of the last attempt to the head of the answer of Clerk";
        GATEWAY_DECISIONS = Counter "clerk_gateway_decisions_total" ["clerk_instance", "decision"]
            "What became of requests: forwarded, queued, retried, cache_hit, stale, coalesced, batched, shed, rejected, failed or abandoned";
        GATEWAY_SHED = Counter "clerk_gateway_shed_total" ["clerk_instance", "priority"]
            "Requests that the gateway refused because they would have waited too long, by the priority of their callers: high or low";
        GATEWAY_SHADOW_DECISIONS = Counter "clerk_gateway_shadow_decisions_total" ["clerk_instance", "decision"]
            "What would have become of requests if the policies in shadow were on";
        GATEWAY_SAVED = Counter "clerk_gateway_saved_requests_total" ["clerk_instance", "by"]
            "Requests to Clerk that were not needed";
        GATEWAY_QUEUE_DEPTH = Gauge "clerk_gateway_queue_depth" ["clerk_instance"]
            "Requests that wait for the limit";
        GATEWAY_QUEUE_WAIT = Histogram "clerk_gateway_queue_wait_seconds" ["clerk_instance"]
            "How long requests that were let go had waited for the limit";
        GATEWAY_BUDGET_SHARED = Gauge "clerk_gateway_budget_shared" ["clerk_instance"]
            "Whether the limit is shared with other gateways over Redis (1), or each keeps to a part of it because Redis cannot be reached (0); absent without Redis";
        GATEWAY_POLICY_INFO = Gauge "clerk_gateway_policy_info" ["clerk_instance", "policy", "mode"]
            "Always 1; the mode (off, shadow or on) of each policy, for routes that have none of their own";
        GATEWAY_DROPPED = Counter "clerk_gateway_dropped_series_total" ["label"]
            "Requests whose label value was folded into other, for want of a place";
        GATEWAY_UNKNOWN_CREDENTIALS = Counter "clerk_gateway_unknown_credentials_total" ["shape", "result"]
            "Requests whose credential is neither a configured key nor a caller's token, by what it looks like (secret_key_live, secret_key_test, machine_key, publishable_key, jwt, other or none), and whether they were forwarded or rejected (401)";
        UNSEEN = Gauge "clerk_ratelimit_unseen_requests" ["clerk_instance", "bucket"]
            "Requests of the last closed window that quota headers tell of and that were not seen here: use by others";
        CACHE_HITS = Counter "clerk_cache_hits_total" ["tier"]
            "Look-ups answered by this tier (memory or redis)";
        CACHE_MISSES = Counter "clerk_cache_misses_total" ["tier"]
            "Look-ups that this tier could not answer";
        CACHE_ERRORS = Counter "clerk_cache_errors_total" ["tier"]
            "Operations of this tier that failed";
        CACHE_ENTRIES = Gauge "clerk_cache_entries" []
            "Answers in memory";
        CACHE_BYTES = Gauge "clerk_cache_size_bytes" []
            "Size of the answers in memory, with keys and headers";
        CACHE_INVALIDATIONS = Counter "clerk_cache_invalidations_total" []
            "Invalidations that webhooks asked for, here and at other gateways";
        REDIS_REFUSED = Gauge "clerk_redis_refused" ["class"]
            "Whether Redis refuses operations now, for as long as that lasts. class is permission, credentials, out_of_memory, read_only, cannot_persist, unknown_command, cluster, too_few_replicas, protected_mode or other; absent without Redis";
        WEBHOOK_EVENTS = Counter "clerk_webhook_events_total" ["type", "result"]
            "Webhooks by family of events and by what became of them";
    }
    Client {
        CLIENT_REQUESTS = Counter "clerk_client_requests_total" ["clerk_instance"]
            "Requests that the application asked for";
        CLIENT_ATTEMPTS = Counter "clerk_client_attempts_total" ["clerk_instance"]
            "Attempts made of them; divided by the requests, this is the amplification by retries";
        CLIENT_RETRIES = Counter "clerk_client_retries_total" ["clerk_instance", "reason"]
            "Attempts beyond the first, by the error before them: reason is throttled, unavailable, connect_failed or no_response";
        CLIENT_RETRY_OUTCOMES = Counter "clerk_client_retry_outcomes_total" ["clerk_instance", "reason"]
            "Requests by why they were not retried: reason is final (a success, or an error that a retry would not change), not_retryable, max_attempts, wait_too_long, deadline or budget";
        CLIENT_SHED = Counter "clerk_client_shed_requests_total" ["clerk_instance", "reason"]
            "Requests that were not sent, to stay within the limit";
        CLIENT_QUEUE_DEPTH = Gauge "clerk_client_queue_depth" ["clerk_instance"]
            "Requests that wait for the limit";
        CLIENT_IN_FLIGHT = Gauge "clerk_client_in_flight_requests" ["clerk_instance"]
            "Requests that were sent and have no complete answer yet";
        CLIENT_BUDGET_SHARED = Gauge "clerk_client_budget_shared" ["clerk_instance"]
            "Whether the limit is shared with other processes (1), or each keeps to a part of it because they cannot be asked (0); absent where it is not to be shared";
        CLIENT_QUEUE_WAIT = Histogram "clerk_client_queue_wait_seconds" ["clerk_instance"]
            "How long requests that were sent had waited for the limit";
    }
}

/// The reference of all metrics, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\nMade from the program's own catalogue; do not edit by hand.\n\n\
         `clerk_instance` is the alias from the configuration, never a key or a part of one. `bucket` is one of Clerk's\n\
         budgets: `instance` for all requests without a budget of their own, the others as in Clerk's documentation.\n\
         Unknown values are absent, never 0. Counters of configured instances exist from the start, at 0.\n",
    );
    for (part, title) in PARTS {
        text.push_str(&format!("\n## {title}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n"));
        for family in ALL.iter().filter(|family| family.part == part) {
            let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let (name, kind, help) = (family.name, family.kind.as_str(), family.help);
            text.push_str(&format!("| `{name}` | {kind} | {labels} | {help}. |\n"));
        }
    }
    text
}

/// The parts and their titles in the reference.
const PARTS: [(MetricGroup, &str); 3] = [
    (MetricGroup::Exporter, "The exporter"),
    (MetricGroup::Gateway, "The gateway, where one is configured"),
    (MetricGroup::Client, "The client, in applications that hand its counters to `Metrics`"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_texts_need_no_escaping_and_names_are_unique() {
        let mut names = std::collections::BTreeSet::new();
        for family in ALL {
            assert!(names.insert(family.name), "{} is there twice", family.name);
            assert!(!family.help.contains(['\n', '\\', '"']) && !family.help.ends_with('.'), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            for label in family.labels {
                assert!(!matches!(*label, "job" | "instance" | "le" | "quantile" | "env"), "{label}");
            }
        }
    }
}
