//! Many users at once: single look-ups that are merged, and batches side by side, against the simulator in simulated
//! time.

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

/// An id of a form that Clerk gives, of nobody.
const NOBODY: &str = "user_000000000000000000000000000";

fn world(users: u32) -> (World, Clerk, Loader) {
    let world = World::new(clerk_simulator::Options { users, ..clerk_test_support::simulator(1) });
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

/// A client of a router, that is not patient.
fn client_of(router: Router) -> Clerk {
    let ledger = Ledger::new([settings("test")]);
    let retry = RetryPolicy { max_retries: 0, ..RetryPolicy::default() };
    Clerk::with_transport(Arc::new(clerk_test_support::outbound(MemoryTransport::new(router), &ledger)))
        .with_policy(RequestOptions { retry, ..RequestOptions::default() })
}

#[tokio::test(start_paused = true)]
async fn a_thousand_look_ups_at_once_are_ten_requests() {
    let (world, _, loader) = world(1000);
    let from = Instant::now();
    let ids: Vec<_> = (0..1000).map(|number| id(&world.simulator, number)).collect();
    let users = join_all(ids.iter().map(|id| loader.get(id))).await;
    assert!(users.iter().zip(&ids).all(|(user, id)| user.as_ref().unwrap().id == *id));
    assert_eq!(sent(&world.simulator), 10);
    assert!(from.elapsed() < Duration::from_secs(1), "simulated: {:?}", from.elapsed());
}

#[tokio::test(start_paused = true)]
async fn those_that_come_within_a_few_milliseconds_share_a_request() {
    let (world, _, loader) = world(100);
    let come = (0..100_u32).map(|number| {
        let (loader, id) = (loader.clone(), id(&world.simulator, number));
        async move {
            sleep(Duration::from_millis(u64::from(number) * 2 / 50)).await;
            loader.get(&id).await.unwrap()
        }
    });
    join_all(come).await;
    assert_eq!(sent(&world.simulator), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_user_is_asked_for_once_and_one_alone_by_its_own_address() {
    let (world, clerk, loader) = world(3);
    let one = id(&world.simulator, 1);
    let all = join_all((0..50).map(|_| loader.raw(&one))).await;
    assert_eq!(sent(&world.simulator), 1);
    let answer = clerk.raw(Method::GET, &format!("/v1/users/{one}")).send().await.unwrap();
    for raw in all {
        assert_eq!(raw.unwrap().unwrap().into_bytes(), answer.body());
    }
    // Clerk's own word for a user who does not exist, with the name of the exchange.
    let error = loader.get(NOBODY).await.unwrap_err();
    assert!(error.is_not_found() && error.trace_id().is_some(), "{error}");
    assert_eq!(loader.raw(NOBODY).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn each_gets_the_text_of_its_own_user_or_hears_that_there_is_none() {
    let (world, clerk, loader) = world(250);
    let mut wanted: Vec<_> = (0..250).map(|number| id(&world.simulator, number)).collect();
    wanted.insert(120, NOBODY.to_owned());
    let all = join_all(wanted.iter().map(|id| loader.raw(id))).await;
    assert_eq!(sent(&world.simulator), 4, "three lists, and once more the one that a list was without");
    for (raw, id) in all.into_iter().zip(&wanted) {
        match raw.unwrap() {
            Some(raw) => {
                sleep(Duration::from_secs(1)).await;
                let answer = clerk.raw(Method::GET, &format!("/v1/users/{id}")).send().await.unwrap();
                assert_eq!(raw.into_bytes(), answer.body(), "byte for byte as if it were asked for alone");
            }
            None => assert_eq!(id, NOBODY),
        }
    }
    let (user, nobody) = tokio::join!(loader.get(&wanted[0]), loader.get(NOBODY));
    let error = nobody.unwrap_err();
    assert_eq!(user.unwrap().id, wanted[0]);
    assert_eq!((error.status(), error.code()), (Some(StatusCode::NOT_FOUND), Some("resource_not_found")));
    assert!(error.is_not_found());
}

#[tokio::test(start_paused = true)]
async fn what_clerk_would_misread_is_not_sent_and_spoils_nobody_s_batch() {
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
    for refused in [b, c, d] {
        let error = refused.unwrap_err();
        assert!(matches!(*error, Error::InvalidId { .. }) && !error.to_string().contains("CANARY"), "{error}");
    }
    assert_eq!(sent(&world.simulator), 1);
}

#[tokio::test(start_paused = true)]
async fn a_422_reaches_only_the_one_that_it_is_meant_for() {
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let bad = id(&simulator, 37);
    let is_bad = bad.clone();
    let clerk = client_of(simulator.router().layer(from_fn(move |request: Request, next: Next| {
        let is_refused = request.uri().to_string().contains(&is_bad);
        async move {
            if is_refused {
                let errors = json!({"errors": [{"code": "form_param_value_invalid", "message": "no"}]});
                return (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(errors)).into_response();
            }
            next.run(request).await
        }
    })));
    let loader = clerk.users().loader(LoaderOptions::default());
    let ids: Vec<_> = (0..100).map(|number| id(&simulator, number)).collect();
    for (answer, id) in join_all(ids.iter().map(|id| loader.get(id))).await.into_iter().zip(&ids) {
        match answer {
            Ok(user) => assert_eq!(user.id, *id),
            Err(error) => assert_eq!((id, error.code()), (&bad, Some("form_param_value_invalid"))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_with_a_request_all_its_callers_are_told() {
    let (world, clerk, _) = world(150);
    let once = RetryPolicy { max_retries: 0, ..RetryPolicy::default() };
    let loader = clerk
        .with_policy(RequestOptions { retry: once, ..RequestOptions::default() })
        .users()
        .loader(LoaderOptions::default());
    let fault = Fault::Status { status: 500, body: FaultBody::Clerk };
    world.simulator.set_faults(fault.times(1).into()).unwrap();
    let ids: Vec<_> = (0..150).map(|number| id(&world.simulator, number)).collect();
    let answers = join_all(ids.iter().map(|id| loader.get(id))).await;
    let errors: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(matches!(errors.len(), 50 | 100), "one of two requests failed: {}", errors.len());
    assert!(errors.iter().all(|error| Arc::ptr_eq(error, errors[0]) && error.code() == Some("internal_clerk_error")));
    assert!(loader.get(&ids[0]).await.is_ok(), "an error is not kept");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_disturbs_no_other_and_the_last_one_ends_the_request() {
    let (world, _, loader) = world(10);
    world.simulator.set_faults(Fault::Latency { millis: 2000 }.always().into()).unwrap();
    let (one, two) = (id(&world.simulator, 1), id(&world.simulator, 2));
    let impatient = timeout(Duration::from_secs(1), loader.get(&one));
    let (gone, stays) = tokio::join!(impatient, loader.get(&two));
    assert!(gone.is_err() && stays.unwrap().id == two);
    assert_eq!(sent(&world.simulator), 1);

    let all = join_all([&one, &two].map(|id| timeout(Duration::from_secs(1), loader.get(id)))).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(world.outbound.limits.limiter.stats().in_flight, 0, "the request is cancelled");
    assert_eq!(loader.get(&one).await.unwrap().id, one);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_moment_ago_is_seen_by_who_says_so() {
    let (world, clerk, loader) = world(3);
    let one = id(&world.simulator, 1);
    // The answer is made before the change, and comes after it.
    let answer_is_late = client_late(&world.simulator);
    let late = answer_is_late.users().loader(LoaderOptions::default());
    let before = async { late.get(&one).await.unwrap() };
    let after = async {
        sleep(Duration::from_secs(1)).await;
        let change = json!({"first_name": "Ada"});
        clerk.raw(Method::PATCH, &format!("/v1/users/{one}")).body(&change).unwrap().send().await.unwrap();
        late.invalidate(&one);
        late.get(&one).await.unwrap()
    };
    let (before, after) = tokio::join!(before, after);
    assert_ne!(before.first_name(), Some("Ada"));
    assert_eq!(after.first_name(), Some("Ada"));
    assert_eq!(loader.get(&one).await.unwrap().first_name(), Some("Ada"));
}

/// A client that gets each answer three seconds after it was made.
fn client_late(simulator: &Simulator) -> Clerk {
    client_of(simulator.router().layer(from_fn(async |request: Request, next: Next| {
        let answer = next.run(request).await;
        sleep(Duration::from_secs(3)).await;
        answer
    })))
}

#[tokio::test(start_paused = true)]
async fn one_too_many_is_told_at_once() {
    let (world, clerk, _) = world(10);
    let loader = clerk.users().loader(LoaderOptions { max_waiting: 2, ..LoaderOptions::default() });
    let ids: Vec<_> = (0..3).map(|number| id(&world.simulator, number)).collect();
    let answers = join_all(ids.iter().map(|id| loader.get(id))).await;
    assert!(answers[0].is_ok() && answers[1].is_ok());
    let error = answers[2].as_ref().unwrap_err();
    assert!(matches!(**error, Error::Shed(_)) && error.is_unsent() && error.retry_after().is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_carries_the_headers_and_is_observed_as_of_the_source_that_was_given() {
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
async fn batches_go_side_by_side_but_not_all_at_once_and_keep_their_order() {
    let simulator = Simulator::new(clerk_simulator::Options { users: 1000, ..clerk_test_support::simulator(1) });
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let clerk = client_of(simulator.router().layer(from_fn(move |request: Request, next: Next| {
        let (now, most) = counts.clone();
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            // The first ones take longest.
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
    let raw = clerk.users().get_many_raw([&wanted[3], NOBODY]).await.unwrap();
    assert_eq!(raw[0].user().unwrap().id(), wanted[3]);
    assert!(raw[1].is_missing());
}

#[tokio::test(start_paused = true)]
async fn a_walk_in_clerk_s_own_words_is_the_walk_of_values() {
    let (world, clerk, _) = world(1100);
    let (mut pages, mut raw) = (clerk.users().list_all(), clerk.users().list_all().raw());
    while let Some(page) = pages.next().await.unwrap() {
        let other = raw.next().await.unwrap().unwrap();
        assert_eq!(page.cursor, other.cursor);
        let parsed: Vec<_> = other.users.iter().map(|user| user.parse().unwrap()).collect();
        assert_eq!(page.users, parsed);
    }
    assert!(raw.next().await.unwrap().is_none());
    assert_eq!(sent(&world.simulator), 8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Who asks for what, and when, in whatever company: the answer is to the question.
    #[test]
    fn each_gets_exactly_its_own_answer(
        asked in prop::collection::vec((0..140_u32, 0..30_u64), 1..300),
    ) {
        clerk_test_support::in_simulated_time(async {
            let (world, _, loader) = world(100);
            // Every id from 100 on is nobody's.
            let other = Simulator::new(clerk_simulator::Options { users: 140, seed: 9, ..clerk_test_support::simulator(1) });
            let id_of = |number| id(if number < 100 { &world.simulator } else { &other }, number);
            let all = asked.iter().map(|(number, comes)| {
                let (loader, id) = (loader.clone(), id_of(*number));
                async move {
                    sleep(Duration::from_millis(*comes)).await;
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

/// Cuts every list off after so many users, whatever it is asked for, and counts lists and single look-ups.
fn cut_off(simulator: &Simulator, most: usize) -> (Router, Arc<[AtomicU64; 2]>) {
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let counter = Arc::clone(&counts);
    let router = simulator.router().layer(from_fn(move |request: Request, next: Next| {
        let is_list = request.uri().path() == "/v1/users";
        counter[usize::from(!is_list)].fetch_add(1, Ordering::Relaxed);
        async move {
            let answer = next.run(request).await;
            if !is_list || !answer.status().is_success() {
                return answer;
            }
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let users: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
            axum::Json(users.into_iter().take(most).collect::<Vec<_>>()).into_response()
        }
    }));
    (router, counts)
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_cut_off_makes_nobody_missing() {
    for (most, lists, singles) in [(10, 3, 1), (1, 28, 1), (0, 1, 29), (27, 2, 1), (100, 1, 1)] {
        let simulator = Simulator::new(clerk_test_support::simulator(1));
        let ids: Vec<_> = (0..28).map(|number| id(&simulator, number)).collect();
        let wanted: Vec<_> = ids.iter().cloned().chain([NOBODY.to_owned()]).collect();
        let (router, counts) = cut_off(&simulator, most);
        let clerk = client_of(router);
        let check = |found: Vec<Option<String>>| {
            let expected = ids.iter().cloned().map(Some).chain([None]);
            assert!(found.into_iter().eq(expected), "cut off after {most}");
            let asked = counts.each_ref().map(|count| count.swap(0, Ordering::Relaxed));
            assert!(asked[0] <= lists + 1 && asked[1] <= singles, "cut off after {most}: {asked:?}");
        };
        let found = clerk.users().get_many(&wanted).await.unwrap();
        check(found.iter().map(|found| found.user().map(|user| user.id.clone())).collect());
        let mut look_up = clerk.users().look_up(&wanted).unwrap();
        let mut found = Vec::new();
        while let Some(some) = look_up.next().await.unwrap() {
            found.extend(some.iter().map(|found| found.user().map(|user| user.id.clone())));
        }
        check(found);
        let loader = clerk.users().loader(LoaderOptions::default());
        let loaded = join_all(wanted.iter().map(|id| loader.get(id))).await;
        check(
            loaded
                .into_iter()
                .map(|answer| match answer {
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
            && let Some(page) = pages.next().await.unwrap()
        {
            exported.extend(page.users.into_iter().map(|user| user.id));
        }
        assert!(most == 0 || ids.iter().all(|id| exported.contains(id)), "cut off after {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_be_proved_missing_is_not_and_the_others_have_their_answers() {
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let (router, _) = cut_off(&simulator, 2);
    let lists = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&lists);
    // The first list comes; what is asked after it does not.
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
    let answers = join_all(ids.iter().map(|id| loader.get(id))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    assert!(answers.iter().all(|answer| answer.as_ref().err().is_none_or(|error| !error.is_not_found())));
    lists.store(0, Ordering::Relaxed);
    let mut look_up = clerk.users().look_up(&ids).unwrap();
    assert!(look_up.next().await.is_err());
    assert_eq!(look_up.left(), 4, "those that were found are given with the others");
}
