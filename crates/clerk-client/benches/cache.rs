//! Cost of a cache hit in memory.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clerk_client::cache::{Cache, CacheKeyParts, CacheOptions, CachePolicy, CachedResponse};
use clerk_client::webhook::tags_of_route;
use clerk_quota::clock::Clock;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, StatusCode};

const USERS: usize = 10_000;

fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache");
    let cache = Cache::new(CacheOptions::new("bench"), Arc::new(Clock::new()));
    let policy = CachePolicy::fresh_for(Duration::from_secs(3600));
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let answer = CachedResponse::new(StatusCode::OK, headers, Bytes::from(vec![b'x'; 2048]), SystemTime::now());
    let paths: Vec<_> = (0..USERS).map(|number| format!("/v1/users/user_{number:027}")).collect();
    let parts = |number: usize| CacheKeyParts {
        method: "GET",
        path: &paths[number % USERS],
        query: Some("limit=10&offset=0"),
        accept: Some(b"application/json"),
        accept_encoding: Some(b"gzip, br"),
        api_version: Some(b"2025-11-10"),
    };
    let tags = tags_of_route("/v1/users/{user_id}/organization_memberships", &["user_1"]);
    // A hit never waits: one poll completes it.
    let get = |key| {
        let fetch = || std::future::ready(Ok::<_, std::convert::Infallible>(answer.clone()));
        cache.get_or_fetch(key, &tags, policy, fetch).now_or_never()
    };
    let keys: Vec<_> = (0..USERS).map(|number| cache.key(&parts(number))).collect();
    for key in &keys {
        get(*key);
    }
    let mut number = 0;
    let mut next = move || {
        number = (number + 7919) % USERS;
        number
    };
    group.bench_function("key of a request", |bencher| bencher.iter(|| cache.key(black_box(&parts(next())))));
    group.bench_function("hit in memory", |bencher| bencher.iter(|| get(black_box(keys[next()]))));
    let numbers = cache.stats();
    assert!(numbers.memory.hits > numbers.memory.misses, "{numbers:?}");
    group.finish();
}

criterion_group!(benches, hits);
criterion_main!(benches);
