//! All operations ever run on Redis.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use clerk_client::cache::{Cache, CacheKeyParts, CacheOptions, CachePolicy, CachedResponse};
use clerk_client::limiter::{
    BucketKey, Claim, DistributedLimiter, LeaseEnd, RedisLimiter, Room, SharedCaller, SharedShares,
};
use clerk_client::redis::{RedisClient, RedisOptions};
use clerk_client::webhook::{Invalidate, Tag};
use clerk_quota::Bucket;
use clerk_quota::clock::Clock;
use clerk_test_support::redis::RedisServer;
use http::{HeaderMap, StatusCode};

use crate::support::{MINUTE, channel, key, refused, until};

const BUDGET: BucketKey = BucketKey { bucket: Bucket::Instance, entity: None };

/// Runs everything, ignoring failures, and returns the client.
pub(crate) async fn everything(server: &RedisServer, options: RedisOptions, instance: &str) -> RedisClient {
    let client = RedisClient::new(options).unwrap();
    // The results do not matter: some tests allow only part of the commands.
    let _ = client.set(&key("k"), b"v", MINUTE).await;
    let _ = client.get(&key("k")).await;
    let _ = client.publish(&channel("news"), b"x").await;
    caches(server, &client, instance).await;
    limiters(server, &client, instance).await;
    client
}

fn cache(client: &RedisClient, instance: &str) -> Cache {
    let options = CacheOptions::new(instance).redis(Some(client.clone()));
    Cache::new(options, Arc::new(Clock::new()))
}

async fn caches(server: &RedisServer, client: &RedisClient, instance: &str) {
    let (one, other) = (cache(client, instance), cache(client, instance));
    until("subscribed or refused", async || {
        let is_settled = one.is_connected() && other.is_connected() || !refused(client).is_empty();
        is_settled.then_some(())
    })
    .await;
    let tags = [Tag::Everything, Tag::User("user_1".into())];
    let ask = async |cache: &Cache, path: &str, minutes: u32| {
        let key = cache.key(&CacheKeyParts { method: "GET", path, ..CacheKeyParts::default() });
        let answer = CachedResponse::new(StatusCode::OK, HeaderMap::new(), Bytes::from_static(b"{}"), UNIX_EPOCH);
        let policy = CachePolicy::fresh_for(MINUTE * minutes);
        cache
            .get_or_fetch(key, &tags, policy, || std::future::ready(Ok::<_, std::io::Error>(answer.clone())))
            .await
            .unwrap()
    };
    ask(&one, "/1", 1).await;
    ask(&other, "/1", 1).await;
    // Is stored for longer than the existing generations.
    ask(&one, "/2", 60).await;
    let keys = async |part: &str| -> Vec<String> {
        server.keys().await.into_iter().map(|(key, _)| key).filter(|key| key.contains(part)).collect()
    };
    // An unreadable entry, then one whose generations are lost.
    for answer in keys(":answer:").await {
        let _: i64 = server.command(&["SETRANGE", &answer, "33", "~~~~"]).await;
    }
    ask(&cache(client, instance), "/1", 1).await;
    for tag in keys(":tag:").await {
        let _: i64 = server.command(&["DEL", &tag]).await;
    }
    ask(&cache(client, instance), "/1", 1).await;
    let _ = one.invalidate(&tags[1..]).await;
}

