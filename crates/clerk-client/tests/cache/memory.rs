//! What the memory tier stores, for how long, and how much of it.

use std::time::Duration;

use clerk_client::cache::{Cache, CacheOptions, CachePolicy, Hit};
use http::StatusCode;
use tokio::time::advance;

use crate::support::{FRESH, Failed, MINUTE, Readers, alone, answer, ask, body, clock, hit, key, user, with_status};

const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn ttls_vary_by_at_most_ten_percent() {
    let cache = alone();
    let tags = user("user_1");
    let keys: Vec<_> = (0..200).map(|number| key(&cache, &format!("/v1/users/{number}"))).collect();
    for key in &keys {
        ask(&cache, *key, &tags, FRESH, Ok(answer("one"))).await.unwrap();
    }
    let fresh = || keys.iter().filter(|key| cache.peek(key).is_some()).count();
    advance(MINUTE * 9 / 10 - MILLISECOND).await;
    assert_eq!(fresh(), 200);
    advance(MINUTE / 10).await;
    // With any random numbers, 200 entries do not all expire in the same half of the time.
    assert!((1..200).contains(&fresh()), "{}", fresh());
    advance(MINUTE / 10 + 2 * MILLISECOND).await;
    assert_eq!(fresh(), 0);
}

#[tokio::test(start_paused = true)]
async fn cached_response_reports_its_age() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    ask(&cache, key, &tags, FRESH, Ok(answer("one"))).await.unwrap();
    advance(Duration::from_secs(5)).await;
    let age = Duration::from_secs(5);
    let given = ask(&cache, key, &tags, FRESH, Err(Failed(1))).await;
    assert_eq!((hit(&given), given.unwrap().0.headers().len()), (Hit::Memory { age }, 1));
    assert_eq!(cache.peek(&key), Some(age));
}

#[tokio::test(start_paused = true)]
async fn only_200_and_configured_404_are_stored() {
    let cache = alone();
    let tags = user("user_1");
    let negative = FRESH.negative_ttl(Duration::from_secs(10));
    for status in [200, 201, 204, 206, 301, 302, 304, 400, 401, 403, 404, 410, 422, 429, 500, 503] {
        let reply = || Ok(with_status(StatusCode::from_u16(status).unwrap(), "one"));
        for (policy, is_kept) in [(FRESH, status == 200), (negative, matches!(status, 200 | 404))] {
            let key = key(&cache, &format!("/{status}/{is_kept}/{}", policy.negative_ttl.as_secs()));
            ask(&cache, key, &tags, policy, reply()).await.unwrap();
            assert_eq!(cache.peek(&key).is_some(), is_kept, "{status}");
        }
    }
    advance(Duration::from_secs(11) + MILLISECOND).await;
    assert_eq!(cache.peek(&key(&cache, "/404/true/10")), None);
    assert!(cache.peek(&key(&cache, "/200/true/10")).is_some());
}

#[tokio::test(start_paused = true)]
async fn stale_response_is_served_during_a_single_refresh() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let policy = FRESH.stale_while_revalidate(MINUTE);
    ask(&cache, key, &tags, policy, Ok(answer("old"))).await.unwrap();
    advance(MINUTE * 11 / 10 + MILLISECOND).await;
    let mut readers = Readers::of(&cache);
    for _ in 0..3 {
        readers.ask(key, &tags, policy).await;
    }
    let given = readers.given().await;
    assert_eq!(given.len(), 3);
    for given in &given {
        assert!(matches!(hit(given), Hit::Stale { .. }) && body(given) == "old");
    }
    assert_eq!((readers.clerk.begun(), cache.stats().stale), (1, 3));
    readers.clerk.answer(0, Ok(answer("new"))).await;
    let given = ask(&cache, key, &tags, policy, Err(Failed(1))).await;
    assert!(matches!(hit(&given), Hit::Memory { .. }) && body(&given) == "new");
    // Too old to be served.
    advance(MINUTE * 2 + MINUTE / 10).await;
    assert_eq!(hit(&ask(&cache, key, &tags, policy, Ok(answer("newer"))).await), Hit::Fetched);
}

