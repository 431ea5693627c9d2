//! Metrics that rules and dashboards rely on before the exporter's catalogue has them. One that is in the catalogue is
//! taken from there.

use clerk_exporter::metrics::catalogue::{self, Kind, MetricFamily, MetricGroup};

const REQUESTS: MetricFamily = MetricFamily {
    name: "clerk_ratelimit_requests_total",
    kind: Kind::Counter,
    help: "Attempts that Clerk may have counted, by who made them",
    labels: &["clerk_instance", "bucket", "caller", "route", "method", "source", "result"],
    part: MetricGroup::Exporter,
};

const POLICIES: MetricFamily = MetricFamily {
    name: "clerk_gateway_policy_info",
    kind: Kind::Gauge,
    help: "Always 1; the mode of each policy of the gateway",
    labels: &["clerk_instance", "policy", "mode"],
    part: MetricGroup::Gateway,
};

/// All metrics that rules and dashboards may name.
pub(crate) fn families() -> impl Iterator<Item = &'static MetricFamily> {
    let announced = [&REQUESTS, &POLICIES].into_iter();
    let announced = announced.filter(|new| catalogue::ALL.iter().all(|family| family.name != new.name));
    catalogue::ALL.iter().chain(announced)
}
