//! The cache as a part of the client: what it serves, and what writes and webhooks invalidate.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/cache.rs"]
#[expect(dead_code, reason = "the example's main is not run here")]
mod cache_example;
#[path = "../examples/webhook_axum.rs"]
#[expect(dead_code, reason = "the example's main is not run here")]
mod webhook_example;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use clerk_client::outbound::retry::RetryPolicy;
use clerk_client::outbound::{Outbound, RequestOptions};
use clerk_client::secret::{Secret, SecretSource};
use clerk_client::transport::MemoryTransport;
use clerk_client::webhook::SigningSecret;
use clerk_client::{Cache, Clerk, CreateUser, Error, UpdateUser};
use clerk_quota::ledger::Ledger;
use clerk_test_support::redis::RedisServer;
use clerk_test_support::{World, settings, simulator};
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::json;
use tokio::time::{advance, sleep, timeout};
use tower::ServiceExt;

const ID: &str = "user_000000000000000000000000001";
const TTL: Duration = Duration::from_secs(60);

fn world() -> (World, Clerk, String) {
    let world = World::new(simulator(1));
    let clerk = Clerk::with_transport(Arc::clone(&world.outbound)).with_cache(Cache::memory(1 << 20)).unwrap();
    let id = world.simulator.user_id(0).unwrap();
    (world, clerk, id)
}

fn sent(world: &World) -> u64 {
    world.simulator.truth().requests.total
}

/// A server whose responses a test decides, and that counts the reads and writes of users.
#[derive(Clone, Default)]
struct Server {
    reads: Arc<AtomicU32>,
    writes: Arc<AtomicU32>,
    /// The status of the next responses; 0 for success.
    read_status: Arc<AtomicU16>,
    write_status: Arc<AtomicU16>,
    /// Milliseconds that a write takes.
    write_millis: Arc<AtomicU32>,
}

impl Server {
    fn clerk(&self, cache: clerk_client::CacheBuilder) -> Clerk {
        let server = self.clone();
        let router = Router::new().fallback(move |request: Request| async move { server.respond(request).await });
        let ledger = Ledger::new([settings("test")]);
        let outbound: Outbound = clerk_test_support::outbound(MemoryTransport::new(router), &ledger);
        let retry = RetryPolicy::default().max_retries(0);
        let attempt_timeout = Duration::from_secs(5);
        let options = RequestOptions::default().retry(retry).attempt_timeout(attempt_timeout);
        Clerk::with_transport(Arc::new(outbound)).with_options(options).with_cache(cache).unwrap()
    }

    async fn respond(self, request: Request) -> Response {
        let (count, status) = if request.method() == Method::GET {
            (self.reads.fetch_add(1, Ordering::SeqCst), &self.read_status)
        } else {
            sleep(Duration::from_millis(self.write_millis.load(Ordering::SeqCst).into())).await;
            (self.writes.fetch_add(1, Ordering::SeqCst), &self.write_status)
        };
        match status.load(Ordering::SeqCst) {
            0 => axum::Json(json!({"id": ID, "object": "user", "deleted": true, "count": count})).into_response(),
            status => {
                let body = json!({"errors": [{"code": "resource_not_found", "message": "no"}]});
                let headers = [("retry-after", "7"), ("x-clerk-trace-id", "trace_1")];
                (StatusCode::from_u16(status).unwrap(), headers, axum::Json(body)).into_response()
            }
        }
    }

