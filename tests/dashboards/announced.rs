//! Metrics of parts that come after these dashboards: the gateway, its cache and its webhooks. A family leaves this list
//! when it comes into the catalogue, and has to be as it was announced here.

use clerk_exporter::metrics::catalogue::{Family, Kind, Part};

macro_rules! announced {
    ($($kind:ident $name:literal [$($label:literal),*];)*) => {
        /// All families that are announced and not there yet.
        pub(crate) const ANNOUNCED: &[Family] =
            &[$(Family { name: $name, kind: Kind::$kind, help: "", labels: &[$($label),*], part: Part::Exporter }),*];
    };
}

announced! {
    Counter "clerk_gateway_requests_total" ["clerk_instance", "caller", "route", "method", "code"];
    Histogram "clerk_gateway_request_duration_seconds" ["clerk_instance", "route"];
    Histogram "clerk_gateway_upstream_duration_seconds" ["clerk_instance", "route"];
    Counter "clerk_gateway_decisions_total" ["clerk_instance", "decision"];
    Counter "clerk_gateway_saved_requests_total" ["clerk_instance", "by"];
    Gauge "clerk_gateway_queue_depth" ["clerk_instance"];
    Histogram "clerk_gateway_queue_wait_seconds" ["clerk_instance"];
    Gauge "clerk_ratelimit_unseen_requests" ["clerk_instance", "bucket"];
    Counter "clerk_cache_hits_total" ["tier"];
    Counter "clerk_cache_misses_total" ["tier"];
    Counter "clerk_cache_errors_total" ["tier"];
    Counter "clerk_webhook_events_total" ["type", "result"];
}
