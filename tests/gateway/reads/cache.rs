//! Cached responses: for how long, for which clients, and their invalidation.

use std::time::Duration;

use axum::Router;
use clerk_exporter::gateway::{Decision, InstancePolicies, Mode, RoutePolicies, Saving};
use clerk_simulator::Fault;

use super::{BATCH, CACHE, OFF, Reads, USER, authorized, get, pass, roomy, status, throttled};
use crate::support::{SECOND_KEY, Setup, TOKEN};
use clerk_test_support::KEY;

const PATH: &str = "/v1/users/count";

#[tokio::test(start_paused = true)]
async fn second_read_is_a_cache_hit() {
    let reads = Reads::new(CACHE);
    let first = reads.get(PATH).await;
    assert_eq!((first.decision(), first.value("age")), (None, None));
    assert!(first.headers.contains_key("x-ratelimit-remaining"));
    pass(5).await;
    let second = reads.get(PATH).await;
    assert_eq!((second.status, &second.body, second.decision()), (200, &first.body, Some("cache_hit")));
    assert_eq!((second.value("age"), second.value("content-type")), (Some("5"), first.value("content-type")));
    assert!(second.headers.keys().all(|name| !name.as_str().contains("ratelimit")), "{:?}", second.headers);
    assert_eq!((reads.sent(), reads.decided(Decision::CacheHit), reads.saved(Saving::Cache)), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn cached_response_expires() {
    let reads = Reads::new(RoutePolicies { ttl: Duration::from_secs(100), ..CACHE });
    reads.get(PATH).await;
    // The freshness lifetime varies by a tenth.
    pass(89).await;
    assert_eq!(reads.get(PATH).await.decision(), Some("cache_hit"));
    pass(22).await;
    assert_eq!((reads.get(PATH).await.decision(), reads.sent()), (None, 2));
    assert_eq!(reads.get(PATH).await.decision(), Some("cache_hit"), "and is cached again");
}

#[tokio::test(start_paused = true)]
async fn route_policy_overrides_the_default() {
    let reads = Reads::routed(OFF, USER, CACHE);
    for (path, sent) in [(reads.path(1), 1), (PATH.to_owned(), 3)] {
        reads.get(&path).await;
        reads.get(&path).await;
        assert_eq!(reads.sent(), sent, "{path}");
    }
    let reads = Reads::routed(CACHE, USER, OFF);
    for (path, sent) in [(reads.path(1), 2), (PATH.to_owned(), 3)] {
        reads.get(&path).await;
        reads.get(&path).await;
        assert_eq!(reads.sent(), sent, "{path}");
    }
    let longer = RoutePolicies { ttl: Duration::from_secs(1000), ..CACHE };
    let reads = Reads::routed(CACHE, USER, longer);
    for path in [reads.path(1), PATH.to_owned()] {
        reads.get(&path).await;
    }
    pass(500).await;
    assert_eq!(reads.get(&reads.path(1)).await.decision(), Some("cache_hit"));
    assert_eq!(reads.get(PATH).await.decision(), None);
}

#[tokio::test(start_paused = true)]
async fn route_without_webhooks_is_cached_only_if_named() {
    let path = "/v1/jwks";
    let reads = Reads::new(CACHE);
    reads.get(path).await;
    assert_eq!((reads.get(path).await.decision(), reads.sent()), (None, 2));
    let reads = Reads::routed(OFF, ("GET", path), CACHE);
    assert_eq!(reads.get(path).await.status, 200);
    assert_eq!((reads.get(path).await.decision(), reads.sent()), (Some("cache_hit"), 1));
}

#[tokio::test(start_paused = true)]
async fn no_store_and_private_responses_are_not_cached() {
    for (field, value, is_kept) in [
        ("cache-control", "no-store", false),
        ("cache-control", "max-age=5, Private", false),
        ("cache-control", "private=\"x\"", false),
        ("cache-control", "max-age=0, no-cache", true),
        ("vary", "*", false),
        ("vary", "Accept-Encoding, X-Lang", false),
        ("vary", "Origin, accept-encoding", true),
        ("vary", "Accept,Clerk-API-Version,Authorization,Cookie", true),
    ] {
        let answer = move || async move { ([("content-type", "application/json"), (field, value)], "{}") };
        let router = Router::new().route("/v1/users/count", axum::routing::get(answer));
        for policies in [CACHE, RoutePolicies { cache: Mode::Shadow, ..OFF }] {
            let reads = Reads::before(router.clone(), policies);
            let first = reads.get(PATH).await;
            assert_eq!((first.status, first.value(field)), (200, Some(value)));
            reads.get(PATH).await;
            let hits = reads.decided(Decision::CacheHit) + reads.shadowed(Decision::CacheHit);
            assert_eq!(hits, u64::from(is_kept), "{field}: {value} {policies:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cache_is_shared_by_keys_but_not_by_instances() {
    let plan =
        InstancePolicies { policies: RoutePolicies { coalesce: Mode::On, ..CACHE }, ..InstancePolicies::default() };
    let reads = Reads::with(roomy(), Setup { plan, has_second: true, ..Setup::default() });
    let ask = |key| reads.send(authorized("GET", PATH, key));
    assert_eq!((ask(KEY).await.status, ask(TOKEN).await.decision()), (200, Some("cache_hit")));
    assert_eq!((ask(SECOND_KEY).await.decision(), reads.sent()), (None, 2));
    assert_eq!((ask(SECOND_KEY).await.decision(), reads.sent()), (Some("cache_hit"), 2));
    pass(200).await;
    reads.lag(50);
    reads.together([KEY, SECOND_KEY, TOKEN, SECOND_KEY].map(|key| authorized("GET", PATH, key))).await;
    assert_eq!(reads.sent(), 4);
}

#[tokio::test(start_paused = true)]
async fn responses_to_unknown_keys_are_not_cached() {
    let reads = Reads::new(CACHE);
    reads.get(PATH).await;
    for sent in 2..5 {
        let answer = reads.send(authorized("GET", PATH, "sk_test_strangerCANARY0123456789")).await;
        assert_eq!((answer.status, answer.decision(), reads.sent()), (200, None, sent));
    }
    let answer = reads.send(http::Request::get(PATH).header("host", "gateway")).await;
    assert_eq!((answer.status, reads.sent()), (401, 5));
}

#[tokio::test(start_paused = true)]
async fn heads_and_errors_are_not_cached() {
    let reads = Reads::new(CACHE);
    for _ in 0..2 {
        reads.send(authorized("HEAD", PATH, KEY)).await;
        assert_eq!(reads.get("/v1/users/user_2NNEqL2nrIRdJ194ndJqAHwEfxC").await.status, 404);
    }
    assert_eq!(reads.sent(), 4);
}

#[tokio::test(start_paused = true)]
async fn webhook_invalidates_affected_responses() {
    for policies in [CACHE, RoutePolicies { cache: Mode::On, ..BATCH }] {
        let reads = Reads::new(policies);
        let (path, other) = (reads.path(1), reads.path(2));
        let name = async || reads.get(&path).await.json()["first_name"].as_str().unwrap().to_owned();
        let before = name().await;
        reads.get(&other).await;
        reads.rename_elsewhere(1, "Changed").await;
        assert_eq!(name().await, before, "not invalidated yet");
        reads.announce(1).await;
        assert_eq!(name().await, "Changed");
        assert_eq!(reads.get(&path).await.decision(), Some("cache_hit"));
        assert_eq!(reads.get(&other).await.decision(), Some("cache_hit"), "another user is unaffected");
    }
}

#[tokio::test(start_paused = true)]
async fn write_invalidates_only_what_it_changed() {
    let reads = Reads::new(CACHE);
    let (path, other) = (reads.path(1), reads.path(2));
    for read in [&path, &other] {
        reads.get(read).await;
    }
    reads.rename(1, "Changed").await;
    let answer = reads.get(&path).await;
    assert_eq!((answer.decision(), answer.json()["first_name"].as_str()), (None, Some("Changed")));
    assert_eq!(reads.get(&other).await.decision(), Some("cache_hit"), "another user is unaffected");
    // A rejected write changes nothing.
    let refused = authorized("PATCH", &path, KEY).header("content-type", "application/json");
    assert_eq!(reads.send_body(refused, "{").await.status / 100, 4);
    assert_eq!(reads.get(&path).await.decision(), Some("cache_hit"));
}

#[tokio::test(start_paused = true)]
async fn write_invalidates_routes_without_webhooks() {
    let route = ("GET", "/v1/jwks");
    let reads = Reads::routed(OFF, route, CACHE);
    for method in ["POST", "DELETE"] {
        reads.get(route.1).await;
        assert_eq!(reads.get(route.1).await.decision(), Some("cache_hit"));
        reads.send(authorized(method, "/v1/allowlist_identifiers/x", KEY)).await;
        // The simulator rejects it as a client error, which changes nothing.
        assert_eq!(reads.get(route.1).await.decision(), Some("cache_hit"), "{method}");
        reads.fault(status(502).times(1));
        reads.send(authorized(method, "/v1/allowlist_identifiers/x", KEY)).await;
        assert_eq!(reads.get(route.1).await.decision(), None, "{method}");
        // It may still be executed until Clerk's timeout.
        pass(12).await;
    }
}

#[tokio::test(start_paused = true)]
async fn abandoned_write_invalidates_what_it_may_have_changed() {
    let reads = Reads::new(CACHE);
    let (path, other) = (reads.path(1), reads.path(2));
    for read in [&path, &other] {
        reads.get(read).await;
    }
    reads.fault(Fault::Latency { millis: 1000 }.always());
    let impatient = Duration::from_millis(300);
    tokio::time::timeout(impatient, reads.rename(1, "Changed")).await.unwrap_err();
    // Clerk had received it.
    reads.heal();
    reads.rename_elsewhere(1, "Changed").await;
    let answer = reads.get(&path).await;
    assert_eq!((answer.decision(), answer.json()["first_name"].as_str()), (None, Some("Changed")));
    assert_eq!(reads.get(&other).await.decision(), Some("cache_hit"), "another user is unaffected");
}

#[tokio::test(start_paused = true)]
async fn unsigned_webhook_is_rejected_and_not_forwarded() {
    let reads = Reads::new(CACHE);
    reads.get(&reads.path(1)).await;
    let answer = reads.send_body(http::Request::post("/webhooks/clerk").header("host", "g"), "{}").await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert_eq!((reads.get(&reads.path(1)).await.decision(), reads.sent()), (Some("cache_hit"), 1));
}

#[tokio::test(start_paused = true)]
async fn read_after_a_webhook_gets_no_older_response() {
    let coalesce = Mode::On;
    for policies in [
        CACHE,
        RoutePolicies { coalesce, ..OFF },
        RoutePolicies { coalesce, ..BATCH },
        RoutePolicies { cache: Mode::On, ..BATCH },
        BATCH,
    ] {
        let reads = Reads::new(policies);
        // So that the lookup shares its batch.
        let requests = || [1, 2].map(|number| get(&reads.path(number)));
        reads.lag(1000);
        let early = reads.together(requests());
        let late = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            reads.rename_elsewhere(1, "Changed").await;
            reads.announce(1).await;
            reads.together(requests()).await
        };
        let (_, late) = tokio::join!(early, late);
        assert_eq!(late[0].json()["first_name"], "Changed", "{policies:?}");
        assert_eq!(reads.get(&reads.path(1)).await.json()["first_name"], "Changed", "{policies:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_response_is_served_if_clerk_fails() {
    for fault in
        [throttled(3), status(503), status(500), Fault::Reset { after_bytes: 10 }, Fault::Reset { after_bytes: 0 }]
    {
        for policies in [CACHE, RoutePolicies { cache: Mode::On, ..BATCH }] {
            let reads = Reads::new(policies);
            let path = reads.path(1);
            let first = reads.get(&path).await;
            pass(70).await;
            reads.fault(fault.clone().always());
            let stale = reads.get(&path).await;
            assert_eq!((stale.status, stale.decision(), &stale.body), (200, Some("stale"), &first.body), "{fault:?}");
            assert_eq!(stale.value("age"), Some("70"));
            assert_eq!((reads.decided(Decision::Stale), reads.saved(Saving::Cache)), (1, 0), "Clerk was asked");
            reads.heal();
            let fresh = reads.get(&path).await;
            assert_eq!((fresh.status, fresh.value("age")), (200, None));
            assert_eq!(reads.get(&path).await.decision(), Some("cache_hit"));
            // But not forever.
            pass(200).await;
            reads.fault(fault.clone().always());
            assert_ne!(reads.get(&path).await.status, 200, "{fault:?}");
        }
    }
}

/// Slow lists, while other users are changed through the gateway and elsewhere, eight times a second: each list is
/// requested once, and responses older than a change are not cached.
#[tokio::test(start_paused = true)]
async fn concurrent_writes_do_not_repeat_reads() {
    let reads = Reads::new(CACHE);
    reads.lag(500);
    let lists: Vec<_> = (0..60).map(|offset| format!("/v1/users?limit=10&offset={offset}")).collect();
    let asking = async {
        for chunk in lists.chunks(6) {
            reads.together(chunk.iter().map(|path| get(path))).await;
        }
    };
    let changing = async {
        for number in 0..40 {
            reads.rename(100 + number, "Changed").await;
            reads.announce(200 + number).await;
            tokio::time::sleep(Duration::from_millis(125)).await;
        }
    };
    tokio::join!(asking, changing);
    let asked = reads.targets().iter().filter(|target| target.starts_with("/v1/users?")).count();
    assert_eq!(asked, 60);
    // Responses that no write overtook may be cached; others are fetched once by the next read.
    reads.get(&lists[0]).await;
    reads.get(&lists[0]).await;
    let asked = reads.targets().iter().filter(|target| **target == lists[0]).count();
    assert_eq!(asked, 2);
}
