//! Effects of an invalidation on entries, on fetches in flight, and on later fetches.

use std::time::Duration;

use clerk_client::cache::{Cache, CacheOptions, CachePolicy, Hit};
use clerk_client::webhook::{Invalidate, Tag};
use tokio::time::advance;

use crate::support::{FRESH, MINUTE, Readers, alone, answer, ask, body, clock, hit, key, user};

fn named(name: &str) -> [Tag; 1] {
    [Tag::User(name.into())]
}

#[tokio::test(start_paused = true)]
async fn entries_with_the_tag_are_invalidated_and_others_stay() {
    let cache = alone();
    let keys = ["user_1", "user_2"].map(|name| key(&cache, name));
    ask(&cache, keys[0], &user("user_1"), FRESH, Ok(answer("one"))).await.unwrap();
    ask(&cache, keys[1], &user("user_2"), FRESH, Ok(answer("two"))).await.unwrap();
    let untagged = key(&cache, "/v1/jwks");
    ask(&cache, untagged, &[], FRESH, Ok(answer("keys"))).await.unwrap();
    cache.invalidate(&named("user_1")).await.unwrap();
    assert!(cache.peek(&keys[0]).is_none() && cache.peek(&keys[1]).is_some());
    cache.invalidate(&[Tag::Everything]).await.unwrap();
    assert!(cache.peek(&keys[1]).is_none());
    // No event covers it: it can only expire.
    assert!(cache.peek(&untagged).is_some());
    assert_eq!(cache.stats().invalidations, 2);
}

/// A write causes no second request for a read: a read that began before may receive the earlier response.
#[tokio::test(start_paused = true)]
async fn earlier_fetch_is_returned_but_not_stored() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    for _ in 0..3 {
        readers.ask(key, &tags, FRESH).await;
    }
    for _ in 0..5 {
        cache.invalidate(&named("user_1")).await.unwrap();
    }
    assert!(readers.given().await.is_empty());
    assert_eq!(readers.clerk.begun(), 1);
    readers.clerk.answer(0, Ok(answer("old"))).await;
    assert_eq!(readers.given().await.iter().map(body).collect::<Vec<_>>(), ["old"; 3]);
    assert!(cache.peek(&key).is_none());
    assert_eq!((readers.clerk.begun(), cache.stats().detached), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn request_after_an_invalidation_fetches_again() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    readers.ask(key, &tags, FRESH).await;
    cache.invalidate(&named("user_1")).await.unwrap();
    for _ in 0..2 {
        readers.ask(key, &tags, FRESH).await;
    }
    assert_eq!(readers.clerk.begun(), 2);
    readers.clerk.answer(1, Ok(answer("new"))).await;
    assert_eq!(readers.given().await.iter().map(body).collect::<Vec<_>>(), ["new"; 2]);
    // The old response arrives last and changes nothing.
    readers.clerk.answer(0, Ok(answer("old"))).await;
    assert_eq!(readers.given().await.iter().map(body).collect::<Vec<_>>(), ["old"]);
    assert_eq!(body(&ask(&cache, key, &tags, FRESH, Ok(answer("never fetched"))).await), "new");
}

/// As without a cache: a request from before a change may receive an earlier response, with a single fetch.
#[tokio::test(start_paused = true)]
async fn invalidation_detaches_a_coalesced_fetch() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    for _ in 0..3 {
        readers.ask(key, &tags, CachePolicy::coalesce_only()).await;
    }
    cache.invalidate(&named("user_1")).await.unwrap();
    readers.ask(key, &tags, CachePolicy::coalesce_only()).await;
    assert_eq!((readers.clerk.begun(), cache.stats().detached), (2, 0));
    readers.clerk.answer(0, Ok(answer("old"))).await;
    assert_eq!(readers.given().await.iter().map(body).collect::<Vec<_>>(), ["old"; 3]);
    readers.clerk.answer(1, Ok(answer("new"))).await;
    assert_eq!(readers.given().await.iter().map(body).collect::<Vec<_>>(), ["new"]);
    assert_eq!(readers.clerk.begun(), 2);
}

#[tokio::test(start_paused = true)]
async fn unrelated_invalidation_does_not_detach_a_fetch() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    readers.ask(key, &tags, FRESH).await;
    cache.invalidate(&named("user_2")).await.unwrap();
    readers.clerk.answer(0, Ok(answer("one"))).await;
    assert_eq!(hit(&readers.given().await[0]), Hit::Fetched);
}

#[tokio::test(start_paused = true)]
async fn stale_entry_is_invalidated_too() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let policy = FRESH.stale_while_revalidate(MINUTE).stale_if_error(MINUTE);
    ask(&cache, key, &tags, policy, Ok(answer("old"))).await.unwrap();
    advance(MINUTE * 3 / 2).await;
    cache.invalidate(&named("user_1")).await.unwrap();
    let mut readers = Readers::of(&cache);
    readers.ask(key, &tags, policy).await;
    assert!(readers.given().await.is_empty());
    readers.clerk.answer(0, Err(crate::support::Failed(1))).await;
    assert!(readers.given().await[0].is_err());
}

#[tokio::test(start_paused = true)]
async fn entry_fetched_right_after_an_invalidation_is_short_lived() {
    let cache = Cache::new(CacheOptions::new("prod"), clock());
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let policy = FRESH.stale_if_error(MINUTE);
    advance(MINUTE).await;
    cache.invalidate(&named("user_1")).await.unwrap();
    advance(Duration::from_millis(4900)).await;
    ask(&cache, key, &tags, policy, Ok(answer("maybe old"))).await.unwrap();
    advance(Duration::from_millis(4900)).await;
    assert!(cache.peek(&key).is_some());
    advance(Duration::from_millis(101)).await;
    assert_eq!(body(&ask(&cache, key, &tags, policy, Ok(answer("new"))).await), "new");
    advance(MINUTE / 2).await;
    assert!(cache.peek(&key).is_some());
}
