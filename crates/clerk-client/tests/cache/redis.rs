//! Two processes over a real Redis that works, is lost, is full, or contains invalid data.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::cache::{Cache, CacheOptions, Encryption, Hit};
use clerk_client::redis::{self, RedisClient};
use clerk_client::secret::{Secret, SecretSource};
use clerk_client::webhook::{Invalidate, Tag};
use clerk_quota::clock::Clock;
use tokio::time::{sleep, timeout};

use crate::support::{FRESH, Failed, Readers, answer, ask, body, hit, key, over, user};
use clerk_test_support::redis::RedisServer;

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = timeout(Duration::from_secs(60), async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    });
    wait.await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn heard(cache: &Cache) {
    until("the subscription works", async || cache.is_connected()).await;
}

/// A cache of another process, with a working subscription.
async fn process(redis: &RedisServer) -> Cache {
    let cache = over(redis.store());
    heard(&cache).await;
    cache
}

fn sealed(redis: &RedisServer, key: &str) -> Cache {
    let key = SecretSource::Inline(Secret::new(key.repeat(32)));
    let seal = Some(Encryption::new(&key, &[]).unwrap());
    Cache::new(CacheOptions::new("prod").redis(Some(redis.store())).encryption(seal), Arc::new(Clock::new()))
}

fn user_1() -> [Tag; 1] {
    [Tag::User("user_1".into())]
}

async fn key_of_the_entry(redis: &RedisServer) -> Option<String> {
    redis.keys().await.into_iter().map(|(key, _)| key).find(|key| key.contains(":answer:"))
}

#[tokio::test]
async fn entries_are_shared_and_every_key_has_a_ttl() {
    let redis = RedisServer::start(&[]).await;
    let (one, other) = (process(&redis).await, process(&redis).await);
    let (key, tags) = (key(&one, "/v1/users/user_1"), user("user_1"));
    assert_eq!(hit(&ask(&one, key, &tags, FRESH, Ok(answer("one"))).await), Hit::Fetched);
    let found = ask(&other, key, &tags, FRESH, Err(Failed(1))).await;
    assert!(matches!(hit(&found), Hit::Redis { .. }) && body(&found) == "one");
    let (found, _) = found.unwrap();
    assert_eq!((found.headers().len(), found.fetched_at()), (1, clerk_test_support::start()));
    // From then on it is in memory.
    let again = ask(&other, key, &tags, FRESH, Err(Failed(1))).await;
    assert!(matches!(hit(&again), Hit::Memory { .. }));
    let numbers = [one.stats().redis, other.stats().redis].map(|redis| (redis.hits, redis.misses, redis.stored));
    assert_eq!(numbers, [(0, 1, 1), (1, 0, 0)]);
    let keys = redis.keys().await;
    assert_eq!(keys.len(), 3, "{keys:?}");
    for (key, ttl) in keys {
        assert!(ttl > 0, "{key} has no TTL");
        let longest = if key.contains(":answer:") { 66_000 } else { 3_600_000 };
        assert!(ttl <= longest, "{key} lives for {ttl} ms");
        assert!(!key.contains("user_1"), "{key}");
    }
}

#[tokio::test]
async fn invalidation_reaches_all_processes() {
    let redis = RedisServer::start(&[]).await;
    let (one, other) = (process(&redis).await, process(&redis).await);
    let (key, tags) = (key(&one, "/v1/users/user_1"), user("user_1"));
    for cache in [&one, &other] {
        ask(cache, key, &tags, FRESH, Ok(answer("old"))).await.unwrap();
    }
    let mut waiting = Readers::of(&other);
    let slow = self::key(&other, "/v1/users/user_1/slow");
    waiting.ask(slow, &tags, FRESH).await;
    until("the fetch has begun", async || waiting.clerk.begun() == 1).await;
    one.invalidate(&user_1()).await.unwrap();
    assert!(one.peek(&key).is_none());
    until("the invalidation arrives", async || other.stats().heard == 1).await;
    assert!(other.peek(&key).is_none());
    assert_eq!(body(&ask(&other, key, &tags, FRESH, Ok(answer("new"))).await), "new");
    assert_eq!(body(&ask(&one, key, &tags, FRESH, Err(Failed(1))).await), "new");
    // Waiters of an old fetch receive its response, which is not stored.
    waiting.clerk.answer(0, Ok(answer("old"))).await;
    until("the response was returned", async || other.stats().detached == 1).await;
    assert_eq!(waiting.given().await.iter().map(body).collect::<Vec<_>>(), ["old"]);
    assert!(other.peek(&slow).is_none());
    // Ignores its own message.
    assert_eq!((one.stats().heard, one.stats().detached), (0, 0));
}