    fn reads(&self) -> u32 {
        self.reads.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn user_is_served_from_the_cache_until_its_ttl() {
    let (world, clerk, id) = world();
    let user = clerk.users().get(&id).await.unwrap();
    assert_eq!(clerk.clone().users().get(&id).await.unwrap(), user);
    assert_eq!((sent(&world), clerk.cache().unwrap().stats().memory.hits), (1, 1));
    // A tenth of the TTL is jitter.
    sleep(TTL * 11 / 10).await;
    assert_eq!(clerk.users().get(&id).await.unwrap(), user);
    assert_eq!(sent(&world), 2);
    clerk.clone().without_cache().users().get(&id).await.unwrap();
    assert_eq!(sent(&world), 3);
}

#[tokio::test(start_paused = true)]
async fn concurrent_gets_share_one_request() {
    let (world, clerk, id) = world();
    let users = clerk.users();
    for user in join_all((0..50).map(|_| users.get(&id))).await {
        assert_eq!(user.unwrap().id, id);
    }
    assert_eq!(sent(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn instance_and_key_set_are_cached_lists_and_lookups_are_not() {
    let (world, clerk, id) = world();
    for _ in 0..3 {
        clerk.instance().await.unwrap();
        clerk.jwks().await.unwrap();
    }
    assert_eq!(sent(&world), 2);
    clerk.users().get(&id).await.unwrap();
    for _ in 0..2 {
        clerk.users().get_many([&id]).await.unwrap();
        clerk.users().loader(clerk_client::LoaderOptions::new()).get(&id).await.unwrap();
        clerk.users().list(&clerk_client::ListUsers::new()).await.unwrap();
        clerk.request(Method::GET, &format!("/v1/users/{id}")).send().await.unwrap();
    }
    assert_eq!(sent(&world), 3 + 8);
}

#[tokio::test(start_paused = true)]
async fn api_versions_are_cached_apart_and_other_headers_bypass() {
    let (world, clerk, id) = world();
    let with = |name: &'static str, value: &'static str| {
        clerk.clone().with_headers(HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )]))
    };
    for _ in 0..2 {
        clerk.users().get(&id).await.unwrap();
        with("clerk-api-version", "2025-04-10").users().get(&id).await.unwrap();
    }
    assert_eq!(sent(&world), 2);
    for _ in 0..2 {
        with("accept-language", "de").users().get(&id).await.unwrap();
    }
    assert_eq!(sent(&world), 4);
}

#[tokio::test(start_paused = true)]
async fn error_through_the_cache_has_all_of_its_fields() {
    let server = Server::default();
    let clerk = server.clerk(Cache::memory(1 << 20));
    server.read_status.store(404, Ordering::SeqCst);
    for reads in 1..=2 {
        let error = clerk.users().get(ID).await.unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        assert_eq!((error.trace_id(), error.retry_after()), (Some("trace_1"), Some(Duration::from_secs(7))));
        assert_eq!(server.reads(), reads, "404 is not stored by default");
    }
    let clerk = server.clerk(Cache::memory(1 << 20).negative_ttl(TTL));
    for _ in 0..2 {
        assert!(clerk.users().get(ID).await.unwrap_err().is_not_found());
    }
    assert_eq!(server.reads(), 3);
}

#[tokio::test(start_paused = true)]
async fn stale_user_is_served_on_5xx_if_allowed_and_never_on_401() {
    for (status, is_served) in [(500, true), (503, true), (401, false), (404, false)] {
        let server = Server::default();
        let clerk = server.clerk(Cache::memory(1 << 20).stale_if_error(Duration::from_secs(3600)));
        clerk.users().get(ID).await.unwrap();
        sleep(TTL * 2).await;
        server.read_status.store(status, Ordering::SeqCst);
        let result = clerk.users().get(ID).await;
        assert_eq!((result.is_ok(), server.reads()), (is_served, 2), "{status}: {result:?}");
        let strict = server.clerk(Cache::memory(1 << 20));
        assert!(strict.users().get(ID).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn writes_invalidate_what_they_may_have_changed() {
    let server = Server::default();
    let clerk = server.clerk(Cache::memory(1 << 20));
    let users = clerk.users();
    // Each write with the reads that it costs: a new user leaves other users in the cache.
    for (write, expected) in [("update", 1), ("delete", 1), ("create", 0), ("request", 1), ("nothing", 0)] {
        users.get(ID).await.unwrap();
        let before = server.reads();
        match write {
            "update" => drop(users.update(ID, &UpdateUser::new().first_name("Ada")).await.unwrap()),
            "delete" => assert!(users.delete(ID).await.unwrap().deleted),
            "create" => drop(users.create(&CreateUser::new().email_address("a@example.com")).await.unwrap()),
            "request" => drop(clerk.request(Method::POST, "/v1/users/ban").json(&json!({})).send().await.unwrap()),
            _ => {}
        }
        users.get(ID).await.unwrap();
        assert_eq!(server.reads() - before, expected, "{write}");
        advance(TTL).await;
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_write_invalidates_nothing_and_a_failed_one_does() {
    for (status, expected) in [(422, 0), (429, 0), (500, 1)] {
        let server = Server::default();
        let clerk = server.clerk(Cache::memory(1 << 20));
        clerk.users().get(ID).await.unwrap();
        server.write_status.store(status, Ordering::SeqCst);
        clerk.users().update(ID, &UpdateUser::new()).await.unwrap_err();
        clerk.users().get(ID).await.unwrap();
        assert_eq!(server.reads() - 1, expected, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_while_an_abandoned_write_may_still_be_executed() {
    let server = Server::default();
    let clerk = server.clerk(Cache::memory(1 << 20));
    let users = clerk.users();
    users.get(ID).await.unwrap();
    server.write_millis.store(3_000, Ordering::SeqCst);
    let update = UpdateUser::new();
    timeout(Duration::from_secs(1), users.update(ID, &update)).await.unwrap_err();
    for reads in 2..=3 {
        users.get(ID).await.unwrap();
        assert_eq!(server.reads(), reads, "each read is a request");
    }
    // The attempt's timeout and a second.
    sleep(Duration::from_secs(7)).await;
    users.get(ID).await.unwrap();
    users.get(ID).await.unwrap();
    assert_eq!(server.reads(), 4);
}

#[tokio::test(start_paused = true)]
async fn writes_are_retried_after_429_only() {
    let server = Server::default();
    let clerk = server.clerk(Cache::memory(1 << 20)).with_options(RequestOptions::default());
    server.write_status.store(429, Ordering::SeqCst);
    let recover = async {
        sleep(Duration::from_secs(3)).await;
        server.write_status.store(0, Ordering::SeqCst);
    };
    let users = clerk.users();
    let create = CreateUser::new();
    let (created, ()) = tokio::join!(users.create(&create), recover);
    assert_eq!((created.unwrap().id.as_str(), server.writes.load(Ordering::SeqCst)), (ID, 2));
    server.write_status.store(503, Ordering::SeqCst);
    assert_eq!(users.delete(ID).await.unwrap_err().status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(server.writes.load(Ordering::SeqCst), 3);
    assert!(matches!(users.update("org_1", &UpdateUser::new()).await, Err(Error::InvalidId { .. })));
}

#[tokio::test(start_paused = true)]
async fn cache_example_reads_twice_around_its_write() {
    let world = World::new(simulator(1));
    let clerk = Clerk::with_transport(Arc::clone(&world.outbound)).with_cache(cache_example::cache(None)).unwrap();
    let name = cache_example::run(&clerk, &world.simulator.user_id(0).unwrap()).await.unwrap();
    assert_eq!((name.as_deref(), sent(&world)), (Some("Ada"), 3));
}

#[tokio::test]
async fn write_of_one_process_invalidates_the_others_over_redis() {
    let redis = RedisServer::start(&[]).await;
    let world = World::new(simulator(1));
    let process = || {
        let cache = Cache::memory(1 << 20).redis(redis.store(), "production");
        Clerk::with_transport(Arc::clone(&world.outbound)).with_cache(cache).unwrap()
    };
    let (one, other) = (process(), process());
    let id = world.simulator.user_id(0).unwrap();
    one.users().get(&id).await.unwrap();
    other.users().get(&id).await.unwrap();
    assert_eq!(sent(&world), 1, "the second process finds it in Redis");
    one.users().update(&id, &UpdateUser::new().first_name("Ada")).await.unwrap();
    // The message to the other process takes a moment.
    while other.users().get(&id).await.unwrap().first_name() != Some("Ada") {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn invalid_redis_url_is_the_error_of_build() {
    let cache = Cache::memory(1 << 20).redis("http://CANARY@example.com", "production");
    let error = Clerk::builder().secret_key(clerk_test_support::KEY).cache(cache).build().unwrap_err();
    assert!(matches!(error, Error::Redis(_)) && !format!("{error} {error:?}").contains("CANARY"), "{error:?}");
}

#[tokio::test]
async fn webhook_invalidates_the_cache_of_its_client() {
    const SECRET: &str = "whsec_CANARYf7SKAZopvozCjHEFxTrktz+dM+";
    let (world, clerk, id) = world();
    let secret = || SecretSource::Inline(Secret::from(SECRET));
    let app = webhook_example::app(clerk.clone(), secret()).unwrap();
    let get = async |id: &str| {
        app.clone().oneshot(Request::get(format!("/users/{id}")).body(Body::empty()).unwrap()).await.unwrap().status()
    };
    assert_eq!((get(&id).await, get(&id).await, sent(&world)), (StatusCode::OK, StatusCode::OK, 1));
    let body = json!({"type": "user.updated", "object": "event", "data": {"id": id}}).to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let delivery = Request::post("/webhooks/clerk")
        .header("svix-id", "msg_1")
        .header("svix-timestamp", HeaderValue::from(now))
        .header("svix-signature", SigningSecret::parse(SECRET).unwrap().sign("msg_1", now, body.as_bytes()))
        .body(Body::from(body))
        .unwrap();
    assert_eq!(app.clone().oneshot(delivery).await.unwrap().status(), StatusCode::OK);
    assert_eq!((get(&id).await, sent(&world)), (StatusCode::OK, 2));
    assert_eq!(get(ID).await, StatusCode::NOT_FOUND);
    // Without a cache there is nothing to invalidate.
    assert!(webhook_example::app(clerk.without_cache(), secret()).is_err());
}
