//! The application client against the simulator, in simulated time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use clerk_client::clerk::{Clerk, Cursor, Error, ListUsers, LookupOutcome, Order, OrderField, UserFilter};
use clerk_client::outbound::retry::RetryPolicy;
use clerk_client::outbound::{Outbound, RequestOptions};
use clerk_client::secret::{KeySource, SecretSource};
use clerk_client::transport::MemoryTransport;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Environment, Source};
use clerk_simulator::{Fault, FaultBody, HeaderProfile, Simulator};
use clerk_test_support::{KEY, World, settings};
use http::{HeaderMap, Method, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

/// A well-formed ID of no user.
const UNKNOWN: &str = "user_000000000000000000000000000";

fn world(users: u32) -> (World, Clerk) {
    let world = World::new(clerk_test_support::simulator(1).users(users));
    let clerk = Clerk::with_transport(Arc::clone(&world.outbound));
    (world, clerk)
}

fn ids(world: &World, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| world.simulator.user_id(number).unwrap()).collect()
}

fn sent(world: &World) -> u64 {
    world.simulator.truth().requests.total
}

fn throttled(world: &World) -> u64 {
    world.simulator.truth().requests.by_status.get(&429).copied().unwrap_or_default()
}

/// A client of a router.
fn client_of(router: Router) -> Clerk {
    let ledger = Ledger::new([settings("test")]);
    Clerk::with_transport(Arc::new(clerk_test_support::outbound(MemoryTransport::new(router), &ledger)))
}

/// A client of a simulator through a middleware that can rewrite each query or respond with a 422 and a code.
fn client_through(
    simulator: &Simulator,
    between: impl Fn(&str) -> Result<String, &'static str> + Clone + Send + Sync + 'static,
) -> Clerk {
    client_of(simulator.router().layer(from_fn(move |mut request: Request, next: Next| {
        let verdict = between(request.uri().query().unwrap_or_default());
        async move {
            match verdict {
                Ok(query) => {
                    *request.uri_mut() = format!("{}?{query}", request.uri().path()).parse::<Uri>().unwrap();
                    next.run(request).await
                }
                Err(code) => clerk_error(422, code, "no"),
            }
        }
    })))
}

fn clerk_error(status: u16, code: &str, message: &str) -> Response {
    let body = json!({"errors": [{"code": code, "message": message, "long_message": ""}], "clerk_trace_id": "trace"});
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

fn count_ids(query: &str) -> usize {
    query.split('&').filter(|pair| pair.starts_with("user_id=")).count()
}

#[tokio::test(start_paused = true)]
async fn each_call_returns_its_resource_and_is_recorded() {
    let (world, clerk) = world(100);
    let id = world.simulator.user_id(7).unwrap();
    let user = clerk.users().get(&id).await.unwrap();
    assert_eq!(user.id, id);
    assert!(user.primary_email_address().unwrap().contains('@'));
    let list = ListUsers::new().limit(3).offset(2).order_by(Order::ascending(OrderField::CreatedAt));
    let listed = clerk.users().list(&list).await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|user| user.id).collect();
    assert_eq!(listed, ids(&world, 2..5));
    assert_eq!(clerk.users().count(&UserFilter::default()).await.unwrap().total_count, 100);
    let email = user.primary_email_address().unwrap().to_owned();
    let filter = UserFilter::new().email_addresses([email]);
    assert_eq!(clerk.users().count(&filter).await.unwrap().total_count, 1);
    assert_eq!(clerk.instance().await.unwrap().environment(), Environment::Development);
    let jwks = clerk.jwks().await.unwrap();
    let kid = jwks.keys[0]["kid"].as_str().unwrap();
    assert!(jwks.key(kid).is_some() && jwks.key("other").is_none());
    let count: Value = clerk.request(Method::GET, "/v1/users/count").send_json().await.unwrap();
    assert_eq!(count["total_count"], 100);
    let change = json!({"first_name": "Ada"});
    let changed = clerk.request(Method::PATCH, &format!("/v1/users/{id}")).json(&change).send().await.unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    assert_eq!(clerk.users().get(&id).await.unwrap().first_name(), Some("Ada"));
    let responses = world.snapshot().responses;
    let counts = responses.iter().filter(|((source, _), _)| *source == Source::Client).map(|(_, count)| count);
    assert_eq!(counts.sum::<u64>(), sent(&world));
}