/// Redis was slow or unreachable: its older entries are not used, and the invalidation is retried.
#[tokio::test]
async fn failed_invalidation_is_retried_and_its_entries_unused() {
    let redis = RedisServer::start(&[]).await;
    let (one, other) = (process(&redis).await, process(&redis).await);
    let (key, tags) = (key(&one, "/v1/users/user_1"), user("user_1"));
    ask(&one, key, &tags, FRESH, Ok(answer("old"))).await.unwrap();
    redis.pause().await;
    one.invalidate(&user_1()).await.unwrap_err();
    redis.resume().await;
    let place = key_of_the_entry(&redis).await;
    assert!(place.is_some(), "the old answer is still there");
    assert_eq!(body(&ask(&one, key, &tags, FRESH, Ok(answer("new"))).await), "new");
    until("other processes receive it", async || other.stats().heard == 1).await;
    assert_eq!(body(&ask(&other, key, &tags, FRESH, Ok(answer("new"))).await), "new");
    // Then everything works as before.
    let third = process(&redis).await;
    let found = ask(&third, key, &tags, FRESH, Err(Failed(1))).await;
    assert!(matches!(hit(&found), Hit::Redis { .. }) && body(&found) == "new");
}

#[tokio::test]
async fn fetch_before_a_missed_invalidation_is_not_stored_in_redis() {
    let redis = RedisServer::start(&[]).await;
    let (one, other) = (process(&redis).await, over(redis.store()));
    let (key, tags) = (key(&one, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&other);
    readers.ask(key, &tags, FRESH).await;
    until("the fetch has begun", async || readers.clerk.begun() == 1).await;
    // Like a process whose message does not arrive.
    let tags_there: Vec<_> = redis.keys().await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(tags_there.len(), 2);
    for tag in &tags_there {
        let _: i64 = redis.command(&["DEL", tag]).await;
    }
    readers.clerk.answer(0, Ok(answer("old"))).await;
    until("it is not stored", async || other.stats().outdated == 1).await;
    assert_eq!(key_of_the_entry(&redis).await, None);
    // A fetch that began later is stored.
    assert_eq!(hit(&ask(&one, key, &tags, FRESH, Ok(answer("new"))).await), Hit::Fetched);
    assert!(key_of_the_entry(&redis).await.is_some());
}

#[tokio::test]
async fn entry_with_lost_generations_is_outdated() {
    let redis = RedisServer::start(&[]).await;
    let one = process(&redis).await;
    let (key, tags) = (key(&one, "/v1/users/user_1"), user("user_1"));
    ask(&one, key, &tags, FRESH, Ok(answer("old"))).await.unwrap();
    for (name, _) in redis.keys().await {
        if name.contains(":tag:") {
            let _: i64 = redis.command(&["DEL", &name]).await;
            let other = process(&redis).await;
            assert_eq!(hit(&ask(&other, key, &tags, FRESH, Ok(answer("new"))).await), Hit::Fetched);
        }
    }
}

#[tokio::test]
async fn memory_and_clerk_serve_while_redis_is_lost() {
    let mut redis = RedisServer::start(&[]).await;
    let cache = process(&redis).await;
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    ask(&cache, key, &tags, FRESH, Ok(answer("old"))).await.unwrap();
    redis.kill().await;
    until("the loss is noticed", async || !cache.is_connected()).await;
    // Memory is cleared, since invalidations may have been missed.
    assert_eq!((cache.peek(&key), cache.stats().disconnects), (None, 1));
    assert_eq!(body(&ask(&cache, key, &tags, FRESH, Ok(answer("new"))).await), "new");
    // For a short time.
    assert_eq!(body(&ask(&cache, key, &tags, FRESH, Ok(answer("newer"))).await), "new");
    let error = cache.invalidate(&user_1()).await.unwrap_err();
    assert!(error.to_string().contains("Redis"), "{error}");
    assert_eq!(cache.peek(&key), None);
    assert!(cache.stats().redis.errors > 0);
    redis.restart().await;
    heard(&cache).await;
    until("Redis is used again", async || {
        cache.invalidate(&user_1()).await.is_ok()
            && ask(&cache, key, &tags, FRESH, Ok(answer("newest"))).await.is_ok()
            && key_of_the_entry(&redis).await.is_some()
    })
    .await;
}

#[tokio::test]
async fn cache_starts_without_redis_and_uses_it_later() {
    let mut redis = RedisServer::start(&[]).await;
    redis.kill().await;
    let cache = over(redis.store());
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    assert_eq!(hit(&ask(&cache, key, &tags, FRESH, Ok(answer("one"))).await), Hit::Fetched);
    redis.restart().await;
    heard(&cache).await;
    assert_eq!(cache.peek(&key), None);
}

#[tokio::test]
async fn disconnected_entries_live_for_disconnected_ttl() {
    let mut redis = RedisServer::start(&[]).await;
    redis.kill().await;
    for (disconnected_ttl, is_kept) in [(Duration::ZERO, false), (Duration::from_secs(3600), true)] {
        let options =
            CacheOptions::new("prod").disconnected_ttl(disconnected_ttl).read_after_write_grace(Duration::ZERO);
        let cache = Cache::new(options.redis(Some(redis.store())), Arc::new(Clock::new()));
        let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
        ask(&cache, key, &tags, FRESH, Ok(answer("one"))).await.unwrap();
        assert_eq!(cache.peek(&key).is_some(), is_kept);
    }
}

/// Redis works but refuses subscriptions from the start: memory may be outdated and is not used.
#[tokio::test]
async fn cache_without_a_subscription_does_not_use_memory() {
    let redis = RedisServer::start(&[]).await;
    let url = redis.url_of_user("app", &["~*", "+@all"]).await;
    let deaf = || over(RedisClient::new(redis.options().url(url.clone())).unwrap());
    let (one, other) = (deaf(), deaf());
    let (key, tags) = (key(&one, "/v1/users/user_1"), user("user_1"));
    let policy = FRESH.stale_if_error(Duration::from_secs(600));
    for cache in [&one, &other] {
        ask(cache, key, &tags, policy, Ok(answer("old"))).await.unwrap();
        assert!(matches!(hit(&ask(cache, key, &tags, policy, Err(Failed(1))).await), Hit::Redis { .. }));
        assert!(cache.dry_run(key, &tags, policy).await.hit().is_some_and(|hit| matches!(hit, Hit::Redis { .. })));
    }
    one.invalidate(&user_1()).await.unwrap();
    // Not even if the fetch fails.
    assert!(ask(&other, key, &tags, policy, Err(Failed(1))).await.is_err());
    assert_eq!(body(&ask(&other, key, &tags, policy, Ok(answer("new"))).await), "new");
    assert_eq!(body(&ask(&one, key, &tags, policy, Err(Failed(1))).await), "new");
    assert_eq!([one.stats().memory.hits, other.stats().memory.hits], [0, 0]);
    assert!(!one.is_connected() && !other.is_connected());
}

#[tokio::test]
async fn broken_subscription_clears_memory_but_not_redis() {
    let redis = RedisServer::start(&[]).await;
    let cache = process(&redis).await;
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    ask(&cache, key, &tags, FRESH, Ok(answer("one"))).await.unwrap();
    let _: i64 = redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    until("the loss is noticed", async || cache.stats().disconnects == 1).await;
    heard(&cache).await;
    assert_eq!(cache.peek(&key), None);
    assert!(matches!(hit(&ask(&cache, key, &tags, FRESH, Err(Failed(1))).await), Hit::Redis { .. }));
}

#[tokio::test]
async fn stopped_redis_delays_requests_by_its_timeout_at_most() {
    let redis = RedisServer::start(&[]).await;
    let patience = Duration::from_millis(50);
    let options = redis.options().timeout(patience).connect_timeout(patience);
    let cache = over(RedisClient::new(options).unwrap());
    let tags = user("user_1");
    redis.pause().await;
    // Too many requests to wait for the timeout one after another.
    let requests = timeout(Duration::from_secs(60), async {
        for number in 0..5000 {
            let key = key(&cache, &format!("/{number}"));
            assert_eq!(hit(&ask(&cache, key, &tags, FRESH, Ok(answer("one"))).await), Hit::Fetched);
        }
    });
    requests.await.unwrap();
    assert!(cache.stats().redis.errors >= 5);
    assert!(cache.invalidate(&user_1()).await.is_err());
    redis.resume().await;
    until("Redis is used again", async || cache.invalidate(&user_1()).await.is_ok()).await;
}

#[tokio::test]
async fn full_redis_serves_and_invalidates_but_stores_nothing() {
    let redis = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let (one, other) = (process(&redis).await, process(&redis).await);
    let (key, tags) = (key(&one, "/v1/users/user_1"), user("user_1"));
    ask(&one, key, &tags, FRESH, Ok(answer("one"))).await.unwrap();
    let () = redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(matches!(hit(&ask(&other, key, &tags, FRESH, Err(Failed(1))).await), Hit::Redis { .. }));
    let second = self::key(&other, "/v1/users/user_2");
    assert_eq!(hit(&ask(&other, second, &user("user_2"), FRESH, Ok(answer("two"))).await), Hit::Fetched);
    assert_eq!(other.stats().redis.errors, 1);
    one.invalidate(&user_1()).await.unwrap();
    until("the invalidation arrives", async || other.stats().heard == 1).await;
    assert_eq!(hit(&ask(&other, key, &tags, FRESH, Ok(answer("new"))).await), Hit::Fetched);
}

#[tokio::test]
async fn unreadable_entry_is_removed_and_fetched_again() {
    let redis = RedisServer::start(&[]).await;
    let one = process(&redis).await;
    let (key, tags) = (key(&one, "/v1/users/user_1"), user("user_1"));
    ask(&one, key, &tags, FRESH, Ok(answer("one"))).await.unwrap();
    let place = key_of_the_entry(&redis).await.unwrap();
    // After the number of generations and two of them: another version, a cipher, a length, nothing, more.
    for (offset, bytes) in [(33, "\x02"), (34, "\x01"), (61, "~"), (0, "\0")] {
        let _: i64 = redis.command(&["SETRANGE", &place, &offset.to_string(), bytes]).await;
        let other = process(&redis).await;
        let given = ask(&other, key, &tags, FRESH, Err(Failed(1))).await;
        assert!(given.is_err(), "{offset}");
        assert_eq!(key_of_the_entry(&redis).await, None, "{offset}");
        let numbers = other.stats().redis;
        assert_eq!((numbers.hits, numbers.misses, numbers.errors), (0, 1, 0));
        ask(&other, key, &tags, FRESH, Ok(answer("two"))).await.unwrap();
    }
}

#[tokio::test]
async fn encrypted_entries_need_the_key() {
    let redis = RedisServer::start(&[]).await;
    let canary = "CANARY jane@example.com";
    let one = sealed(&redis, "0a");
    let key = one.key(&clerk_client::cache::CacheKeyParts {
        method: "GET",
        path: "/v1/users",
        query: Some("email_address=CANARY"),
        ..Default::default()
    });
    let tags = user("user_CANARY");
    ask(&one, key, &tags, FRESH, Ok(answer(canary))).await.unwrap();
    let place = key_of_the_entry(&redis).await.unwrap();
    let shown = async || {
        let value: Vec<u8> = redis.command(&["GET", &place]).await;
        String::from_utf8_lossy(&value).into_owned()
    };
    let value = shown().await;
    assert!(!value.contains("CANARY") && !value.contains("content-type"), "{value}");
    for (name, _) in redis.keys().await {
        assert!(!name.contains("CANARY"), "{name}");
    }
    let found = ask(&sealed(&redis, "0a"), key, &tags, FRESH, Err(Failed(1))).await;
    assert!(matches!(hit(&found), Hit::Redis { .. }) && body(&found) == canary);
    // With another key or none, it is unreadable, and so is a plain entry where encrypted ones are required.
    for cache in [sealed(&redis, "0b"), process(&redis).await, sealed(&redis, "0a")] {
        assert!(ask(&cache, key, &tags, FRESH, Err(Failed(1))).await.is_err());
        assert_eq!(key_of_the_entry(&redis).await, None);
        ask(&cache, key, &tags, FRESH, Ok(answer(canary))).await.unwrap();
    }
    process(&redis).await;
    let _: i64 = redis.command(&["DEL", &place]).await;
    ask(&process(&redis).await, key, &tags, FRESH, Ok(answer(canary))).await.unwrap();
    assert!(shown().await.contains(canary));
}

#[tokio::test]
async fn stale_redis_entry_is_served_if_the_fetch_fails() {
    let redis = RedisServer::start(&[]).await;
    let policy = FRESH.stale_if_error(Duration::from_secs(600));
    let one = process(&redis).await;
    let (key, tags) = (key(&one, "/v1/users/user_1"), user("user_1"));
    ask(&one, key, &tags, policy, Ok(answer("old"))).await.unwrap();
    let place = key_of_the_entry(&redis).await.unwrap();
    let left: i64 = redis.command(&["PTTL", &place]).await;
    assert!((600_000..=666_000).contains(&left), "{left}");
    // As if it were no longer fresh.
    let _: i64 = redis.command(&["PEXPIRE", &place, "500000"]).await;
    let (failing, working) = (process(&redis).await, process(&redis).await);
    let given = ask(&failing, key, &tags, policy, Err(Failed(1))).await;
    assert!(matches!(hit(&given), Hit::Stale { .. }) && body(&given) == "old");
    assert_eq!(hit(&ask(&working, key, &tags, policy, Ok(answer("new"))).await), Hit::Fetched);
    // Without `stale_if_error`, no stale response is served.
    let _: i64 = redis.command(&["PEXPIRE", &place, "500000"]).await;
    assert!(ask(&process(&redis).await, key, &tags, FRESH, Err(Failed(1))).await.is_err());
}

#[test]
fn cache_resubscribes_in_a_new_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (server, first) = (runtime(), runtime());
    let redis = server.block_on(RedisServer::start(&[]));
    let cache = first.block_on(process(&redis));
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    first.block_on(ask(&cache, key, &tags, FRESH, Ok(answer("one")))).unwrap();
    drop(first);
    assert!(!cache.is_connected() && cache.peek(&key).is_none());
    let second = runtime();
    let given = second.block_on(async {
        let given = ask(&cache, key, &tags, FRESH, Err(Failed(1))).await;
        heard(&cache).await;
        given
    });
    assert!(matches!(hit(&given), Hit::Redis { .. }));
}

