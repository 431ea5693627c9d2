//! One fetch for concurrent requests with the same key.

use clerk_client::cache::{CachePolicy, Hit};
use clerk_client::limiter::Priority;
use clerk_client::webhook::Invalidate;

use crate::support::{FRESH, Failed, Readers, alone, answer, ask, body, hit, key, settle, user};

#[tokio::test(start_paused = true)]
async fn identical_requests_share_one_fetch() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    for _ in 0..100 {
        readers.ask(key, &tags, FRESH).await;
    }
    assert_eq!((readers.clerk.begun(), cache.stats().in_flight), (1, 1));
    readers.clerk.answer(0, Ok(answer("one"))).await;
    let given = readers.given().await;
    assert_eq!(given.len(), 100);
    assert!(given.iter().all(|given| body(given) == "one"));
    assert_eq!(given.iter().filter(|given| hit(given) == Hit::Fetched).count(), 1);
    let numbers = cache.stats();
    assert_eq!((numbers.coalesced, numbers.fetched, numbers.memory.misses, numbers.in_flight), (99, 1, 100, 0));
}

#[tokio::test(start_paused = true)]
async fn fetch_continues_when_the_first_waiter_leaves() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    let first = readers.ask(key, &tags, FRESH).await;
    readers.ask(key, &tags, FRESH).await;
    first.abort();
    assert!(readers.given().await.is_empty());
    readers.clerk.answer(0, Ok(answer("one"))).await;
    let given = readers.given().await;
    assert_eq!((given.len(), hit(&given[0]), body(&given[0])), (1, Hit::Coalesced, "one"));
    assert_eq!(readers.clerk.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn fetch_without_waiters_is_cancelled() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    let both = [readers.ask(key, &tags, FRESH).await, readers.ask(key, &tags, FRESH).await];
    both[0].abort();
    readers.given().await;
    assert!(!readers.clerk.is_cancelled(0));
    both[1].abort();
    readers.given().await;
    assert!(readers.clerk.is_cancelled(0));
    assert_eq!(cache.stats().in_flight, 0);
    // The next request does not wait for it.
    readers.ask(key, &tags, FRESH).await;
    assert_eq!(readers.clerk.begun(), 2);
}

#[tokio::test(start_paused = true)]
async fn error_is_shared_and_not_stored() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    readers.ask(key, &tags, FRESH).await;
    readers.ask(key, &tags, FRESH).await;
    readers.clerk.answer(0, Err(Failed(1))).await;
    let given = readers.given().await;
    assert_eq!(given.len(), 2);
    assert!(given.iter().all(|given| **given.as_ref().unwrap_err() == Failed(1)));
    assert_eq!(body(&ask(&cache, key, &tags, FRESH, Ok(answer("one"))).await), "one");
}

#[tokio::test(start_paused = true)]
async fn error_of_another_type_is_not_shared() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    readers.ask(key, &tags, FRESH).await;
    let clerk = readers.clerk.clone();
    let (given, ()) = tokio::join!(
        cache.get_or_fetch(key, &tags, FRESH, || async { Err::<_, u8>(7) }),
        clerk.answer(0, Err(Failed(1)))
    );
    assert_eq!(*given.unwrap_err(), 7);
    assert_eq!(**readers.given().await[0].as_ref().unwrap_err(), Failed(1));
}

#[tokio::test(start_paused = true)]
async fn coalesce_only_stores_nothing() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    for _ in 0..2 {
        readers.ask(key, &tags, CachePolicy::coalesce_only()).await;
    }
    readers.clerk.answer(0, Ok(answer("one"))).await;
    assert_eq!(readers.given().await.len(), 2);
    readers.ask(key, &tags, CachePolicy::coalesce_only()).await;
    assert_eq!(readers.clerk.begun(), 2);
    let numbers = cache.stats();
    assert_eq!((numbers.entries, numbers.memory.hits, numbers.memory.misses), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn high_priority_does_not_join_low_but_low_joins_high() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let patient = FRESH.sender(Priority::Low);
    let mut readers = Readers::of(&cache);
    readers.ask(key, &tags, patient).await;
    readers.ask(key, &tags, patient).await;
    assert_eq!(readers.clerk.begun(), 1);
    readers.ask(key, &tags, FRESH).await;
    readers.ask(key, &tags, FRESH).await;
    assert_eq!((readers.clerk.begun(), cache.stats().in_flight), (2, 2));
    // A new request joins the fetch that ends first.
    readers.ask(key, &tags, patient).await;
    readers.clerk.answer(1, Ok(answer("urgent"))).await;
    let given = readers.given().await;
    assert_eq!(given.iter().map(body).collect::<Vec<_>>(), ["urgent"; 3]);
    readers.clerk.answer(0, Ok(answer("patient"))).await;
    assert_eq!(readers.given().await.iter().map(body).collect::<Vec<_>>(), ["patient"; 2]);
    assert_eq!((readers.clerk.begun(), cache.stats().in_flight), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_detaches_fetches_of_every_priority() {
    let cache = alone();
    let (key, tags) = (key(&cache, "/v1/users/user_1"), user("user_1"));
    let mut readers = Readers::of(&cache);
    readers.ask(key, &tags, FRESH.sender(Priority::Low)).await;
    readers.ask(key, &tags, FRESH).await;
    cache.invalidate(&tags[1..]).await.unwrap();
    settle().await;
    assert_eq!(readers.clerk.begun(), 2, "no second fetch");
    // A new reader fetches again, and nothing outdated is stored.
    readers.ask(key, &tags, FRESH).await;
    assert_eq!(readers.clerk.begun(), 3);
    readers.clerk.answer(0, Ok(answer("old"))).await;
    readers.clerk.answer(1, Ok(answer("old"))).await;
    assert_eq!(readers.given().await.iter().map(body).collect::<Vec<_>>(), ["old"; 2]);
    readers.clerk.answer(2, Ok(answer("new"))).await;
    assert_eq!(readers.given().await.iter().map(body).collect::<Vec<_>>(), ["new"]);
    assert_eq!(body(&ask(&cache, key, &tags, FRESH, Ok(answer("never fetched"))).await), "new");
    assert_eq!(cache.stats().detached, 2);
}
