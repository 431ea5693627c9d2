//! Metrics of the client library's queue and retries.

use std::sync::Arc;

use clerk_client::outbound::{ApiRequest, RequestOptions};
use clerk_exporter::metrics::{ConfigStatus, Format, Metrics};
use clerk_quota::Source;
use clerk_simulator::{Fault, FaultBody, Faults};
use clerk_test_support::World;

#[tokio::test(start_paused = true)]
async fn client_stats_are_exposed_as_metrics() {
    let world = World::new(clerk_test_support::simulator(1));
    let unavailable = Fault::Status { status: 503, body: FaultBody::Clerk };
    world.simulator.set_faults(Faults::from(unavailable.times(1))).unwrap();
    world.outbound.send(&ApiRequest::get("/v1/users/count", Source::Client), &RequestOptions::default()).await.unwrap();
    let clock = Arc::clone(&world.outbound.clock);
    let status = Arc::new(ConfigStatus::new(clock.now(), 0.1));
    let metrics = Metrics::new(Arc::clone(&world.ledger), clock, status);
    let text = |metrics: &Metrics| metrics.expose(Format::Text).unwrap().collect::<Result<String, _>>().unwrap();
    let shown = |line: &str| text(&metrics).lines().any(|it| it == line);
    assert!(!shown("clerk_client_requests_total{clerk_instance=\"test\"} 1"), "only registered clients are shown");
    metrics.show_clients([("test".into(), Arc::clone(&world.outbound.limits))]);
    for line in [
        "clerk_client_requests_total{clerk_instance=\"test\"} 1",
        "clerk_client_attempts_total{clerk_instance=\"test\"} 2",
        "clerk_client_retries_total{clerk_instance=\"test\",reason=\"unavailable\"} 1",
        "clerk_client_retries_total{clerk_instance=\"test\",reason=\"throttled\"} 0",
        "clerk_client_retry_outcomes_total{clerk_instance=\"test\",reason=\"final\"} 1",
        "clerk_client_retries_total{clerk_instance=\"test\",reason=\"connect_failed\"} 0",
        "clerk_client_retries_total{clerk_instance=\"test\",reason=\"no_response\"} 0",
        "clerk_client_retry_outcomes_total{clerk_instance=\"test\",reason=\"not_retryable\"} 0",
        "clerk_client_retry_outcomes_total{clerk_instance=\"test\",reason=\"max_attempts\"} 0",
        "clerk_client_shed_requests_total{clerk_instance=\"test\",reason=\"queue_full\"} 0",
        "clerk_client_queue_depth{clerk_instance=\"test\"} 0",
        "clerk_client_in_flight_requests{clerk_instance=\"test\"} 0",
        "clerk_client_queue_wait_seconds_count{clerk_instance=\"test\"} 2",
    ] {
        assert!(shown(line), "{line}\n{}", text(&metrics));
    }
}