#[tokio::test(start_paused = true)]
async fn user_preserves_every_field() {
    let (world, clerk) = world(20);
    for id in ids(&world, 0..20) {
        let raw: Value = clerk.request(Method::GET, &format!("/v1/users/{id}")).send_json().await.unwrap();
        let user = clerk.users().get(&id).await.unwrap();
        assert_eq!(serde_json::to_value(&user).unwrap(), raw);
        assert!(raw.get("bypass_client_trust").is_some(), "a field without an accessor");
    }
}

#[tokio::test(start_paused = true)]
async fn error_has_status_code_trace_id_and_retry_after() {
    let (world, clerk) = world(1);
    let error = clerk.users().get(UNKNOWN).await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!((error.status(), error.code()), (Some(StatusCode::NOT_FOUND), Some("resource_not_found")));
    assert!(error.trace_id().is_some() && error.to_string().contains("resource_not_found"), "{error}");
    let fault = Fault::Throttled { retry_after: Some("300".to_owned()), body: FaultBody::Html };
    world.simulator.set_faults(fault.always().into()).unwrap();
    let error = clerk.instance().await.unwrap_err();
    assert_eq!((error.status(), error.code()), (Some(StatusCode::TOO_MANY_REQUESTS), None));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(300)));
    // The limiter blocks the bucket now: nothing is sent, and the error has the wait.
    let before = sent(&world);
    let error = clerk.instance().await.unwrap_err();
    assert!(matches!(error, Error::Shed(_)) && error.is_unsent(), "{error:?}");
    assert!(error.retry_after().unwrap() > Duration::from_secs(200));
    assert_eq!(sent(&world), before);
}

