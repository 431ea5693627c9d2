//! Batched single lookups and concurrent batches, against the simulator in simulated time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use clerk_client::clerk::{Clerk, Error, Loader, LoaderOptions};
use clerk_client::outbound::RequestOptions;
use clerk_client::outbound::retry::RetryPolicy;
use clerk_client::transport::MemoryTransport;
use clerk_quota::Source;
use clerk_quota::ledger::Ledger;
use clerk_simulator::{Fault, FaultBody, Simulator};
use clerk_test_support::{KEY, World, settings};
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

/// A well-formed ID of no user.
const UNKNOWN: &str = "user_000000000000000000000000000";

fn world(users: u32) -> (World, Clerk, Loader) {
    let world = World::new(clerk_test_support::simulator(1).users(users));
    let clerk = Clerk::with_transport(Arc::clone(&world.outbound));
    let loader = clerk.users().loader(LoaderOptions::default());
    (world, clerk, loader)
}

fn sent(simulator: &Simulator) -> u64 {
    simulator.truth().requests.total
}

fn id(simulator: &Simulator, number: u32) -> String {
    simulator.user_id(number).unwrap()
}

/// A client of a router, without retries.
fn client_of(router: Router) -> Clerk {
    let ledger = Ledger::new([settings("test")]);
    let retry = RetryPolicy::default().max_retries(0);
    Clerk::with_transport(Arc::new(clerk_test_support::outbound(MemoryTransport::new(router), &ledger)))
        .with_options(RequestOptions::default().retry(retry))
}

#[tokio::test(start_paused = true)]
async fn thousand_concurrent_lookups_are_ten_requests() {
    let (world, _, loader) = world(1000);
    let from = Instant::now();
    let ids: Vec<_> = (0..1000).map(|number| id(&world.simulator, number)).collect();
    let users = join_all(ids.iter().map(|id| loader.get(id))).await;
    assert!(users.iter().zip(&ids).all(|(user, id)| user.as_ref().unwrap().id == *id));
    assert_eq!(sent(&world.simulator), 10);
    assert!(from.elapsed() < Duration::from_secs(1), "simulated: {:?}", from.elapsed());
}

#[tokio::test(start_paused = true)]
async fn lookups_within_milliseconds_share_a_request() {
    let (world, _, loader) = world(100);
    let lookups = (0..100_u32).map(|number| {
        let (loader, id) = (loader.clone(), id(&world.simulator, number));
        async move {
            sleep(Duration::from_millis(u64::from(number) * 2 / 50)).await;
            loader.get(&id).await.unwrap()
        }
    });
    join_all(lookups).await;
    assert_eq!(sent(&world.simulator), 1);
}

