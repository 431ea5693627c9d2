//! Looking without giving.

use clerk_client::cache::Hit;
use clerk_client::webhook::{Invalidate, Tag};
use tokio::time::advance;

use crate::support::{FRESH, MINUTE, alone, answer, ask, body, key, user};

#[tokio::test(start_paused = true)]
async fn a_shadow_says_what_would_have_been_given_and_keeps_what_was_fetched() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let shadow = cache.dry_run(key, &tags, FRESH).await;
    assert_eq!(shadow.hit(), None);
    shadow.keep(&answer("one")).await;
    advance(MINUTE / 2).await;
    let shadow = cache.dry_run(key, &tags, FRESH).await;
    assert_eq!(shadow.hit(), Some(Hit::Memory { age: MINUTE / 2 }));
    shadow.keep(&answer("two")).await;
    // As if the answer had been given: the first one, which ages.
    assert_eq!(body(&ask(&cache, key, &tags, FRESH, Ok(answer("three"))).await), "one");
    let numbers = cache.stats();
    assert_eq!((numbers.shadow.hits, numbers.shadow.misses), (1, 1));
    assert_eq!((numbers.memory.hits, numbers.memory.misses), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shadow_s_answer_from_before_an_invalidation_is_not_kept() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let shadow = cache.dry_run(key, &tags, FRESH).await;
    cache.invalidate(&[Tag::User("user_1".into())]).await.unwrap();
    shadow.keep(&answer("old")).await;
    assert_eq!((cache.peek(&key), cache.stats().outdated), (None, 1));
}
