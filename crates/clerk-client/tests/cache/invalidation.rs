//! What an invalidation does to answers that are kept, on their way, or yet to come.

use std::time::Duration;

use clerk_client::cache::{Cache, CacheOptions, CachePolicy, Hit};
use clerk_client::webhook::{Invalidate, Tag};
use tokio::time::advance;

use crate::support::{FRESH, MINUTE, Readers, alone, answer, ask, body, clock, hit, key, user};

fn named(name: &str) -> [Tag; 1] {
    [Tag::User(name.into())]
}

#[tokio::test(start_paused = true)]
async fn answers_with_one_of_the_tags_are_forgotten_and_others_are_not() {
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
    // No event speaks of it: it can only age.
    assert!(cache.peek(&untagged).is_some());
    assert_eq!(cache.stats().invalidations, 2);
}

/// A write costs no read a second request: a read that was asked for before may be answered with what it fetched.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_began_before_answers_and_is_not_kept() {
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
async fn who_asks_after_an_invalidation_fetches_anew() {
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
    // The old one comes last, and changes nothing.
    readers.clerk.answer(0, Ok(answer("old"))).await;
    assert_eq!(readers.given().await.iter().map(body).collect::<Vec<_>>(), ["old"]);
    assert_eq!(body(&ask(&cache, key, &tags, FRESH, Ok(answer("never asked"))).await), "new");
}

/// As without a cache: who asked before a change may get an answer from before it, and Clerk is asked once.
#[tokio::test(start_paused = true)]
async fn who_only_shares_a_fetch_keeps_it_and_who_asks_after_an_invalidation_begins_anew() {
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
async fn an_invalidation_of_something_else_does_not_disturb_a_fetch() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    readers.ask(key, &tags, FRESH).await;
    cache.invalidate(&named("user_2")).await.unwrap();
    readers.clerk.answer(0, Ok(answer("one"))).await;
    assert_eq!(hit(&readers.given().await[0]), Hit::Fetched);
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_forgotten_too() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let policy = CachePolicy { stale_while_revalidate: MINUTE, stale_if_error: MINUTE, ..FRESH };
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
async fn what_is_fetched_right_after_an_invalidation_does_not_live_long() {
    let cache = Cache::new(CacheOptions::new("prod"), clock());
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let policy = CachePolicy { stale_if_error: MINUTE, ..FRESH };
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
