//! Which requests are retried, when, and how often; counted by the server, in simulated time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use bytes::Bytes;
use clerk_client::limiter;
use clerk_client::outbound::retry::{Idempotency, MIN_WAIT, RetryPolicy, RetryableError, StopReason};
use clerk_client::outbound::{ApiRequest, Outbound, Phase, RequestOptions, SendError};
use clerk_client::transport::{ErrorKind, MemoryTransport, RequestBody, ResponseFuture, Transport, TransportError};
use clerk_quota::Source;
use clerk_quota::ledger::Ledger;
use clerk_simulator::{Fault, FaultBody, FaultRule, Faults};
use clerk_test_support::{World, in_simulated_time, settings};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

fn get() -> ApiRequest {
    ApiRequest::get("/v1/users/count", Source::Client)
}

fn with_method(method: Method, repeat: Option<Idempotency>) -> ApiRequest {
    let call = ApiRequest::new(method, "/v1/users/count", Source::Client);
    ApiRequest { idempotency: repeat.unwrap_or(call.idempotency), ..call }
}

fn throttled(retry_after: Option<&str>) -> Fault {
    Fault::Throttled { retry_after: retry_after.map(str::to_owned), body: FaultBody::Html }
}

fn status(status: u16) -> Fault {
    Fault::Status { status, body: FaultBody::Html }
}

/// The outcome of a call.
#[derive(Debug)]
struct Outcome {
    status: u16,
    retry_after: Option<HeaderValue>,
    seconds: f64,
    requests: u64,
}