#[tokio::test(start_paused = true)]
async fn stale_response_is_served_if_the_fetch_fails() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let policy = FRESH.stale_if_error(MINUTE);
    ask(&cache, key, &tags, policy, Ok(answer("old"))).await.unwrap();
    advance(MINUTE * 11 / 10 + MILLISECOND).await;
    let failures = [429, 500, 503].map(|status| Ok(with_status(StatusCode::from_u16(status).unwrap(), "failure")));
    for failure in failures.into_iter().chain([Err(Failed(1))]) {
        let given = ask(&cache, key, &tags, policy, failure).await;
        assert!(matches!(hit(&given), Hit::Stale { .. }) && body(&given) == "old");
    }
    // A response about the request itself is no failure.
    let gone = ask(&cache, key, &tags, policy, Ok(with_status(StatusCode::NOT_FOUND, "gone"))).await;
    assert_eq!((hit(&gone), body(&gone)), (Hit::Fetched, "gone"));
    advance(MINUTE).await;
    assert!(ask(&cache, key, &tags, policy, Err(Failed(2))).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn too_large_responses_are_not_stored() {
    let small = CacheOptions::new("prod").memory_bytes(64 << 10).read_after_write_grace(Duration::ZERO);
    let cache = Cache::new(small, clock());
    let tags = user("user_1");
    let largest = (64 << 10) / 16;
    for (bytes, is_kept) in [(largest - 512, true), (largest, false)] {
        let key = key(&cache, &format!("/{bytes}"));
        ask(&cache, key, &tags, FRESH, Ok(answer(&"x".repeat(bytes)))).await.unwrap();
        assert_eq!(cache.peek(&key).is_some(), is_kept, "{bytes} bytes");
    }
    assert_eq!(cache.stats().dropped, 1);
    let cache = alone();
    let key = key(&cache, "/large");
    ask(&cache, key, &tags, FRESH, Ok(answer(&"x".repeat(256 << 10)))).await.unwrap();
    assert_eq!((cache.peek(&key), cache.stats().dropped), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let memory_bytes = 256 << 10;
    let cache = Cache::new(
        CacheOptions::new("prod").memory_bytes(memory_bytes).read_after_write_grace(Duration::ZERO),
        clock(),
    );
    let tags = user("user_1");
    let bytes = "x".repeat(4096);
    for number in 0..1000 {
        let key = key(&cache, &format!("/{number}"));
        ask(&cache, key, &tags, FRESH, Ok(answer(&bytes))).await.unwrap();
        let numbers = cache.stats();
        assert!(numbers.bytes <= memory_bytes && numbers.bytes >= numbers.entries * 4096, "{numbers:?}");
    }
    assert!(cache.stats().entries > 10);
}

#[tokio::test(start_paused = true)]
async fn without_memory_every_request_is_fetched() {
    let cache = Cache::new(CacheOptions::new("prod").memory_bytes(0), clock());
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    for _ in 0..2 {
        assert_eq!(hit(&ask(&cache, key, &tags, FRESH, Ok(answer("one"))).await), Hit::Fetched);
    }
}

#[tokio::test(start_paused = true)]
async fn extreme_policies_are_accepted() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let ever = Duration::MAX;
    let stale = CachePolicy::fresh_for(ever).stale_while_revalidate(ever).stale_if_error(ever);
    let policy = stale.negative_ttl(ever);
    ask(&cache, key, &tags, policy, Ok(answer("one"))).await.unwrap();
    assert!(cache.peek(&key).is_some());
    let short = CachePolicy::fresh_for(Duration::from_nanos(1));
    assert_eq!(hit(&ask(&cache, self::key(&cache, "/short"), &tags, short, Ok(answer("one"))).await), Hit::Fetched);
}

#[tokio::test(start_paused = true)]
async fn instances_share_nothing() {
    let (prod, dev) = (alone(), Cache::new(CacheOptions::new("dev"), clock()));
    assert_ne!(key(&prod, "/v1/users"), key(&dev, "/v1/users"));
}

#[tokio::test(start_paused = true)]
async fn suspension_expires_entries_but_wall_clock_changes_do_not() {
    let clock = clock();
    let options = CacheOptions::new("prod").read_after_write_grace(Duration::ZERO);
    let cache = Cache::new(options, std::sync::Arc::clone(&clock));
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    ask(&cache, key, &tags, FRESH, Ok(answer("one"))).await.unwrap();
    for step in [3600, -3600, 86_400, -86_400] {
        clock.simulate_step(step);
        assert!(cache.peek(&key).is_some(), "{step}");
        let given = ask(&cache, key, &tags, FRESH, Err(Failed(1))).await;
        assert!(matches!(hit(&given), Hit::Memory { .. }), "{step}");
    }
    clock.simulate_suspend(MINUTE * 2);
    assert_eq!(cache.peek(&key), None);
    assert_eq!(body(&ask(&cache, key, &tags, FRESH, Ok(answer("two"))).await), "two");
}
