//! The scripts in a real Redis.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::{BucketKey, DistributedLimiter, LeaseEnd, RedisLimiter, Room, Taken};
use clerk_client::redis::RedisClient;
use clerk_quota::{Bucket, Entity};
use tokio::task::JoinSet;

use clerk_test_support::redis::RedisServer;

const BUDGET: BucketKey = BucketKey { bucket: Bucket::Instance, entity: None };
const HOUR: Duration = Duration::from_secs(3600);

fn room(requests: u64) -> Room {
    Room { requests, window: HOUR, may_explore: false }
}

async fn take(budget: &RedisLimiter, room: Room) -> Taken {
    budget.take(BUDGET, room, None).await.unwrap()
}

/// Waits until reports have arrived.
async fn until(mut arrived: impl AsyncFnMut() -> bool) {
    while !arrived().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn all_processes_together_get_exactly_the_limit() {
    let redis = RedisServer::start(&[]).await;
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let budget = RedisLimiter::new(redis.store(), "prod");
        for _ in 0..25 {
            let budget = Arc::clone(&budget);
            tasks.spawn(async move {
                let mut outcomes = Vec::new();
                for _ in 0..4 {
                    outcomes.push(take(&budget, room(100)).await.outcome);
                }
                outcomes
            });
        }
    }
    let outcomes: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert!(outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(|full| full.wait <= HOUR));
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!((taken, outcomes.len()), (100, 400));
}

#[tokio::test]
async fn buckets_instances_and_entities_are_separate() {
    let redis = RedisServer::start(&[]).await;
    let (prod, dev) = (RedisLimiter::new(redis.store(), "prod"), RedisLimiter::new(redis.store(), "dev"));
    let of = |entity| BucketKey { bucket: Bucket::UserUpdate, entity: Some(Entity(entity)) };
    for budget in [&prod, &dev] {
        for which in [BUDGET, of(1), of(2)] {
            assert!(budget.take(which, room(1), None).await.unwrap().outcome.is_ok());
            assert!(budget.take(which, room(1), None).await.unwrap().outcome.is_err());
        }
    }
}

#[tokio::test]
async fn entries_stay_for_a_window_and_unsent_ones_are_removed() {
    let redis = RedisServer::start(&[]).await;
    let budget = RedisLimiter::new(redis.store(), "prod");
    let first = take(&budget, room(1)).await.outcome.unwrap();
    budget.end(BUDGET, first, LeaseEnd::NotCounted);
    until(async || take(&budget, room(1)).await.outcome.is_ok()).await;

    // A window of a millisecond: ended entries expire soon, those in flight stay.
    let short = Room { requests: 2, window: Duration::from_millis(1), may_explore: false };
    let second = take(&budget, short).await.outcome.unwrap();
    assert!(take(&budget, short).await.outcome.is_err(), "two are in flight");
    budget.end(BUDGET, second, LeaseEnd::Counted { window: short.window, answered: true });
    until(async || take(&budget, short).await.outcome.is_ok()).await;
}

#[tokio::test]
async fn a_429_blocks_the_bucket_for_all_processes() {
    let redis = RedisServer::start(&[]).await;
    let (one, other) = (RedisLimiter::new(redis.store(), "prod"), RedisLimiter::new(redis.store(), "prod"));
    let lease = take(&one, room(100)).await.outcome.unwrap();
    one.end(BUDGET, lease, LeaseEnd::Throttled { wait: Duration::from_secs(1000), window: HOUR });
    until(async || take(&other, room(100)).await.outcome.is_err()).await;
    let wait = take(&other, room(100)).await.outcome.unwrap_err().wait;
    assert!(wait > Duration::from_secs(500) && wait <= Duration::from_secs(1000), "{wait:?}");
    // A shorter block does not shorten it.
    let entered = one.enter(BUDGET, HOUR, None);
    one.end(BUDGET, entered, LeaseEnd::Throttled { wait: Duration::from_secs(1), window: HOUR });
    let later = one.enter(BucketKey { bucket: Bucket::Invitations, entity: None }, HOUR, None);
    one.end(
        BucketKey { bucket: Bucket::Invitations, entity: None },
        later,
        LeaseEnd::Counted { window: HOUR, answered: true },
    );
    until(async || redis.keys().await.iter().any(|(key, _)| key.contains("invitations"))).await;
    assert!(take(&other, room(100)).await.outcome.unwrap_err().wait > Duration::from_secs(400));
}

#[tokio::test]
async fn entered_requests_count_for_take() {
    let redis = RedisServer::start(&[]).await;
    let budget = RedisLimiter::new(redis.store(), "prod");
    budget.enter(BUDGET, HOUR, None);
    until(async || {
        let taken = take(&budget, room(2)).await.outcome;
        if let Ok(lease) = taken {
            budget.end(BUDGET, lease, LeaseEnd::NotCounted);
        }
        take(&budget, room(1)).await.outcome.is_err()
    })
    .await;
}

#[tokio::test]
async fn processes_are_counted_and_every_key_expires() {
    let redis = RedisServer::start(&[]).await;
    let budgets: Vec<_> = (0..3).map(|_| RedisLimiter::new(redis.store(), "prod")).collect();
    for (index, budget) in budgets.iter().enumerate() {
        assert_eq!(take(budget, room(10)).await.processes, index as u64 + 1);
    }
    let lease = budgets[0].enter(BUDGET, HOUR, None);
    budgets[0].end(BUDGET, lease, LeaseEnd::Throttled { wait: Duration::from_secs(100), window: HOUR });
    until(async || redis.keys().await.len() == 6).await;
    for (key, ttl) in redis.keys().await {
        assert!(ttl > 0 && ttl <= 3 * 3_900_000, "{key}: {ttl}");
        assert!(key.contains(":pace:"), "{key}");
    }
}

#[tokio::test]
async fn limiter_is_unreachable_until_the_server_is_back() {
    let mut redis = RedisServer::start(&[]).await;
    let options = redis.options().timeout(Duration::from_millis(500));
    let budget = RedisLimiter::new(RedisClient::new(options).unwrap(), "prod");
    until(async || budget.take(BUDGET, room(10), None).await.is_ok()).await;
    redis.kill().await;
    until(async || budget.take(BUDGET, room(10), None).await.is_err()).await;
    redis.restart().await;
    until(async || budget.take(BUDGET, room(10), None).await.is_ok()).await;
    redis.pause().await;
    until(async || budget.take(BUDGET, room(10), None).await.is_err()).await;
    redis.resume().await;
    until(async || budget.take(BUDGET, room(10), None).await.is_ok()).await;
}
