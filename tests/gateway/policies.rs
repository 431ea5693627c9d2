//! Policies off, in shadow mode, and on: in simulated time against a simulated Clerk.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter;
use clerk_client::transport::{MemoryTransport, Transport};
use clerk_exporter::gateway::{Decision, InstancePolicies, Mode, RoutePolicies};
use clerk_simulator::{Fault, FaultBody, Simulator};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Setup, World};
use clerk_test_support::KEY;

struct Played {
    world: World,
    simulator: Simulator,
}

impl Played {
    fn new(policies: RoutePolicies, max_queue_wait: Duration) -> Self {
        Self::paced(policies, max_queue_wait, None)
    }

    fn paced(policies: RoutePolicies, max_queue_wait: Duration, pace: Option<limiter::LimiterOptions>) -> Self {
        let simulator = Simulator::new(clerk_test_support::simulator(1));
        let upstream: Arc<dyn Transport> = MemoryTransport::new(simulator.router());
        let plan = InstancePolicies { policies, max_queue_wait, ..InstancePolicies::default() };
        let world = World::new(&upstream, "http://clerk.test", Setup { plan, pace, ..Setup::default() });
        Self { world, simulator }
    }

    /// Status, headers and body of a response.
    async fn send(&self, method: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::builder()
            .method(method)
            .uri("/v1/users/count")
            .header("host", "gateway")
            .header("authorization", format!("Bearer {KEY}"))
            .body(Full::new(bytes::Bytes::new()))
            .unwrap();
        let (head, body) = self.world.gateway.handle(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    fn sent(&self) -> u64 {
        self.simulator.truth().requests.total
    }
}

fn retry(switch: Mode) -> RoutePolicies {
    RoutePolicies { retry: switch, ..RoutePolicies::default() }
}

fn pace(switch: Mode) -> RoutePolicies {
    RoutePolicies { pace: switch, ..RoutePolicies::default() }
}

fn throttled() -> Fault {
    Fault::Throttled { retry_after: Some("3".to_owned()), body: FaultBody::Clerk }
}

#[tokio::test(start_paused = true)]
async fn all_policies_off_forward_a_429_without_delay() {
    let played = Played::new(RoutePolicies::default(), Duration::ZERO);
    played.simulator.set_faults(throttled().times(1).into()).unwrap();
    let from = Instant::now();
    let (status, headers, _) = played.send("GET").await;
    assert_eq!((status.as_u16(), &headers["retry-after"]), (429, &"3".parse().unwrap()));
    // Its Retry-After delays nothing: pacing is off.
    assert_eq!(played.send("GET").await.0, 200);
    assert!(from.elapsed() < Duration::from_secs(1));
    assert_eq!(played.sent(), 2);
}

#[tokio::test(start_paused = true)]
async fn retry_follows_retry_after_and_reports_attempts() {
    let played = Played::new(retry(Mode::On), Duration::ZERO);
    played.simulator.set_faults(throttled().times(1).into()).unwrap();
    let from = Instant::now();
    let (status, headers, _) = played.send("GET").await;
    assert_eq!(status, 200);
    assert!(from.elapsed() >= Duration::from_secs(3));
    assert_eq!(
        (&headers["x-clerk-exporter-attempts"], &headers["x-clerk-exporter-decision"]),
        (&"2".parse().unwrap(), &"retried".parse().unwrap())
    );
    assert_eq!(headers.get("x-clerk-exporter-waited-ms"), None);
    assert_eq!(played.world.numbers().decisions[Decision::Retried.index()], 1);
}

#[tokio::test(start_paused = true)]
async fn writes_are_not_retried() {
    let played = Played::new(retry(Mode::On), Duration::ZERO);
    played.simulator.set_faults(throttled().always().into()).unwrap();
    assert_eq!(played.send("POST").await.0, 429);
    assert_eq!(played.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn retry_in_shadow_is_counted_and_changes_nothing() {
    let played = Played::new(retry(Mode::Shadow), Duration::ZERO);
    played.simulator.set_faults(throttled().times(1).into()).unwrap();
    let (status, headers, _) = played.send("GET").await;
    assert_eq!((status.as_u16(), headers.get("x-clerk-exporter-decision")), (429, None));
    played.send("GET").await;
    let numbers = played.world.numbers();
    assert_eq!(numbers.shadowed[Decision::Retried.index()], 1);
    assert_eq!(numbers.decisions[Decision::Forwarded.index()], 2);
}

/// 130 requests at once, of which 100 are allowed in 10 seconds: how many got which status.
async fn burst(played: &Arc<Played>) -> (usize, Vec<(StatusCode, HeaderMap, String)>) {
    let mut tasks = JoinSet::new();
    for _ in 0..130 {
        let played = Arc::clone(played);
        tasks.spawn(async move { played.send("GET").await });
    }
    let answers = tasks.join_all().await;
    let good = answers.iter().filter(|(status, ..)| *status == 200).count();
    let others = answers.into_iter().filter(|(status, ..)| *status != 200).collect();
    (good, others)
}

#[tokio::test(start_paused = true)]
async fn pacing_sends_all_requests_without_a_429() {
    let played = Arc::new(Played::new(pace(Mode::On), Duration::from_secs(30)));
    let from = Instant::now();
    let (good, others) = burst(&played).await;
    assert_eq!((good, others.len()), (130, 0));
    assert!(from.elapsed() >= Duration::from_secs(9));
    assert_eq!(played.simulator.truth().requests.total, 130, "no request was rejected");
    let numbers = played.world.numbers();
    assert!(numbers.decisions[Decision::Queued.index()] >= 30);
    assert_eq!(numbers.decisions[Decision::Shed.index()], 0);
}

#[tokio::test(start_paused = true)]
async fn request_exceeding_max_wait_is_shed_immediately() {
    let played = Arc::new(Played::new(pace(Mode::On), Duration::from_secs(1)));
    let from = Instant::now();
    let (good, others) = burst(&played).await;
    assert_eq!((good, others.len()), (100, 30));
    assert!(from.elapsed() < Duration::from_secs(2));
    for (status, headers, body) in &others {
        assert_eq!((status.as_u16(), &headers["x-clerk-exporter-decision"]), (429, &"shed".parse().unwrap()));
        let seconds: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["errors"][0]["code"], "too_many_requests");
    }
    assert_eq!(played.sent(), 100);
    assert_eq!(played.world.numbers().decisions[Decision::Shed.index()], 30);
}

#[tokio::test(start_paused = true)]
async fn pacing_in_shadow_is_counted_and_changes_nothing() {
    let played = Arc::new(Played::new(pace(Mode::Shadow), Duration::from_secs(30)));
    let (good, others) = burst(&played).await;
    assert_eq!((good, others.len()), (100, 30));
    assert!(
        others.iter().all(|(status, headers, _)| *status == 429 && !headers.contains_key("x-clerk-exporter-decision"))
    );
    assert!(played.world.numbers().shadowed[Decision::Queued.index()] >= 30);
}

/// Two bursts some time apart, larger than the in-flight limit. Returns the decisions, or the shadow decisions.
async fn decided(mode: Mode, max_wait: Duration) -> [u64; 2] {
    let played = Arc::new(Played::new(pace(mode), max_wait));
    played.simulator.set_faults(Fault::Latency { millis: 60 }.always().into()).unwrap();
    for _ in 0..2 {
        burst(&played).await;
        tokio::time::sleep(Duration::from_secs(40)).await;
    }
    let numbers = played.world.numbers();
    let counts = if mode == Mode::On { numbers.decisions } else { numbers.shadowed };
    [Decision::Queued, Decision::Shed].map(|decision| counts[decision.index()])
}

#[tokio::test(start_paused = true)]
async fn shadow_pacing_counts_match_real_pacing() {
    for (seconds, expected) in [(1, [0, 60]), (30, [60, 0])] {
        let max_wait = Duration::from_secs(seconds);
        assert_eq!(decided(Mode::On, max_wait).await, expected);
        assert_eq!(decided(Mode::Shadow, max_wait).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn queue_wait_is_reported_in_milliseconds() {
    let played = Arc::new(Played::new(pace(Mode::On), Duration::from_secs(30)));
    burst(&played).await;
    let (status, headers, _) = played.send("GET").await;
    assert_eq!(status, 200);
    if let Some(waited) = headers.get("x-clerk-exporter-waited-ms") {
        assert!(waited.to_str().unwrap().parse::<u64>().is_ok());
        assert_eq!(headers["x-clerk-exporter-decision"], "queued");
    }
}

#[tokio::test(start_paused = true)]
async fn stored_fallback_response_takes_no_in_flight_slot() {
    for body in [FaultBody::Clerk, FaultBody::Html, FaultBody::Empty] {
        let both = RoutePolicies { retry: Mode::On, pace: Mode::On, ..RoutePolicies::default() };
        let alone = limiter::LimiterOptions::default().max_in_flight(1);
        let played = Played::paced(both, Duration::from_secs(30), Some(alone));
        let fault = Fault::Throttled { retry_after: Some("2".to_owned()), body };
        played.simulator.set_faults(fault.times(2).into()).unwrap();
        let (status, headers, _) = played.send("GET").await;
        assert_eq!((status.as_u16(), &headers["x-clerk-exporter-attempts"]), (200, &"3".parse().unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn last_429_is_forwarded_when_the_deadline_forbids_a_retry() {
    let both = RoutePolicies { retry: Mode::On, pace: Mode::On, ..RoutePolicies::default() };
    let played = Played::new(both, Duration::from_secs(1));
    let fault = Fault::Throttled { retry_after: Some("600".to_owned()), body: FaultBody::Clerk };
    played.simulator.set_faults(fault.always().into()).unwrap();
    let (status, headers, body) = played.send("GET").await;
    assert_eq!((status.as_u16(), &headers["retry-after"]), (429, &"600".parse().unwrap()));
    assert!(body.contains("too_many_requests"), "{body}");
    assert_eq!(headers.get("x-clerk-exporter-decision"), None, "Clerk's own answer, first time");
    // Others wait no longer than allowed, and then get a response of the gateway.
    let (status, headers, _) = played.send("GET").await;
    assert_eq!((status.as_u16(), &headers["x-clerk-exporter-decision"]), (429, &"shed".parse().unwrap()));
    assert_eq!(played.sent(), 1);
}