async fn limiters(server: &RedisServer, client: &RedisClient, instance: &str) {
    let limiter = RedisLimiter::new(client.clone(), instance);
    let keys = async |part: &str| -> Option<String> {
        server.keys().await.into_iter().map(|(key, _)| key).find(|key| key.ends_with(part))
    };
    // Slots of a millisecond: each request starts in a new one, and the first finds an expired one, however late it is.
    let short = Room { requests: 1000, window: Duration::from_millis(16), may_explore: false };
    let key_of = |kind: &str| clerk_client::redis::InstanceKeys::new(instance).key(&["pace", "instance", "", kind]);
    let starts = client.key_name(&key_of("starts"));
    let _: i64 = server.command(&["HSET", &starts, "length", "1000", "1", "1"]).await;
    for _ in 0..4 {
        let _ = limiter.take(BUDGET, short, None).await;
        tokio::task::yield_now().await;
    }
    let window = window_in_its_middle(server).await;
    let room = |requests, may_explore| Room { requests, window, may_explore };
    // All kinds of ends.
    let ends = [
        LeaseEnd::Counted { window, answered: true },
        LeaseEnd::Counted { window, answered: false },
        LeaseEnd::NotCounted,
        LeaseEnd::Throttled { wait: Duration::from_millis(1), window },
    ];
    for end in ends {
        let before = client.health().operations;
        let taken = limiter.take(BUDGET, room(1000, false), None).await;
        let lease =
            taken.ok().and_then(|taken| taken.outcome.ok()).unwrap_or_else(|| limiter.enter(BUDGET, window, None));
        limiter.end(BUDGET, lease, end);
        idle(client, before + 2).await;
    }
    // A request that explores: much was sent a window ago, and nothing since.
    let mut admin = server.look().await;
    for part in [":calm", ":counting", ":explorer", ":log", ":block", ":unsure"] {
        if let Some(key) = keys(part).await {
            let _: i64 = server.command(&["DEL", &key]).await;
        }
    }
    let log = client.key_name(&key_of("log"));
    let now = micros(server).await;
    let mut add = redis::cmd("ZADD");
    add.arg(&log);
    for number in 0..1000 {
        add.arg(now - window.as_micros() - 1_000_000 - number).arg(format!("before:{number}"));
    }
    let _: i64 = add.query_async(&mut admin).await.unwrap();
    let before = client.health().operations;
    if let Some(lease) = limiter.take(BUDGET, room(10, true), None).await.ok().and_then(|taken| taken.outcome.ok()) {
        limiter.end(BUDGET, lease, LeaseEnd::Counted { window, answered: true });
        idle(client, before + 2).await;
    }
    // A full log of a server that counts exactly.
    for part in [":log", ":block"] {
        if let Some(key) = keys(part).await {
            let _: i64 = server.command(&["DEL", &key]).await;
        }
    }
    for _ in 0..2 {
        let _ = limiter.take(BUDGET, room(1, false), None).await;
    }
    let _ = limiter.usage(BUDGET, window).await;
    shares(client, &limiter, window).await;
}

/// Two callers with a share, of which one waits and the other one has used its guarantee.
async fn shares(client: &RedisClient, limiter: &RedisLimiter, window: Duration) {
    let caller = |name: &str| SharedCaller { name: name.into(), guarantee: 1, cap: None };
    let take = async |own: usize, requests: u64| {
        let shares = SharedShares {
            callers: vec![caller("first"), caller("second")],
            own: Some(own),
            guaranteed_room: requests,
            ticket: 1,
            patience: window,
        };
        let room = Room { requests, window, may_explore: false };
        limiter.take(BUDGET, room, Some(shares)).await.ok().and_then(|taken| taken.outcome.ok())
    };
    for end in [LeaseEnd::Counted { window, answered: true }, LeaseEnd::NotCounted] {
        let before = client.health().operations;
        let lease = limiter.enter(BUDGET, window, Some("first".into()));
        limiter.end(BUDGET, lease, end);
        idle(client, before + 2).await;
    }
    let claim = || Claim { caller: "second".into(), ticket: 1 };
    let before = client.health().operations;
    limiter.claim(BUDGET, claim(), window);
    idle(client, before + 1).await;
    // Beyond the guarantee, while the other one claims its own; then that one, refused and admitted.
    let _ = take(0, 1).await;
    let _ = take(1, 1).await;
    let _ = take(1, 1000).await;
    let before = client.health().operations;
    limiter.claim(BUDGET, claim(), Duration::ZERO);
    idle(client, before + 1).await;
}

/// Waits until at least `operations` were started and all of them have ended.
async fn idle(client: &RedisClient, operations: u64) {
    until("all operations are over", async || {
        let health = client.health();
        let over = health.succeeded + health.refused + health.unavailable + health.timeouts;
        (health.operations >= operations && over == health.operations).then_some(())
    })
    .await;
}

async fn micros(server: &RedisServer) -> u128 {
    let (seconds, micros): (u128, u128) = server.command(&["TIME"]).await;
    seconds * 1_000_000 + micros
}

/// A window on the clock's grid with neither border near.
async fn window_in_its_middle(server: &RedisServer) -> Duration {
    let now = micros(server).await / 1_000_000;
    let mut windows = (3600..7200).map(Duration::from_secs);
    let is_in_the_middle = |window: &Duration| {
        let elapsed = now % u128::from(window.as_secs());
        (u128::from(window.as_secs()) / 4..u128::from(window.as_secs()) / 2).contains(&elapsed)
    };
    windows.find(is_in_the_middle).unwrap()
}