#[tokio::test(start_paused = true)]
async fn invalid_requests_are_not_sent() {
    let (world, clerk) = world(1);
    let users = clerk.users();
    for id in [
        "",
        "user_",
        "+user_1",
        "-user_1",
        " user_1",
        "user_1/../x",
        "user_1,user_2",
        "user_1?x",
        "org_1",
        "user_ä",
        KEY,
    ] {
        let one = users.get(id).await.unwrap_err();
        let many = users.get_many([UNKNOWN, id]).await.unwrap_err();
        let after = ListUsers::new().starting_after(id);
        for error in [one, many, users.list(&after).await.unwrap_err()] {
            assert!(matches!(error, Error::InvalidId { .. }) && error.is_unsent(), "{id}: {error:?}");
        }
    }
    let by_name = Order::descending(OrderField::Username);
    let after = ListUsers::new().starting_after(UNKNOWN);
    for params in [
        ListUsers::new().limit(0),
        ListUsers::new().limit(501),
        after.clone().offset(1),
        after.order_by(by_name),
        ListUsers::new().filter(UserFilter::new().external_ids(["-x"])),
    ] {
        let error = users.list(&params).await.unwrap_err();
        assert!(matches!(error, Error::InvalidParameter { .. }), "{error:?}");
    }
    assert!(clerk.request(Method::GET, "/v1/../admin").send().await.is_err());
    assert_eq!(sent(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn get_many_keeps_the_order_and_marks_missing_users() {
    let (world, clerk) = world(300);
    let mut wanted = ids(&world, (0..250).rev());
    wanted.insert(3, UNKNOWN.to_owned());
    wanted.push(wanted[0].clone());
    let found = clerk.users().get_many(&wanted).await.unwrap();
    assert_eq!(found.iter().map(|found| &found.id).collect::<Vec<_>>(), wanted.iter().collect::<Vec<_>>());
    assert_eq!(found.iter().filter(|found| found.is_missing()).map(|found| &*found.id).collect::<Vec<_>>(), [UNKNOWN]);
    assert!(found.iter().filter_map(|found| Some((found.user()?, &found.id))).all(|(user, id)| user.id == *id));
    assert_eq!(found.first().unwrap().user(), found.last().unwrap().user());
    assert_eq!(sent(&world), 4, "251 IDs, and a second request for the missing one");
    assert!(clerk.users().get_many::<&str>([]).await.unwrap().is_empty());
    assert_eq!(sent(&world), 4);
}

#[tokio::test(start_paused = true)]
async fn error_422_is_attributed_to_its_id_without_repeating_others() {
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let wanted: Vec<String> = (0..100).map(|number| simulator.user_id(number).unwrap()).collect();
    let bad = format!("user_id={}", wanted[37]);
    let returned: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let (counts, is_bad) = (Arc::clone(&returned), bad.clone());
    let clerk = client_through(&simulator, move |query| {
        if query.split('&').any(|pair| pair == is_bad) {
            return Err("form_param_value_invalid");
        }
        for pair in query.split('&').filter(|pair| pair.starts_with("user_id=")) {
            *counts.lock().entry(pair.to_owned()).or_default() += 1;
        }
        Ok(query.to_owned())
    });
    let found = clerk.users().get_many(&wanted).await.unwrap();
    assert_eq!(found.iter().map(|found| &found.id).collect::<Vec<_>>(), wanted.iter().collect::<Vec<_>>());
    for (index, found) in found.iter().enumerate() {
        match &found.outcome {
            LookupOutcome::User(user) => assert_eq!(user.id, wanted[index]),
            LookupOutcome::Refused(error) => assert_eq!((index, error.status.as_u16()), (37, 422)),
            LookupOutcome::Missing => panic!("{index} exists"),
        }
    }
    let returned = returned.lock();
    assert!(returned.len() == 99 && returned.values().all(|times| *times == 1), "each ID is returned once");
}

#[tokio::test(start_paused = true)]
async fn smaller_batch_limit_is_detected_once() {
    let simulator = Simulator::new(clerk_test_support::simulator(1).users(400));
    let wanted: Vec<String> = (0..400).map(|number| simulator.user_id(number).unwrap()).collect();
    let rejections: Arc<Mutex<u32>> = Arc::default();
    let count = Arc::clone(&rejections);
    let clerk = client_through(&simulator, move |query| {
        if count_ids(query) > 50 {
            *count.lock() += 1;
            return Err("form_param_array_size_exceeded");
        }
        Ok(query.to_owned())
    });
    let mut look_up = clerk.users().lookup(&wanted).unwrap();
    let mut found = Vec::new();
    while let Some(more) = look_up.try_next().await.unwrap() {
        found.extend(more);
    }
    assert!(found.len() == 400 && found.iter().all(|found| found.user().is_some()));
    assert_eq!((*rejections.lock(), simulator.truth().requests.total), (1, 8));
    // Concurrent batches each detect the limit themselves.
    assert_eq!(clerk.users().get_many(&wanted).await.unwrap(), found);
    assert!(*rejections.lock() <= 1 + 4, "{}", rejections.lock());
}

#[tokio::test(start_paused = true)]
async fn lookup_continues_after_an_error() {
    let (world, clerk) = world(250);
    let clerk = clerk.with_options(once());
    let wanted = ids(&world, 0..250);
    let mut look_up = clerk.users().lookup(&wanted).unwrap();
    let mut found = look_up.try_next().await.unwrap().unwrap();
    let fault = Fault::Status { status: 500, body: FaultBody::Clerk };
    world.simulator.set_faults(fault.times(1).into()).unwrap();
    let error = look_up.try_next().await.unwrap_err();
    assert_eq!((error.code(), look_up.left()), (Some("internal_clerk_error"), 150));
    while let Some(more) = look_up.try_next().await.unwrap() {
        found.extend(more);
    }
    assert_eq!(found.into_iter().map(|found| found.id).collect::<Vec<_>>(), wanted);
}

/// Options without retries.
fn once() -> RequestOptions {
    RequestOptions::default().retry(RetryPolicy::default().max_retries(0))
}

async fn walk(mut pages: clerk_client::clerk::Pages) -> Result<Vec<String>, Error> {
    let mut walked = Vec::new();
    while let Some(page) = pages.try_next().await? {
        assert!(!page.users.is_empty() && pages.cursor() == Some(&page.cursor));
        walked.extend(page.users.into_iter().map(|user| user.id));
    }
    assert!(pages.try_next().await?.is_none(), "no page after the end");
    Ok(walked)
}

#[tokio::test(start_paused = true)]
async fn all_users_are_listed_in_order_without_429() {
    for (page_size, requests, least_seconds) in [(500, 4, 0), (10, 125, 10)] {
        let (world, clerk) = world(1234);
        let from = Instant::now();
        assert_eq!(walk(clerk.users().list_all().page_size(page_size)).await.unwrap(), ids(&world, 0..1234));
        assert_eq!((sent(&world), throttled(&world)), (requests, 0));
        assert!(from.elapsed() >= Duration::from_secs(least_seconds), "{:?}", from.elapsed());
    }
    let (_, clerk) = world(0);
    assert!(walk(clerk.users().list_all()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn listing_gets_no_429_with_any_limiter_or_headers() {
    for limiter in ["fixed", "sliding", "token-bucket"] {
        for headers in [HeaderProfile::None, HeaderProfile::XRateLimit, HeaderProfile::XRateLimitEpoch] {
            let options = clerk_test_support::simulator(1).users(1234).headers(headers);
            let world = World::new(options.limiter(limiter.parse().unwrap()));
            let clerk = Clerk::with_transport(Arc::clone(&world.outbound));
            let walked = walk(clerk.users().list_all().page_size(5)).await.unwrap();
            assert_eq!((walked.len(), sent(&world), throttled(&world)), (1234, 248, 0), "{limiter} {headers}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn listing_resumes_from_a_stored_cursor() {
    let (world, clerk) = world(1234);
    let mut pages = clerk.users().list_all();
    pages.try_next().await.unwrap();
    let kept = pages.try_next().await.unwrap().unwrap().cursor.to_string();
    drop(pages);
    let cursor: Cursor = kept.parse().unwrap();
    assert_eq!(walk(clerk.users().list_all().resume_from(cursor)).await.unwrap(), ids(&world, 1000..1234));
    for text in ["", "@5", "user_1@", "user_1@x", "-user_1@5", KEY] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn listing_resumes_by_date_if_the_cursor_user_is_deleted() {
    let (world, clerk) = world(1234);
    let id = world.simulator.user_id(599).unwrap();
    let at = clerk.users().get(&id).await.unwrap().created_at().unwrap();
    let cursor: Cursor = format!("{UNKNOWN}@{at}").parse().unwrap();
    let walked = walk(clerk.users().list_all().page_size(100).resume_from(cursor)).await.unwrap();
    // The user created in the same millisecond is repeated, because it may not have been returned yet.
    assert_eq!(walked, ids(&world, 599..1234));
    let undated: Cursor = UNKNOWN.parse().unwrap();
    let error = walk(clerk.users().list_all().resume_from(undated)).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::UNPROCESSABLE_ENTITY));
}

#[tokio::test(start_paused = true)]
async fn failed_page_is_requested_again() {
    let (world, clerk) = world(1234);
    let clerk = clerk.with_low_priority_options(once().max_queue_wait(Duration::from_secs(60)));
    let mut pages = clerk.users().list_all();
    let mut walked = pages.try_next().await.unwrap().unwrap().users;
    for fault in [Fault::Status { status: 503, body: FaultBody::Html }, Fault::Reset { after_bytes: 4000 }] {
        world.simulator.set_faults(fault.times(1).into()).unwrap();
        pages.try_next().await.unwrap_err();
    }
    while let Some(page) = pages.try_next().await.unwrap() {
        walked.extend(page.users);
    }
    assert_eq!(walked.into_iter().map(|user| user.id).collect::<Vec<_>>(), ids(&world, 0..1234));
}

fn without(query: &str, names: &[&str]) -> String {
    let keeps = |pair: &&str| !names.iter().any(|name| pair.starts_with(&format!("{name}=")));
    query.split('&').filter(keeps).collect::<Vec<_>>().join("&")
}

#[tokio::test(start_paused = true)]
async fn ignored_cursor_is_detected_without_an_endless_loop() {
    let simulator = Simulator::new(clerk_test_support::simulator(1).users(345));
    let all: Vec<String> = (0..345).map(|number| simulator.user_id(number).unwrap()).collect();
    let clerk = client_through(&simulator, |query| Ok(without(query, &["starting_after"])));
    assert_eq!(walk(clerk.users().list_all().page_size(50)).await.unwrap(), all, "complete and without duplicates");
    for ignored in [&["starting_after", "created_at_after"][..], &["order_by"]] {
        let clerk = client_through(&simulator, move |query| Ok(without(query, ignored)));
        let error = walk(clerk.users().list_all().page_size(50)).await.unwrap_err();
        assert!(matches!(error, Error::Disordered), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn list_within_an_object_is_accepted() {
    let body = json!({"data": [{"id": "user_1"}], "total_count": 1});
    let clerk = client_of(Router::new().fallback(async move || axum::Json(body)));
    assert_eq!(clerk.users().list(&ListUsers::default()).await.unwrap()[0].id, "user_1");
}

#[tokio::test(start_paused = true)]
async fn attempt_and_call_timeouts_are_enforced() {
    let (world, clerk) = world(1);
    let clerk = clerk.with_timeouts(Duration::from_secs(2), Duration::from_secs(5));
    world.simulator.set_faults(Fault::Latency { millis: 300_000 }.always().into()).unwrap();
    let from = Instant::now();
    let error = clerk.instance().await.unwrap_err();
    assert!(matches!(error, Error::Transport { attempts: 2.., .. }) && !error.is_unsent(), "{error:?}");
    assert!(from.elapsed() <= Duration::from_secs(5), "{:?}", from.elapsed());
}

#[tokio::test(start_paused = true)]
async fn rotated_key_is_reloaded_after_a_401() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "sk_test_oldoldold1").unwrap();
    let router = Router::new().fallback(async |headers: HeaderMap| {
        if headers["authorization"] == "Bearer sk_test_newnewnew2" {
            axum::Json(json!({"id": "ins_1"})).into_response()
        } else {
            clerk_error(401, "clerk_key_invalid", "no")
        }
    });
    let ledger = Ledger::new([settings("test")]);
    let outbound = clerk_test_support::outbound(MemoryTransport::new(router), &ledger);
    let key = Arc::new(KeySource::new(SecretSource::File(file.path().to_owned())));
    let clerk = Clerk::with_transport(Arc::new(Outbound { key, ..outbound }));
    assert_eq!(clerk.instance().await.unwrap_err().code(), Some("clerk_key_invalid"));
    std::fs::write(file.path(), "sk_test_newnewnew2").unwrap();
    assert_eq!(clerk.instance().await.unwrap().id, "ins_1");
}

#[tokio::test(start_paused = true)]
async fn errors_never_show_the_key_or_user_data() {
    let echo = |status: u16, is_json: bool| {
        client_of(Router::new().fallback(async move |headers: HeaderMap| {
            let text = headers["authorization"].to_str().unwrap().to_owned();
            if is_json {
                clerk_error(status, &text, &text)
            } else {
                (StatusCode::from_u16(status).unwrap(), text).into_response()
            }
        }))
        .with_options(once())
    };
    let mut errors = Vec::new();
    for (status, is_json) in
        [(200, false), (400, true), (401, true), (404, false), (422, true), (429, true), (500, true)]
    {
        errors.push(echo(status, is_json).instance().await.unwrap_err());
    }
    let private = client_of(Router::new().fallback(async || axum::Json(json!({"id": {"name": "CANARY of a user"}}))));
    errors.push(private.instance().await.unwrap_err());
    errors.push(private.users().get(KEY).await.unwrap_err());
    errors.push(private.request(Method::GET, KEY).send().await.unwrap_err());
    for error in errors {
        let text = format!("{error} {error:?} {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(!text.contains("CANARY") && !text.contains("4bMbJy"), "{text}");
    }
}
