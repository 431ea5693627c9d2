//! Every metric's name, type, help text and labels. `docs/metrics.md` is generated from it; a test compares them.
//!
//! The OpenMetrics encoder writes help texts without escaping them: they must not contain quotes, backslashes or line
//! breaks. It adds the final full stop.

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only increases; its name ends in `_total` (or it is a process metric).
    Counter,
    /// Increases and decreases; absent if the value is unknown.
    Gauge,
    /// A classic histogram.
    Histogram,
}

impl Kind {
    /// The type name in the exposition formats.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The part of the program that exposes a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricGroup {
    /// The exporter; always present.
    Exporter,
    /// The gateway, if configured.
    Gateway,
    /// The receiver of traces, if configured.
    Telemetry,
    /// The client library, in applications that expose its metrics.
    Client,
}

/// One metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricFamily {
    /// The exposed name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The help text.
    pub help: &'static str,
    /// The label names.
    pub labels: &'static [&'static str],
    /// The part that exposes it.
    pub part: MetricGroup,
}

macro_rules! families {
    ($($part:ident { $($ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)* })*) => {
        $($(
            #[doc = $help]
            pub const $ident: MetricFamily =
                MetricFamily { name: $name, kind: Kind::$kind, help: $help, labels: &[$($label),*], part: MetricGroup::$part };
        )*)*

        /// All families, in exposition order.
        pub const ALL: &[MetricFamily] = &[$($($ident),*),*];
    };
}