#[tokio::test]
async fn unreadable_message_invalidates_everything() {
    let redis = RedisServer::start(&[]).await;
    let cache = process(&redis).await;
    let tags = user("user_1");
    let messages =
        ["", "not JSON", "{\"from\":\"x\",\"forget\":[\"from_the_future:1\"]}", "{\"from\":\"x\",\"forget\":3}"];
    let channel = redis::InstanceKeys::new("prod").channel(&["forget"]);
    for (number, message) in messages.into_iter().enumerate() {
        let key = key(&cache, &format!("/{number}"));
        ask(&cache, key, &tags, FRESH, Ok(answer("one"))).await.unwrap();
        assert!(cache.peek(&key).is_some());
        redis.store().publish(&channel, message.as_bytes()).await.unwrap();
        until("the message arrives", async || cache.stats().heard == number as u64 + 1).await;
        assert_eq!(cache.peek(&key), None, "{message}");
    }
}

#[tokio::test]
async fn dry_run_looks_in_redis_too() {
    let redis = RedisServer::start(&[]).await;
    let (one, other) = (process(&redis).await, process(&redis).await);
    let (key, tags) = (key(&one, "/v1/users/user_1"), user("user_1"));
    one.dry_run(key, &tags, FRESH).await.keep(&answer("one")).await;
    assert!(matches!(other.dry_run(key, &tags, FRESH).await.hit(), Some(Hit::Redis { .. })));
}
