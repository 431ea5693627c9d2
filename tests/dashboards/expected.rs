//! Queries that may be empty with the demo, with the reason. All others must have results.

const SHORT: &str = "there for parts of a second, while a window of the demo is exhausted";
const NO_RULES: &str = "no alerting rules are loaded here";
const HEALTHY: &str = "the demo's Clerk does not refuse for want of a plan, nor send malformed headers";
const IDLE: &str = "probes wait while the gateway sees the traffic, and may miss the exhausted windows";
const NO_REDIS: &str = "the demo's gateway is alone";
const NOT_METERED: &str = "the demo's applications use neither API keys nor M2M tokens";
const NO_TRACES: &str = "the demo receives no traces";

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
    ("clerk-instance / Quota rejections (403) per minute A", HEALTHY),
    ("clerk-instance / Malformed quota headers per minute A", HEALTHY),
    ("clerk-instance / Firing alerts A", NO_RULES),
    ("clerk-instance / annotation Clerk alerts", NO_RULES),
    ("clerk-overview / Spans in traces, by result A", NO_TRACES),
    ("clerk-overview / Delay of spans A", NO_TRACES),
    ("clerk-overview / Delay of spans B", NO_TRACES),
    ("clerk-instance / Lowest in the last windows (from traces) A", NO_TRACES),
    ("clerk-instance / Metered operations by caller A", NOT_METERED),
    ("clerk-instance / Metered operations by caller B", NOT_METERED),
    ("clerk-instance / Metered operations by caller C", NOT_METERED),
    ("clerk-instance / Billing month, and its forecast A", NOT_METERED),
    ("clerk-instance / Billing month, and its forecast C", NOT_METERED),
    ("clerk-instance / Billing month, and its forecast D", NOT_METERED),
    ("clerk-instance / Billing month, and its forecast E", NOT_METERED),
    ("clerk-overview / Failed probes per minute A", IDLE),
    ("clerk-instance / Probes B", IDLE),
    ("clerk-gateway / Callers and routes D", HEALTHY),
    ("clerk-gateway / Webhook events per minute A", "the demo has no webhooks"),
    ("clerk-gateway / Budget shared A", NO_REDIS),
    ("clerk-gateway / Rejected by Redis A", NO_REDIS),
    ("clerk-gateway / annotation Clerk alerts", NO_RULES),
];

/// Queries about single processes, which have a series for each.
pub(super) const REPLICAS: &[&str] = &[
    "clerk-gateway / annotation Configuration reloads",
    "clerk-gateway / variable instance",
    "clerk-instance / Clock offset A",
    "clerk-instance / annotation Configuration reloads",
    "clerk-instance / variable instance",
    "clerk-overview / CPU time A",
    "clerk-overview / Delay of spans A",
    "clerk-overview / Delay of spans B",
    "clerk-overview / Exporters A",
    "clerk-overview / Exporters B",
    "clerk-overview / Exporters C",
    "clerk-overview / Exporters D",
    "clerk-overview / Exporters E",
    "clerk-overview / Memory A",
    "clerk-overview / annotation Configuration reloads",
    "clerk-overview / variable instance",
];

/// The reason why this query may be empty.
pub(super) fn empty(place: &str) -> Option<&'static str> {
    EMPTY.iter().find(|(listed, _)| *listed == place).map(|(_, reason)| *reason)
}