async fn send_with(faults: impl Into<Faults>, call: &ApiRequest, policy: &RequestOptions) -> Outcome {
    let world = World::new(clerk_test_support::simulator(1));
    world.simulator.set_faults(faults.into()).unwrap();
    let from = Instant::now();
    let response = world.outbound.send(call, policy).await.unwrap();
    let requests = world.simulator.truth().requests.total;
    let observed: u64 = world.snapshot().responses.values().sum();
    assert_eq!(observed, requests, "each attempt is one observation");
    let stats = world.outbound.limits.stats();
    assert_eq!((stats.requests, stats.attempts), (1, requests));
    let retry_after = response.headers.get("retry-after").cloned();
    Outcome { status: response.status.as_u16(), retry_after, seconds: from.elapsed().as_secs_f64(), requests }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_the_minimum_wait_in_seconds() {
    for seconds in [1, 9, 30, 60] {
        for fault in [throttled(Some(&seconds.to_string()))] {
            let outcome = send_with(fault.times(1), &get(), &RequestOptions::default()).await;
            assert_eq!((outcome.status, outcome.requests), (200, 2));
            let waited = outcome.seconds;
            assert!((f64::from(seconds)..=f64::from(seconds) + 2.0).contains(&waited), "{seconds}: {waited}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_date_is_relative_to_the_servers_clock() {
    for skew in [-86_400, 3_600] {
        let claimed =
            i64::try_from(clerk_test_support::start().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
                .unwrap();
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(claimed + skew + 20).unwrap());
        let rules = vec![throttled(Some(&httpdate::fmt_http_date(date))).times(1)];
        let outcome = send_with(Faults { clock_skew_seconds: skew, rules }, &get(), &RequestOptions::default()).await;
        assert!((20.0..22.0).contains(&outcome.seconds), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_zero_or_past_still_waits() {
    for header in ["0", "Thu, 01 Jan 1970 00:00:00 GMT"] {
        let outcome = send_with(throttled(Some(header)).always(), &get(), &RequestOptions::default()).await;
        assert_eq!((outcome.status, outcome.requests), (429, 4));
        assert!(outcome.seconds >= 3.0 * MIN_WAIT.as_secs_f64(), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_above_the_maximum_returns_the_429_at_once() {
    for header in ["61", "451", "3600", "999999999"] {
        let outcome = send_with(throttled(Some(header)).always(), &get(), &RequestOptions::default()).await;
        assert_eq!((outcome.status, outcome.requests), (429, 1));
        assert!(outcome.seconds < 0.01, "{outcome:?}");
        assert_eq!(outcome.retry_after.unwrap(), header);
    }
    let options = RequestOptions::low_priority().retry(RetryPolicy::default().max_wait(Duration::from_secs(120)));
    assert_eq!(send_with(throttled(Some("61")).times(1), &get(), &options).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn deadline_covers_the_whole_call() {
    let policy = RequestOptions::default().deadline(Duration::from_secs(20));
    let outcome = send_with(throttled(Some("30")).always(), &get(), &policy).await;
    assert_eq!((outcome.status, outcome.requests), (429, 1));
    assert!(outcome.seconds < 0.01, "no futile wait: {outcome:?}");
    let world = World::new(clerk_test_support::simulator(1));
    world.simulator.set_faults(Fault::Latency { millis: 300_000 }.always().into()).unwrap();
    let from = Instant::now();
    let error = world.outbound.send(&get(), &policy).await.unwrap_err();
    assert!(matches!(error, SendError::Request { attempts: 2, .. }), "{error}");
    assert!(from.elapsed() <= policy.deadline);
}

#[tokio::test(start_paused = true)]
async fn only_unexecuted_or_idempotent_requests_are_retried() {
    use Idempotency::{Idempotent, NonIdempotent, RetryIfThrottled};
    for (method, repeat, fault, requests) in [
        (Method::GET, None, throttled(Some("1")), 2),
        (Method::HEAD, None, throttled(Some("1")), 2),
        (Method::OPTIONS, None, status(503), 2),
        (Method::GET, None, status(502), 2),
        (Method::GET, None, status(503), 2),
        (Method::GET, None, status(504), 2),
        (Method::GET, None, status(500), 1),
        (Method::GET, None, status(521), 1),
        (Method::GET, Some(NonIdempotent), status(503), 1),
        (Method::POST, None, throttled(Some("30")), 1),
        (Method::PATCH, None, throttled(Some("30")), 1),
        (Method::DELETE, None, status(503), 1),
        (Method::POST, Some(RetryIfThrottled), throttled(Some("1")), 2),
        (Method::POST, Some(RetryIfThrottled), status(503), 1),
        (Method::PUT, Some(Idempotent), status(503), 2),
    ] {
        let call = with_method(method.clone(), repeat);
        let outcome = send_with(fault.clone().times(1), &call, &RequestOptions::default()).await;
        assert_eq!(outcome.requests, requests, "{method} {repeat:?} {fault:?}");
        assert!(requests > 1 || outcome.seconds < 0.01, "decided before waiting: {method} {fault:?} {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_errors_are_final() {
    for code in (400..=499).filter(|code| *code != 429) {
        for body in [FaultBody::Clerk, FaultBody::Html, FaultBody::Empty] {
            let outcome =
                send_with(Fault::Status { status: code, body }.always(), &get(), &RequestOptions::default()).await;
            assert_eq!((outcome.status, outcome.requests), (code, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_failures_are_retried_at_different_times() {
    let mut waits = Vec::new();
    for _ in 0..8 {
        waits.push(send_with(status(503).times(2), &get(), &RequestOptions::default()).await.seconds);
    }
    waits.sort_by(f64::total_cmp);
    waits.dedup();
    assert!(waits.len() > 6, "{waits:?}");
}

/// An upstream that fails before or after sending the request.
#[derive(Debug)]
struct Dead {
    kind: ErrorKind,
    attempts: Mutex<u64>,
}

impl Transport for Dead {
    fn send(&self, _: http::Request<RequestBody>) -> ResponseFuture {
        *self.attempts.lock() += 1;
        let error = TransportError::new(self.kind, "dead".to_owned());
        Box::pin(std::future::ready(Err(error)))
    }
}

fn over(upstream: Arc<dyn Transport>) -> Arc<Outbound> {
    Arc::new(clerk_test_support::outbound(upstream, &Ledger::new([settings("test")])))
}

#[tokio::test(start_paused = true)]
async fn outage_causes_at_most_a_fifth_more_requests() {
    for kind in [ErrorKind::Connect, ErrorKind::Broken] {
        let dead = Arc::new(Dead { kind, attempts: Mutex::default() });
        let outbound = over(Arc::<Dead>::clone(&dead));
        for _ in 0..1000 {
            outbound.send(&get(), &RequestOptions::low_priority()).await.unwrap_err();
        }
        let attempts = *dead.attempts.lock();
        assert!((1100..=1240).contains(&attempts), "{kind:?}: {attempts}");
        let stats = outbound.limits.stats();
        assert_eq!(stats.attempts, attempts);
        assert_eq!(stats.retried.iter().sum::<u64>(), attempts - 1000);
        assert!(stats.stopped[StopReason::Budget as usize] > 500);
    }
    in_world(|world| async move {
        world.simulator.set_faults(status(503).always().into()).unwrap();
        let mut tasks = JoinSet::new();
        for _ in 0..1000 {
            let outbound = Arc::clone(&world.outbound);
            tasks.spawn(async move { outbound.send(&get(), &RequestOptions::low_priority()).await.unwrap().status });
        }
        assert!(tasks.join_all().await.into_iter().all(|status| status == 503));
        let attempts = world.simulator.truth().requests.total;
        assert!((1010..=1240).contains(&attempts), "{attempts}");
    })
    .await;
}

async fn in_world<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    let options = limiter::LimiterOptions::default().max_queue(2000);
    test(World::paced(clerk_test_support::simulator(1), options)).await;
}

#[tokio::test(start_paused = true)]
async fn connect_failed_and_no_response_are_distinguished() {
    for (kind, phase) in
        [(ErrorKind::Dns, Phase::Connect), (ErrorKind::Connect, Phase::Connect), (ErrorKind::Broken, Phase::Sent)]
    {
        let outbound = over(Arc::new(Dead { kind, attempts: Mutex::default() }));
        let error = outbound.send(&with_method(Method::POST, None), &RequestOptions::default()).await.unwrap_err();
        let SendError::Request { error, attempts: 1 } = error else { panic!("{error}") };
        assert_eq!(error.phase(), phase);
        // Unsent requests do not use quota: far more of them than the limit are attempted.
        if phase == Phase::Connect {
            for _ in 0..300 {
                let options = RequestOptions::default().max_queue_wait(Duration::ZERO);
                let error = outbound.send(&with_method(Method::POST, None), &options).await.unwrap_err();
                assert!(matches!(error, SendError::Request { .. }), "{error}");
            }
        }
    }
}

/// A server that records requests and responds with given statuses.
#[derive(Debug, Default, Clone)]
struct Recorder(Arc<Mutex<Vec<(HeaderMap, Bytes, String)>>>);

impl Recorder {
    fn router(&self, respond: impl Fn(&str, usize) -> u16 + Clone + Send + Sync + 'static) -> Router {
        let recorder = self.clone();
        Router::new().fallback(move |request: axum::extract::Request| {
            let (recorder, respond) = (recorder.clone(), respond.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let path = parts.uri.path().to_owned();
                let mut entries = recorder.0.lock();
                let before = entries.iter().filter(|(_, _, other)| *other == path).count();
                entries.push((parts.headers, body, path.clone()));
                let status = StatusCode::from_u16(respond(&path, before)).unwrap();
                (status, [("content-type", "application/json")], "{}")
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_sends_the_same_bytes() {
    let recorder = Recorder::default();
    let outbound = over(MemoryTransport::new(recorder.router(|_, before| if before < 3 { 429 } else { 200 })));
    let mut call = with_method(Method::PATCH, Some(Idempotency::RetryIfThrottled));
    call.body = Bytes::from_static(b"{\"first_name\":\"Ada\"}");
    call.headers.insert("content-type", HeaderValue::from_static("application/json"));
    call.headers.insert("clerk-api-version", HeaderValue::from_static("2025-11-10"));
    call.headers.insert("authorization", HeaderValue::from_static("Bearer other"));
    assert_eq!(outbound.send(&call, &RequestOptions::default()).await.unwrap().status, 200);
    let entries = recorder.0.lock();
    assert_eq!(entries.len(), 4);
    for (headers, body, _) in entries.iter() {
        assert_eq!(*body, call.body);
        assert_eq!(headers["content-length"], call.body.len().to_string());
        assert_eq!(headers["clerk-api-version"], "2025-11-10");
        assert_eq!(headers["authorization"], format!("Bearer {}", clerk_test_support::KEY));
    }
}

#[test]
fn success_is_never_retried() {
    for seed in 0..6 {
        in_simulated_time(async move {
            let recorder = Recorder::default();
            let rng = Mutex::new(fastrand::Rng::with_seed(seed));
            let successes: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
            let seen = Arc::clone(&successes);
            let rng = Arc::new(rng);
            let router = recorder.router(move |path, before| {
                assert!(!seen.lock().contains_key(path), "{path} was retried after its success");
                let status = [200, 201, 204, 429, 429, 502, 503, 504, 500, 404][rng.lock().usize(..10)];
                if status < 300 {
                    seen.lock().insert(path.to_owned(), before);
                }
                status
            });
            let outbound = over(MemoryTransport::new(router));
            let mut tasks = JoinSet::new();
            for number in 0..300 {
                let outbound = Arc::clone(&outbound);
                tasks.spawn(async move {
                    let call = ApiRequest::get(format!("/v1/users/user_{number}"), Source::Client);
                    let response = outbound.send(&call, &RequestOptions::low_priority()).await.unwrap();
                    (call.path, response.status.is_success())
                });
            }
            let results = tasks.join_all().await;
            for (path, success) in results {
                assert_eq!(successes.lock().contains_key(&path), success, "{path}");
            }
            assert!(successes.lock().values().any(|before| *before > 0), "some succeeded after a failure");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn success_with_an_incomplete_body_is_not_retried() {
    let world = World::new(clerk_test_support::simulator(1));
    let rule = FaultRule { counted: Some(true), ..Fault::Reset { after_bytes: 100 }.always() };
    world.simulator.set_faults(rule.into()).unwrap();
    let error = world.outbound.send(&get(), &RequestOptions::default()).await.unwrap_err();
    assert!(matches!(error, SendError::Request { attempts: 1, .. }), "{error}");
    assert_eq!(world.simulator.truth().requests.total, 1);
    assert_eq!(world.outbound.limits.stats().pace.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_cancels_at_once() {
    let world = World::new(clerk_test_support::simulator(1));
    world.simulator.set_faults(throttled(Some("30")).always().into()).unwrap();
    timeout(Duration::from_secs(5), world.outbound.send(&get(), &RequestOptions::default())).await.unwrap_err();
    let waiting = RequestOptions::default().max_queue_wait(Duration::from_secs(60));
    timeout(Duration::from_secs(5), world.outbound.send(&get(), &waiting)).await.unwrap_err();
    let pace = world.outbound.limits.stats().pace;
    assert_eq!((pace.waiting, pace.in_flight), (0, 0));
    sleep(Duration::from_secs(300)).await;
    assert_eq!(world.simulator.truth().requests.total, 1);
}

#[tokio::test(start_paused = true)]
async fn stream_is_in_flight_until_its_end() {
    let world = World::new(clerk_test_support::simulator(1));
    world.simulator.set_faults(Fault::HugeBody { bytes: 3_000_000 }.always().into()).unwrap();
    let response = world.outbound.open(&get(), &RequestOptions::default()).await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(world.snapshot().responses[&(Source::Client, 200)], 1, "recorded at the head");
    assert_eq!(world.outbound.limits.stats().pace.in_flight, 1);
    assert_eq!(response.body.collect().await.unwrap().to_bytes().len(), 3_000_000);
    assert_eq!(world.outbound.limits.stats().pace.in_flight, 0);
    let response = world.outbound.open(&get(), &RequestOptions::default()).await.unwrap();
    drop(response);
    assert_eq!(world.outbound.limits.stats().pace.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn stats_count_retries_by_cause() {
    let world = World::new(clerk_test_support::simulator(1));
    let rules = vec![throttled(Some("1")).times(1), status(503).times(1), Fault::Latency { millis: 20_000 }.times(3)];
    world.simulator.set_faults(Faults { rules, ..Faults::default() }).unwrap();
    let policy = RequestOptions::default().attempt_timeout(Duration::from_secs(15));
    world.outbound.send(&get(), &policy).await.unwrap();
    let stats = world.outbound.limits.stats();
    assert_eq!(stats.requests, 1);
    assert_eq!(stats.pace.admitted, [stats.attempts, 0]);
    assert_eq!(stats.pace.waited_seconds.count(), stats.attempts);
    assert_eq!(stats.attempts, stats.retried.iter().sum::<u64>() + 1);
    assert!(stats.retried[RetryableError::NoResponse as usize] >= 1);
    assert_eq!(stats.stopped[StopReason::Final as usize], 1);
}