families! {
    Exporter {
        UP = Gauge "clerk_up" ["clerk_instance"]
            "Whether the last request to Clerk got a usable response (1) or not (0); a 429 counts as usable; absent before the first response";
        KEY_VALID = Gauge "clerk_key_valid" ["clerk_instance"]
            "Whether Clerk accepts the secret key (1) or not (0); absent until known";
        INSTANCE_INFO = Gauge "clerk_instance_info" ["clerk_instance", "environment", "api_host"]
            "Always 1; labels name the environment (production, development or unknown) and the host of the Backend API";
        TROUBLE_INFO = Gauge "clerk_trouble_info" ["clerk_instance", "trouble"]
            "Always 1; trouble is why requests fail now: key (Clerk rejects it), network (Clerk is unreachable from here), clerk (Clerk is failing) or throttled; absent while requests succeed";
        LIMIT = Gauge "clerk_ratelimit_limit" ["clerk_instance", "bucket"]
            "Requests that the bucket allows per window";
        REMAINING = Gauge "clerk_ratelimit_remaining" ["clerk_instance", "bucket"]
            "Remaining requests in the window, from Clerk's headers or counted (see clerk_ratelimit_basis_info); 0 while a 429 blocks; absent if unknown or outdated";
        RESET_TIMESTAMP = Gauge "clerk_ratelimit_reset_timestamp_seconds" ["clerk_instance", "bucket"]
            "UNIX time in seconds at which the window resets, from the newest response";
        WINDOW = Gauge "clerk_ratelimit_window_seconds" ["clerk_instance", "bucket"]
            "Length of the window in seconds";
        BASIS_INFO = Gauge "clerk_ratelimit_basis_info" ["clerk_instance", "bucket", "basis"]
            "Always 1; basis is the source of the numbers: headers (sent by Clerk), gateway, client or mixed (limit minus the requests counted there: an upper bound of the remaining quota), telemetry (requests counted in traces, for windows only), sampled (traces are a sample: the usage is unknown), probe (only probes are counted: the usage is unknown) or configured (only the limit is known)";
        SAMPLE_TIMESTAMP = Gauge "clerk_ratelimit_sample_timestamp_seconds" ["clerk_instance", "bucket"]
            "UNIX time in seconds of the newest observation";
        USAGE_PEAK = Gauge "clerk_ratelimit_usage_peak_ratio" ["clerk_instance", "bucket"]
            "Highest used share of the limit in the last 60 s, from 0 to 1; absent if the usage is unknown";
        WINDOW_USAGE = Histogram "clerk_ratelimit_window_usage_ratio" ["clerk_instance", "bucket"]
            "Closed windows by their highest used share of the limit, from 0 to 1; only windows whose usage is known";
        WINDOWS = Counter "clerk_ratelimit_windows_total" ["clerk_instance", "bucket"]
            "Windows closed with at least one observation, whether or not the usage is known";
        LOW_WINDOWS = Counter "clerk_ratelimit_low_windows_total" ["clerk_instance", "bucket"]
            "Closed windows in which the remaining quota fell below the low threshold, or which had a 429";
        EXHAUSTED_WINDOWS = Counter "clerk_ratelimit_exhausted_windows_total" ["clerk_instance", "bucket"]
            "Closed windows in which the quota was exhausted, or which had a 429";
        LOW_THRESHOLD = Gauge "clerk_ratelimit_low_threshold_ratio" []
            "Configured share of the limit below which a window counts as low, from 0 to 1";
        THROTTLED = Counter "clerk_ratelimit_throttled_responses_total" ["clerk_instance", "bucket", "source"]
            "Responses of Clerk with status 429";
        BLOCKED_UNTIL = Gauge "clerk_ratelimit_blocked_until_timestamp_seconds" ["clerk_instance", "bucket"]
            "UNIX time in seconds at which the current Retry-After ends; absent if not blocked";
        SECONDS_TO_EXHAUSTION = Gauge "clerk_ratelimit_seconds_to_exhaustion" ["clerk_instance", "bucket"]
            "Seconds until the quota is exhausted at the current request rate; absent unless that is before the reset, or within one window if requests are counted";
        SPENT = Counter "clerk_ratelimit_requests_total" ["clerk_instance", "bucket", "caller", "route", "method", "source", "result"]
            "Requests sent to Clerk that it may have counted, including retries, by caller and route; result is served, refused (429) or unknown (no response)";
        METERED_OPERATIONS = Counter "clerk_metered_operations_total" ["clerk_instance", "operation", "caller", "source"]
            "Operations that Clerk may have billed, at most: api_key_verify, api_key_create, m2m_verify or m2m_create; includes failed ones and those without a response, except 401 and 429";
        METERED_FREE = Gauge "clerk_metered_free_operations" ["clerk_instance", "operation"]
            "Operations of a billing month that cost nothing, from the configuration; by default as Clerk published them";
        METERED_PRICE = Gauge "clerk_metered_operation_price_usd" ["clerk_instance", "operation"]
            "Price in USD of each further operation, from the configuration; by default as Clerk published it";
        METERED_MONTH = Gauge "clerk_metered_month_operations" ["clerk_instance", "operation"]
            "Operations of the current billing month that Clerk may have billed, at most, also before a restart; with Redis, those of all gateways; absent without a state folder and without Redis, and while Redis is unreachable";
        METERED_MONTH_START = Gauge "clerk_metered_month_start_timestamp_seconds" ["clerk_instance"]
            "From when the operations of the month are counted: the start of the billing month, or later if they were not kept before; absent like them";
        METERED_MONTH_END = Gauge "clerk_metered_month_end_timestamp_seconds" ["clerk_instance"]
            "End of the current billing month; absent like its operations";
        HEADER_ERRORS = Counter "clerk_ratelimit_header_errors_total" ["clerk_instance", "error"]
            "Malformed or contradictory quota headers in responses of Clerk";
        QUOTA_EXCEEDED = Counter "clerk_quota_exceeded_total" ["clerk_instance", "code"]
            "Responses of Clerk with status 403 because a quota of the subscription plan is exhausted";
        USERS = Gauge "clerk_users" ["clerk_instance"]
            "Users of the instance; counted on a separate schedule";
        USERS_ACTIVE_30D = Gauge "clerk_users_active_30d" ["clerk_instance"]
            "Users active in the last 30 days; counted on a separate schedule";
        USERS_LIMIT = Gauge "clerk_users_limit" ["clerk_instance"]
            "Configured maximum number of users";
        RESPONSES = Counter "clerk_responses_total" ["clerk_instance", "source", "code"]
            "Responses of Clerk by HTTP status";
        PROBES = Counter "clerk_probes_total" ["clerk_instance"]
            "Probes sent";
        PROBE_FAILURES = Counter "clerk_probe_failures_total" ["clerk_instance", "reason"]
            "Failed probes by reason";
        PROBES_SKIPPED = Counter "clerk_probes_skipped_total" ["clerk_instance", "reason"]
            "Due probes that were skipped, by reason";
        PROBE_DURATION = Histogram "clerk_probe_duration_seconds" ["clerk_instance"]
            "Duration of probes in seconds, including failed ones";
        PROBE_LAST_SUCCESS = Gauge "clerk_probe_last_success_timestamp_seconds" ["clerk_instance"]
            "UNIX time in seconds of the last successful probe";
        CLOCK_OFFSET = Gauge "clerk_clock_offset_seconds" ["clerk_instance"]
            "Clerk's clock, from the Date header, minus the local clock, in seconds; accurate to half a second";
        BUILD_INFO = Gauge "clerk_exporter_build_info" ["version", "revision", "rustversion"]
            "Always 1; labels describe the build";
        CONFIG_RELOAD_SUCCESSFUL = Gauge "clerk_exporter_config_last_reload_successful" []
            "Whether the last attempt to load the configuration succeeded (1) or failed (0)";
        CONFIG_RELOAD_TIMESTAMP = Gauge "clerk_exporter_config_last_reload_success_timestamp_seconds" []
            "UNIX time in seconds of the last successful load of the configuration";
        FILE_RELOAD_FAILURES = Counter "clerk_exporter_file_reload_failures_total" ["kind"]
            "Failed attempts to reload a file, including retries; the previous content stays in use. kind is config, secret_key, caller_token, web_config, tls_certificate, client_ca, ca_file, signing_secret or encryption_key";
        FILE_RELOAD_TIMESTAMP = Gauge "clerk_exporter_file_reload_success_timestamp_seconds" ["kind"]
            "UNIX time in seconds at which a file of this kind was last read successfully; absent without such a file";
        PROBE_LEASES = Gauge "clerk_exporter_probe_leases" ["state"]
            "Instances that one of several exporters probes (probe.lease), by what this one does: held (it probes), standby (another one probes, and this one has no series of the instance) or alone (it probes because Redis does not answer); absent without a lease";
        TASKS = Gauge "clerk_exporter_tasks" []
            "Live tasks of the async runtime: connections, probes, file watchers and others";
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
            "Requests to the gateway; route is a template of the Backend API or other; code is the response status, or 499 if the client disconnected first";
        GATEWAY_DURATION = Histogram "clerk_gateway_request_duration_seconds" ["clerk_instance", "route"]
            "Seconds from the request head to the end of the response";
        GATEWAY_UPSTREAM_DURATION = Histogram "clerk_gateway_upstream_duration_seconds" ["clerk_instance", "route"]
            "Seconds from the start of the last attempt to the head of Clerk's response";
        GATEWAY_DECISIONS = Counter "clerk_gateway_decisions_total" ["clerk_instance", "decision"]
            "Requests by outcome: forwarded, queued, retried, cache_hit, stale, coalesced, batched, shed, rejected, failed or abandoned";
        GATEWAY_SHED = Counter "clerk_gateway_shed_total" ["clerk_instance", "priority", "reason"]
            "Requests shed by the gateway, by the priority of the caller (high or low) and by reason: queue_full or wait_too_long (the limit is used up), caller_cap (the caller has used its own share) or caller_paused (by an operator)";
        GATEWAY_GUARANTEE = Gauge "clerk_gateway_caller_guarantee_requests" ["clerk_instance", "caller"]
            "Requests per window of the instance's bucket that are guaranteed to the caller; absent without a guarantee, or if no limit is known";
        GATEWAY_CAP = Gauge "clerk_gateway_caller_cap_requests" ["clerk_instance", "caller"]
            "Largest number of requests of the caller in any period of one window of the instance's bucket, 0 while it is paused; absent without a cap, or if no limit is known";
        GATEWAY_OVERRIDE_END = Gauge "clerk_gateway_caller_override_end_timestamp_seconds" ["clerk_instance", "caller", "action"]
            "UNIX time in seconds at which an operator's override of the caller ends; action is pause or cap; absent without one";
        GATEWAY_SHADOW_DECISIONS = Counter "clerk_gateway_shadow_decisions_total" ["clerk_instance", "decision"]
            "Requests by the outcome they would have had if the policies in shadow mode were on";
        GATEWAY_SAVED = Counter "clerk_gateway_saved_requests_total" ["clerk_instance", "by"]
            "Requests to Clerk that a policy saved";
        GATEWAY_QUEUE_DEPTH = Gauge "clerk_gateway_queue_depth" ["clerk_instance"]
            "Requests waiting in the limiter's queue";
        GATEWAY_QUEUE_WAIT = Histogram "clerk_gateway_queue_wait_seconds" ["clerk_instance"]
            "Seconds that requests spent queued before they were sent";
        GATEWAY_BUDGET_SHARED = Gauge "clerk_gateway_budget_shared" ["clerk_instance"]
            "Whether the limit is shared with other gateways through Redis (1), or each gateway uses a fixed part of it because Redis is unreachable (0); absent without Redis";
        GATEWAY_POLICY_INFO = Gauge "clerk_gateway_policy_info" ["clerk_instance", "policy", "mode"]
            "Always 1; mode (off, shadow or on) of each policy, for routes without their own";
        GATEWAY_DROPPED = Counter "clerk_gateway_dropped_series_total" ["label"]
            "Requests whose label value was replaced by other because the series limit was reached";
        GATEWAY_UNKNOWN_CREDENTIALS = Counter "clerk_gateway_unknown_credentials_total" ["shape", "result"]
            "Requests whose credential is neither a configured key nor a caller token, by its shape (secret_key_live, secret_key_test, machine_key, publishable_key, jwt, other or none) and by result: forwarded or rejected (401)";
        GATEWAY_ACCESS_LOG = Counter "clerk_gateway_access_log_lines_total" ["result"]
            "Lines of the access log: written, or lost because the file could not be written or not fast enough; absent without an access log";
        GATEWAY_SPANS = Counter "clerk_gateway_spans_total" ["result"]
            "Spans of the gateway's requests: sent, failed because the collector did not accept them, or dropped because too many waited for it; absent if the gateway sends none";
        UNSEEN = Gauge "clerk_ratelimit_unseen_requests" ["clerk_instance", "bucket"]
            "Requests in the last closed window that quota headers report but that did not pass through here: usage by other clients";
        CACHE_HITS = Counter "clerk_cache_hits_total" ["tier"]
            "Cache lookups answered by this tier (memory or redis)";
        CACHE_MISSES = Counter "clerk_cache_misses_total" ["tier"]
            "Cache lookups that this tier could not answer";
        CACHE_ERRORS = Counter "clerk_cache_errors_total" ["tier"]
            "Failed operations of this cache tier";
        CACHE_ENTRIES = Gauge "clerk_cache_entries" []
            "Responses in the memory cache";
        CACHE_BYTES = Gauge "clerk_cache_size_bytes" []
            "Size of the responses in the memory cache in bytes, including keys and headers";
        CACHE_INVALIDATIONS = Counter "clerk_cache_invalidations_total" []
            "Cache invalidations, from this gateway and from others";
        REDIS_REFUSED = Gauge "clerk_redis_refused" ["class"]
            "Whether Redis currently rejects operations (1) or not (0). class is permission, credentials, out_of_memory, read_only, cannot_persist, unknown_command, cluster, too_few_replicas, protected_mode or other; absent without Redis";
        WEBHOOK_EVENTS = Counter "clerk_webhook_events_total" ["type", "result"]
            "Webhook deliveries by event type and result";
    }
    Telemetry {
        TELEMETRY_SPANS = Counter "clerk_telemetry_spans_total" ["result"]
            "Received spans by result: accepted (counted), late, future or dropped (counted, but in no window), other_host, other_kind, nested (another span of the same call counts), own (of this program), duplicate, unattributed (of no configured instance) or malformed";
        TELEMETRY_REFUSED = Counter "clerk_telemetry_refused_requests_total" ["reason"]
            "Trace requests that were refused as a whole: reason is invalid (400), too_large (413), unsupported (415) or overloaded (503)";
        TELEMETRY_DELAY = Histogram "clerk_telemetry_span_delay_seconds" []
            "Seconds from the end of a call to the arrival of its span";
        TELEMETRY_COMPLETE = Gauge "clerk_telemetry_complete" ["clerk_instance"]
            "Whether the configuration states that all callers of the instance send spans (1); otherwise windows and peaks count at least what was used (0)";
        TELEMETRY_AT_MOST = Counter "clerk_telemetry_uncertain_spans_total" []
            "Counted spans of the fetch of Next.js, whose cache may have answered: Clerk saw at most these";
        TELEMETRY_FORGOTTEN = Counter "clerk_telemetry_forgotten_total" ["what"]
            "Entries that were forgotten because memory is bounded: what is span (a repeated one counts twice) or sender (its clock is not corrected)";
        TELEMETRY_DROPPED_CALLERS = Counter "clerk_telemetry_dropped_callers_total" []
            "Calls whose caller became other because its name was invalid or the limit on names was reached";
    }
    Client {
        CLIENT_REQUESTS = Counter "clerk_client_requests_total" ["clerk_instance"]
            "Requests made by the application";
        CLIENT_ATTEMPTS = Counter "clerk_client_attempts_total" ["clerk_instance"]
            "Attempts for these requests; attempts divided by requests is the amplification by retries";
        CLIENT_RETRIES = Counter "clerk_client_retries_total" ["clerk_instance", "reason"]
            "Attempts beyond the first, by the error before them: reason is throttled, unavailable, connect_failed or no_response";
        CLIENT_RETRY_OUTCOMES = Counter "clerk_client_retry_outcomes_total" ["clerk_instance", "reason"]
            "Requests by why they were not retried: reason is final (a success, or an error that a retry would not change), not_retryable, max_attempts, wait_too_long, deadline or budget";
        CLIENT_SHED = Counter "clerk_client_shed_requests_total" ["clerk_instance", "reason"]
            "Requests that were shed, to stay within the limit, by reason: queue_full, wait_too_long, caller_cap or caller_paused";
        CLIENT_QUEUE_DEPTH = Gauge "clerk_client_queue_depth" ["clerk_instance"]
            "Requests waiting in the limiter's queue";
        CLIENT_IN_FLIGHT = Gauge "clerk_client_in_flight_requests" ["clerk_instance"]
            "Requests sent that have no complete response yet";
        CLIENT_BUDGET_SHARED = Gauge "clerk_client_budget_shared" ["clerk_instance"]
            "Whether the limit is shared with other processes (1), or each process uses a fixed part of it because the shared store is unreachable (0); absent if sharing is off";
        CLIENT_QUEUE_WAIT = Histogram "clerk_client_queue_wait_seconds" ["clerk_instance"]
            "Seconds that requests spent queued before they were sent";
    }
}

/// Returns the reference of all metrics as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\nGenerated from the program's metric catalogue; do not edit.\n\n\
         `clerk_instance` is the alias from the configuration, never a key or a part of one. `bucket` is one of Clerk's\n\
         limits: `instance` for all requests without a separate limit, the others as in Clerk's documentation.\n\
         Unknown values are absent, never 0. Counters of configured instances exist from the start, at 0; those by caller\n\
         or route, and those of webhooks, start with their first event.\n",
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
const PARTS: [(MetricGroup, &str); 4] = [
    (MetricGroup::Exporter, "The exporter"),
    (MetricGroup::Gateway, "The gateway, if configured"),
    (MetricGroup::Telemetry, "Traces, if configured"),
    (MetricGroup::Client, "The client library, in applications that pass its counters to `Metrics`"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_texts_need_no_escaping_and_names_are_unique() {
        let mut names = std::collections::BTreeSet::new();
        for family in ALL {
            assert!(names.insert(family.name), "{} is duplicated", family.name);
            assert!(!family.help.contains(['\n', '\\', '"']) && !family.help.ends_with('.'), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            for label in family.labels {
                assert!(!matches!(*label, "job" | "instance" | "le" | "quantile" | "env"), "{label}");
            }
        }
    }
}
