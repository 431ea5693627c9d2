//! Queries that may have no result over the demo, with the reason. Everything else has to show something.

const SHORT: &str = "there for parts of a second, while a window of the demo is exhausted";
const NO_RULES: &str = "no alerting rules are loaded here";
const HEALTHY: &str = "the demo's Clerk does not refuse for want of a plan, nor send malformed headers";
const IDLE: &str = "probes wait while the gateway sees the traffic, and may miss the exhausted windows";

const ANNOUNCED: &str = "the program does not count this yet: tests/common/announced.rs";

/// Place and reason.
pub(super) const EMPTY: &[(&str, &str)] = &[
    ("clerk-overview / Buckets by headroom G", SHORT),
    ("clerk-overview / Buckets by headroom H", SHORT),
    ("clerk-overview / Firing alerts A", NO_RULES),
    ("clerk-overview / annotation Clerk alerts", NO_RULES),
    ("clerk-instance / Exhausted in A", SHORT),
    ("clerk-instance / Blocked for A", SHORT),
    ("clerk-instance / Buckets J", SHORT),
    ("clerk-instance / Blocked for, exhausted in A", SHORT),
    ("clerk-instance / Blocked for, exhausted in B", SHORT),
    ("clerk-instance / Refusals (403) per minute A", HEALTHY),
    ("clerk-instance / Malformed quota headers per minute A", HEALTHY),
    ("clerk-instance / Firing alerts A", NO_RULES),
    ("clerk-instance / annotation Clerk alerts", NO_RULES),
    ("clerk-overview / Failed probes per minute A", IDLE),
    ("clerk-instance / Probes B", IDLE),
    ("clerk-overview / Who spends it A", ANNOUNCED),
    ("clerk-overview / Who spends it B", ANNOUNCED),
    ("clerk-overview / Who spends it C", ANNOUNCED),
    ("clerk-overview / Who spends it D", ANNOUNCED),
    ("clerk-instance / Who spends it A", ANNOUNCED),
    ("clerk-instance / Who spends it B", ANNOUNCED),
    ("clerk-instance / Who spends it C", ANNOUNCED),
    ("clerk-instance / Who spends it D", ANNOUNCED),
    ("clerk-gateway / Top routes A", ANNOUNCED),
    ("clerk-gateway / Top callers A", ANNOUNCED),
    ("clerk-gateway / Spent in a minute, by route A", ANNOUNCED),
    ("clerk-gateway / Spent in a minute, by caller A", ANNOUNCED),
    ("clerk-gateway / Callers and routes A", ANNOUNCED),
    ("clerk-gateway / Callers and routes B", ANNOUNCED),
    ("clerk-gateway / Callers and routes C", ANNOUNCED),
    ("clerk-gateway / Callers and routes D", HEALTHY),
    ("clerk-gateway / Policies A", ANNOUNCED),
    ("clerk-gateway / Retries for each request A", ANNOUNCED),
    ("clerk-gateway / Webhook events per minute A", "the demo has no webhooks"),
    ("clerk-gateway / annotation Clerk alerts", NO_RULES),
];

/// The reason why this query may be empty.
pub(super) fn empty(place: &str) -> Option<&'static str> {
    EMPTY.iter().find(|(listed, _)| *listed == place).map(|(_, reason)| *reason)
}