#[tokio::test(start_paused = true)]
async fn equal_lookups_are_coalesced_and_a_single_one_uses_its_url() {
    let (world, clerk, loader) = world(3);
    let one = id(&world.simulator, 1);
    let all = join_all((0..50).map(|_| loader.raw(&one))).await;
    assert_eq!(sent(&world.simulator), 1);
    let response = clerk.request(Method::GET, &format!("/v1/users/{one}")).send().await.unwrap();
    for raw in all {
        assert_eq!(raw.unwrap().unwrap().into_bytes(), response.body());
    }
    // Clerk's error for a user that does not exist, with its trace ID.
    let error = loader.get(UNKNOWN).await.unwrap_err();
    assert!(error.is_not_found() && error.trace_id().is_some(), "{error}");
    assert_eq!(loader.raw(UNKNOWN).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn each_lookup_gets_its_own_user_or_not_found() {
    let (world, clerk, loader) = world(250);
    let mut wanted: Vec<_> = (0..250).map(|number| id(&world.simulator, number)).collect();
    wanted.insert(120, UNKNOWN.to_owned());
    let all = join_all(wanted.iter().map(|id| loader.raw(id))).await;
    assert_eq!(sent(&world.simulator), 4, "three lists, and a second request for the missing ID");
    for (raw, id) in all.into_iter().zip(&wanted) {
        match raw.unwrap() {
            Some(raw) => {
                sleep(Duration::from_secs(1)).await;
                let response = clerk.request(Method::GET, &format!("/v1/users/{id}")).send().await.unwrap();
                assert_eq!(raw.into_bytes(), response.body(), "the same bytes as a single request");
            }
            None => assert_eq!(id, UNKNOWN),
        }
    }
    let (user, unknown) = tokio::join!(loader.get(&wanted[0]), loader.get(UNKNOWN));
    let error = unknown.unwrap_err();
    assert_eq!(user.unwrap().id, wanted[0]);
    assert_eq!((error.status(), error.code()), (Some(StatusCode::NOT_FOUND), Some("resource_not_found")));
    assert!(error.is_not_found());
}

#[tokio::test(start_paused = true)]
async fn invalid_ids_are_rejected_without_affecting_the_batch() {
    let (world, _, loader) = world(10);
    let (one, two) = (id(&world.simulator, 1), id(&world.simulator, 2));
    let minus = format!("-{one}");
    let (a, b, c, d, e) = tokio::join!(
        loader.get(&one),
        loader.get(&minus),
        loader.get("user_1,user_2"),
        loader.get(KEY),
        loader.get(&two)
    );
    assert!(a.is_ok() && e.is_ok());
    for rejected in [b, c, d] {
        let error = rejected.unwrap_err();
        assert!(matches!(error, Error::InvalidId { .. }) && !error.to_string().contains("CANARY"), "{error}");
    }
    assert_eq!(sent(&world.simulator), 1);
}

#[tokio::test(start_paused = true)]
async fn error_422_reaches_only_the_invalid_id() {
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let bad = id(&simulator, 37);
    let is_bad = bad.clone();
    let clerk = client_of(simulator.router().layer(from_fn(move |request: Request, next: Next| {
        let is_rejected = request.uri().to_string().contains(&is_bad);
        async move {
            if is_rejected {
                let errors = json!({"errors": [{"code": "form_param_value_invalid", "message": "no"}]});
                return (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(errors)).into_response();
            }
            next.run(request).await
        }
    })));
    let loader = clerk.users().loader(LoaderOptions::default());
    let ids: Vec<_> = (0..100).map(|number| id(&simulator, number)).collect();
    for (result, id) in join_all(ids.iter().map(|id| loader.get(id))).await.into_iter().zip(&ids) {
        match result {
            Ok(user) => assert_eq!(user.id, *id),
            Err(error) => assert_eq!((id, error.code()), (&bad, Some("form_param_value_invalid"))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failed_batch_fails_all_its_callers() {
    let (world, clerk, _) = world(150);
    let once = RetryPolicy::default().max_retries(0);
    let loader = clerk.with_options(RequestOptions::default().retry(once)).users().loader(LoaderOptions::default());
    let fault = Fault::Status { status: 500, body: FaultBody::Clerk };
    world.simulator.set_faults(fault.times(1).into()).unwrap();
    let ids: Vec<_> = (0..150).map(|number| id(&world.simulator, number)).collect();
    let results = join_all(ids.iter().map(|id| loader.get(id))).await;
    let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(matches!(errors.len(), 50 | 100), "one of two requests failed: {}", errors.len());
    assert!(
        errors
            .iter()
            .all(|error| error.trace_id() == errors[0].trace_id() && error.code() == Some("internal_clerk_error"))
    );
    assert!(loader.get(&ids[0]).await.is_ok(), "errors are not cached");
}

#[tokio::test(start_paused = true)]
async fn batch_is_cancelled_only_when_its_last_caller_leaves() {
    let (world, _, loader) = world(10);
    world.simulator.set_faults(Fault::Latency { millis: 2000 }.always().into()).unwrap();
    let (one, two) = (id(&world.simulator, 1), id(&world.simulator, 2));
    let leaving = timeout(Duration::from_secs(1), loader.get(&one));
    let (gone, stays) = tokio::join!(leaving, loader.get(&two));
    assert!(gone.is_err() && stays.unwrap().id == two);
    assert_eq!(sent(&world.simulator), 1);

    let all = join_all([&one, &two].map(|id| timeout(Duration::from_secs(1), loader.get(id)))).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(world.outbound.limits.limiter.stats().in_flight, 0, "the request is cancelled");
    assert_eq!(loader.get(&one).await.unwrap().id, one);
}

#[tokio::test(start_paused = true)]
async fn lookup_after_invalidate_sees_a_recent_change() {
    let (world, clerk, loader) = world(3);
    let one = id(&world.simulator, 1);
    // The response is generated before the change and arrives after it.
    let late_client = client_late(&world.simulator);
    let late = late_client.users().loader(LoaderOptions::default());
    let before = async { late.get(&one).await.unwrap() };
    let after = async {
        sleep(Duration::from_secs(1)).await;
        let change = json!({"first_name": "Ada"});
        clerk.request(Method::PATCH, &format!("/v1/users/{one}")).json(&change).send().await.unwrap();
        late.invalidate(&one);
        late.get(&one).await.unwrap()
    };
    let (before, after) = tokio::join!(before, after);
    assert_ne!(before.first_name(), Some("Ada"));
    assert_eq!(after.first_name(), Some("Ada"));
    assert_eq!(loader.get(&one).await.unwrap().first_name(), Some("Ada"));
}

/// A client that receives each response three seconds after it was generated.
fn client_late(simulator: &Simulator) -> Clerk {
    client_of(simulator.router().layer(from_fn(async |request: Request, next: Next| {
        let response = next.run(request).await;
        sleep(Duration::from_secs(3)).await;
        response
    })))
}

#[tokio::test(start_paused = true)]
async fn excess_lookup_is_shed_at_once() {
    let (world, clerk, _) = world(10);
    let loader = clerk.users().loader(LoaderOptions::new().max_waiting(2));
    let ids: Vec<_> = (0..3).map(|number| id(&world.simulator, number)).collect();
    let results = join_all(ids.iter().map(|id| loader.get(id))).await;
    assert!(results[0].is_ok() && results[1].is_ok());
    let error = results[2].as_ref().unwrap_err();
    assert!(matches!(error, Error::Shed(_)) && error.is_unsent() && error.retry_after().is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn batches_use_the_clients_headers_and_source() {
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let log = Arc::clone(&seen);
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let clerk = client_of(simulator.router().layer(from_fn(move |request: Request, next: Next| {
        log.lock().push(request.headers().clone());
        next.run(request)
    })));
    let headers = HeaderMap::from_iter([
        ("clerk-api-version".parse().unwrap(), HeaderValue::from_static("2025-04-10")),
        (http::header::AUTHORIZATION, HeaderValue::from_static("Bearer other")),
    ]);
    let clerk = clerk.with_source(Source::Gateway).with_headers(headers);
    let loader = clerk.users().loader(LoaderOptions::default());
    let (one, two) = (id(&simulator, 1), id(&simulator, 2));
    let (a, b) = tokio::join!(loader.get(&one), loader.get(&two));
    assert!(a.is_ok() && b.is_ok());
    let seen = seen.lock();
    assert_eq!((seen.len(), &seen[0]["clerk-api-version"]), (1, &HeaderValue::from_static("2025-04-10")));
    assert_ne!(seen[0]["authorization"], "Bearer other");
    let now = clerk.outbound().clock.now();
    let responses = clerk.outbound().ledger.lock().snapshot(now).responses;
    let seen: Vec<_> = responses.iter().filter(|(_, count)| **count > 0).collect();
    assert_eq!(seen, [(&(Source::Gateway, 200), &1)]);
}

#[tokio::test(start_paused = true)]
async fn batches_run_with_bounded_concurrency_and_keep_order() {
    let simulator = Simulator::new(clerk_test_support::simulator(1).users(1000));
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let clerk = client_of(simulator.router().layer(from_fn(move |request: Request, next: Next| {
        let (now, most) = counts.clone();
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            // Latencies differ, so that batches complete out of order.
            let first = request.uri().to_string().len() as u64;
            sleep(Duration::from_millis(1000 - first % 7 * 100)).await;
            now.fetch_sub(1, Ordering::Relaxed);
            next.run(request).await
        }
    })));
    let wanted: Vec<_> = (0..1000).rev().map(|number| id(&simulator, number)).collect();
    let from = Instant::now();
    let found = clerk.users().get_many(&wanted).await.unwrap();
    assert!(found.iter().zip(&wanted).all(|(found, id)| found.user().unwrap().id == *id));
    assert_eq!((sent(&simulator), most.load(Ordering::Relaxed)), (10, 4));
    assert!(from.elapsed() <= Duration::from_secs(4), "simulated: {:?}", from.elapsed());
    let raw = clerk.users().get_many_raw([&wanted[3], UNKNOWN]).await.unwrap();
    assert_eq!(raw[0].user().unwrap().id(), wanted[3]);
    assert!(raw[1].is_missing());
}

#[tokio::test(start_paused = true)]
async fn raw_pages_match_parsed_pages() {
    let (world, clerk, _) = world(1100);
    let (mut pages, mut raw) = (clerk.users().list_all(), clerk.users().list_all().raw());
    while let Some(page) = pages.try_next().await.unwrap() {
        let other = raw.try_next().await.unwrap().unwrap();
        assert_eq!(page.cursor, other.cursor);
        let parsed: Vec<_> = other.users.iter().map(|user| user.parse().unwrap()).collect();
        assert_eq!(page.users, parsed);
    }
    assert!(raw.try_next().await.unwrap().is_none());
    assert_eq!(sent(&world.simulator), 8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Every lookup gets its own result, whatever other lookups run at the same time.
    #[test]
    fn each_lookup_gets_its_own_result(
        lookups in prop::collection::vec((0..140_u32, 0..30_u64), 1..300),
    ) {
        clerk_test_support::in_simulated_time(async {
            let (world, _, loader) = world(100);
            // IDs from 100 on belong to no user.
            let options = clerk_test_support::simulator(1).users(140).seed(9);
            let other = Simulator::new(options);
            let id_of = |number| id(if number < 100 { &world.simulator } else { &other }, number);
            let all = lookups.iter().map(|(number, delay)| {
                let (loader, id) = (loader.clone(), id_of(*number));
                async move {
                    sleep(Duration::from_millis(*delay)).await;
                    match loader.get(&id).await {
                        Ok(user) => assert!(user.id == id && *number < 100),
                        Err(error) => assert!(error.is_not_found() && *number >= 100, "{error}"),
                    }
                }
            });
            join_all(all).await;
            assert_eq!(world.outbound.limits.limiter.stats().in_flight, 0);
        });
    }
}

/// Truncates every list to `most` users and counts lists and single lookups.
fn truncating(simulator: &Simulator, most: usize) -> (Router, Arc<[AtomicU64; 2]>) {
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let counter = Arc::clone(&counts);
    let router = simulator.router().layer(from_fn(move |request: Request, next: Next| {
        let is_list = request.uri().path() == "/v1/users";
        counter[usize::from(!is_list)].fetch_add(1, Ordering::Relaxed);
        async move {
            let response = next.run(request).await;
            if !is_list || !response.status().is_success() {
                return response;
            }
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let users: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
            axum::Json(users.into_iter().take(most).collect::<Vec<_>>()).into_response()
        }
    }));
    (router, counts)
}

#[tokio::test(start_paused = true)]
async fn truncated_list_makes_no_user_missing() {
    for (most, lists, singles) in [(10, 3, 1), (1, 28, 1), (0, 1, 29), (27, 2, 1), (100, 1, 1)] {
        let simulator = Simulator::new(clerk_test_support::simulator(1));
        let ids: Vec<_> = (0..28).map(|number| id(&simulator, number)).collect();
        let wanted: Vec<_> = ids.iter().cloned().chain([UNKNOWN.to_owned()]).collect();
        let (router, counts) = truncating(&simulator, most);
        let clerk = client_of(router);
        let check = |found: Vec<Option<String>>| {
            let expected = ids.iter().cloned().map(Some).chain([None]);
            assert!(found.into_iter().eq(expected), "truncated to {most}");
            let requests = counts.each_ref().map(|count| count.swap(0, Ordering::Relaxed));
            assert!(requests[0] <= lists + 1 && requests[1] <= singles, "truncated to {most}: {requests:?}");
        };
        let found = clerk.users().get_many(&wanted).await.unwrap();
        check(found.iter().map(|found| found.user().map(|user| user.id.clone())).collect());
        let mut look_up = clerk.users().lookup(&wanted).unwrap();
        let mut found = Vec::new();
        while let Some(some) = look_up.try_next().await.unwrap() {
            found.extend(some.iter().map(|found| found.user().map(|user| user.id.clone())));
        }
        check(found);
        let loader = clerk.users().loader(LoaderOptions::default());
        let loaded = join_all(wanted.iter().map(|id| loader.get(id))).await;
        check(
            loaded
                .into_iter()
                .map(|result| match result {
                    Ok(user) => Some(user.id),
                    Err(error) => {
                        assert!(error.is_not_found(), "{error}");
                        None
                    }
                })
                .collect(),
        );
        let mut pages = clerk.users().list_all();
        let mut exported = Vec::new();
        while most > 0
            && let Some(page) = pages.try_next().await.unwrap()
        {
            exported.extend(page.users.into_iter().map(|user| user.id));
        }
        assert!(most == 0 || ids.iter().all(|id| exported.contains(id)), "truncated to {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn unconfirmed_missing_user_is_an_error_not_missing() {
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let (router, _) = truncating(&simulator, 2);
    let lists = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&lists);
    // The first list succeeds, later requests fail.
    let clerk =
        client_of(
            router.layer(from_fn(move |request: Request, next: Next| {
                let is_first = counter.fetch_add(1, Ordering::Relaxed) == 0;
                async move {
                    if is_first { next.run(request).await } else { StatusCode::INTERNAL_SERVER_ERROR.into_response() }
                }
            })),
        );
    let loader = clerk.users().loader(LoaderOptions::default());
    let ids: Vec<_> = (0..4).map(|number| id(&simulator, number)).collect();
    let results = join_all(ids.iter().map(|id| loader.get(id))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    assert!(results.iter().all(|result| result.as_ref().err().is_none_or(|error| !error.is_not_found())));
    lists.store(0, Ordering::Relaxed);
    let mut look_up = clerk.users().lookup(&ids).unwrap();
    assert!(look_up.try_next().await.is_err());
    assert_eq!(look_up.left(), 4, "the found users are returned with the others");
}
