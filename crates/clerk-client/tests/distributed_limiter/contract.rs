//! The contract of distributed logs: the same cases for Redis and memory.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::{
    BucketKey, CountingKind, DistributedLimiter, Lease, LeaseEnd, MemoryDistributedLimiter, RedisLimiter, Room, Taken,
};
use clerk_quota::Bucket;
use clerk_quota::clock::Clock;
use clerk_quota::fleet::FleetUsage;
use clerk_test_support::redis::RedisServer;

const BUDGET: BucketKey = BucketKey { bucket: Bucket::Instance, entity: None };
const OTHER: BucketKey = BucketKey { bucket: Bucket::Invitations, entity: None };

/// Polls until earlier reports have arrived.
async fn usage_until(
    log: &dyn DistributedLimiter,
    window: Duration,
    arrived: impl Fn(&FleetUsage) -> bool,
) -> FleetUsage {
    loop {
        let usage = log.usage(BUDGET, window).await.unwrap();
        if arrived(&usage) {
            return usage;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn started(usage: &FleetUsage) -> u64 {
    usage.starts.iter().map(|slot| slot.requests).sum()
}

async fn unsent_requests_are_not_used(log: &dyn DistributedLimiter) {
    let hour = Duration::from_secs(3600);
    let room = Room { requests: 10, window: hour, may_explore: false };
    assert_eq!(log.usage(BUDGET, hour).await.unwrap(), FleetUsage::default());
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(log.take(BUDGET, room, None).await.unwrap().outcome.unwrap());
    }
    leases.push(log.enter(BUDGET, hour, None));
    log.enter(OTHER, hour, None);
    let usage = usage_until(log, hour, |usage| usage.used == 5).await;
    assert_eq!(started(&usage), 5);
    let slot = usage.starts.last().unwrap();
    assert_eq!(slot.length, hour / 16);
    assert!(slot.began_ago <= slot.length + Duration::from_secs(60), "{slot:?}");
    log.end(BUDGET, leases[0].clone(), LeaseEnd::Counted { window: hour, answered: true });
    log.end(BUDGET, leases[1].clone(), LeaseEnd::NotCounted);
    log.end(BUDGET, leases[2].clone(), LeaseEnd::Throttled { wait: Duration::from_millis(1), window: hour });
    let usage = usage_until(log, hour, |usage| usage.used == 3).await;
    assert_eq!(started(&usage), 3);
}

async fn ended_requests_are_unused_but_stay_in_starts(log: &dyn DistributedLimiter) {
    let window = Duration::from_millis(800);
    for _ in 0..3 {
        let lease = log.enter(BUDGET, window, None);
        log.end(BUDGET, lease, LeaseEnd::Counted { window, answered: true });
    }
    let in_flight = log.enter(BUDGET, window, None);
    let usage = usage_until(log, window, |usage| started(usage) == 4).await;
    assert!(usage.used <= 4);
    let usage = usage_until(log, window, |usage| usage.used == 1).await;
    assert_eq!(started(&usage), 4, "{usage:?}");
    assert!(usage.starts.iter().all(|slot| slot.length == window / 16 && slot.began_ago < window * 3));
    assert!(usage.starts.is_sorted_by(|one, other| one.began_ago > other.began_ago), "{usage:?}");
    // An entry stays in use until its end is reported, whenever it started.
    usage_until(log, window, |usage| started(usage) == 0 && usage.used == 1).await;
    log.end(BUDGET, in_flight, LeaseEnd::Counted { window, answered: true });
    usage_until(log, window, |usage| usage.used == 0).await;
}

const SECOND: Duration = Duration::from_secs(1);
const TEN: Room = Room { requests: 10, window: SECOND, may_explore: true };

/// Takes and ends requests as fast as possible until one matches `wanted`; returns its lease.
async fn take_until(log: &dyn DistributedLimiter, wanted: impl Fn(&Taken) -> bool) -> Lease {
    for _ in 0..2_000 {
        let taken = log.take(BUDGET, TEN, None).await.unwrap();
        match taken.outcome {
            Ok(lease) if wanted(&taken) => return lease,
            Ok(lease) => log.end(BUDGET, lease, LeaseEnd::Counted { window: SECOND, answered: true }),
            Err(full) => tokio::time::sleep(full.wait).await,
        }
    }
    panic!("no such request");
}

/// Takes requests for a while, expecting that none explores and that the counting kind is known.
async fn take_without_exploring(log: &dyn DistributedLimiter, counting: CountingKind) {
    for _ in 0..35 {
        let lease = take_until(log, |_| true).await;
        log.end(BUDGET, lease, LeaseEnd::Counted { window: SECOND, answered: true });
        let taken = log.take(BUDGET, TEN, None).await.unwrap();
        assert_eq!((taken.counting, taken.explores), (counting, false));
        if let Ok(lease) = taken.outcome {
            log.end(BUDGET, lease, LeaseEnd::NotCounted);
        }
    }
}

async fn one_explores_alone_and_a_429_is_shared(log: &dyn DistributedLimiter) {
    let explorer = take_until(log, |taken| taken.explores).await;
    let other = log.take(BUDGET, TEN, None).await.unwrap();
    assert_eq!(other.counting, CountingKind::Unknown);
    assert!(other.outcome.as_ref().is_err_and(|full| full.wait <= Duration::from_millis(20)), "{other:?}");
    let wait = Duration::from_millis(1);
    log.end(BUDGET, explorer, LeaseEnd::Throttled { wait, window: SECOND });
    let lease = take_until(log, |taken| taken.counting == CountingKind::SlidingCounter).await;
    log.end(BUDGET, lease, LeaseEnd::NotCounted);
    take_without_exploring(log, CountingKind::SlidingCounter).await;
}

async fn successes_while_exploring_are_shared(log: &dyn DistributedLimiter) {
    let lease = take_until(log, |taken| taken.counting == CountingKind::Exact).await;
    log.end(BUDGET, lease, LeaseEnd::NotCounted);
    take_without_exploring(log, CountingKind::Exact).await;
}

async fn unexplained_429_pauses_exploring(log: &dyn DistributedLimiter) {
    let lease = take_until(log, |taken| !taken.explores).await;
    let wait = Duration::from_millis(1);
    log.end(BUDGET, lease, LeaseEnd::Throttled { wait, window: SECOND });
    let lease = take_until(log, |taken| taken.throttled == 1).await;
    log.end(BUDGET, lease, LeaseEnd::NotCounted);
    take_without_exploring(log, CountingKind::Unknown).await;
}

async fn play(log: impl AsyncFn() -> Arc<dyn DistributedLimiter>) {
    unsent_requests_are_not_used(&*log().await).await;
    ended_requests_are_unused_but_stay_in_starts(&*log().await).await;
    one_explores_alone_and_a_429_is_shared(&*log().await).await;
    successes_while_exploring_are_shared(&*log().await).await;
    unexplained_429_pauses_exploring(&*log().await).await;
}

#[tokio::test(start_paused = true)]
async fn memory_log_keeps_the_contract() {
    play(async || {
        let clock = Arc::new(Clock::simulated(clerk_test_support::start()));
        let log: Arc<dyn DistributedLimiter> = MemoryDistributedLimiter::new(clock, 1);
        log
    })
    .await;
}

#[tokio::test]
async fn redis_log_keeps_the_contract() {
    let redis = RedisServer::start(&[]).await;
    play(async || {
        let name = format!("{:016x}", fastrand::u64(..));
        let log: Arc<dyn DistributedLimiter> = RedisLimiter::new(redis.store(), &name);
        log
    })
    .await;
}
