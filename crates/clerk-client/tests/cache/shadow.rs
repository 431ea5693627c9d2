//! Dry-run lookups.

use clerk_client::cache::Hit;
use clerk_client::webhook::{Invalidate, Tag};
use tokio::time::advance;

use crate::support::{FRESH, MINUTE, alone, answer, ask, body, key, user};

#[tokio::test(start_paused = true)]
async fn dry_run_reports_the_hit_and_stores_the_fetch() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let shadow = cache.dry_run(key, &tags, FRESH).await;
    assert_eq!(shadow.hit(), None);
    shadow.keep(&answer("one")).await;
    advance(MINUTE / 2).await;
    let shadow = cache.dry_run(key, &tags, FRESH).await;
    assert_eq!(shadow.hit(), Some(Hit::Memory { age: MINUTE / 2 }));
    shadow.keep(&answer("two")).await;
    // As if the first response had been served: it stays and ages.
    assert_eq!(body(&ask(&cache, key, &tags, FRESH, Ok(answer("three"))).await), "one");
    let numbers = cache.stats();
    assert_eq!((numbers.shadow.hits, numbers.shadow.misses), (1, 1));
    assert_eq!((numbers.memory.hits, numbers.memory.misses), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn dry_run_response_before_an_invalidation_is_not_stored() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let shadow = cache.dry_run(key, &tags, FRESH).await;
    cache.invalidate(&[Tag::User("user_1".into())]).await.unwrap();
    shadow.keep(&answer("old")).await;
    assert_eq!((cache.peek(&key), cache.stats().outdated), (None, 1));
}
