//! What every log of all processes does: the same cases over Redis and over the one in memory.

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

/// Asks until what was told before has arrived.
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

async fn what_never_left_is_not_used(log: &dyn DistributedLimiter) {
    let hour = Duration::from_secs(3600);
    let room = Room { requests: 10, window: hour, may_explore: false };
    assert_eq!(log.usage(BUDGET, hour).await.unwrap(), FleetUsage::default());
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(log.take(BUDGET, room).await.unwrap().outcome.unwrap());
    }
    leases.push(log.enter(BUDGET, hour));
    log.enter(OTHER, hour);
    let usage = usage_until(log, hour, |usage| usage.used == 5).await;
    assert_eq!(started(&usage), 5);
    let slot = usage.starts.last().unwrap();
    assert_eq!(slot.length, hour / 16);
    assert!(slot.began_ago <= slot.length + Duration::from_secs(60), "{slot:?}");
    log.end(BUDGET, leases[0], LeaseEnd::Counted { window: hour, answered: true });
    log.end(BUDGET, leases[1], LeaseEnd::NotCounted);
    log.end(BUDGET, leases[2], LeaseEnd::Throttled { wait: Duration::from_millis(1), window: hour });
    let usage = usage_until(log, hour, |usage| usage.used == 3).await;
    assert_eq!(started(&usage), 3);
}

async fn what_ended_a_window_ago_is_not_used_but_told(log: &dyn DistributedLimiter) {
    let window = Duration::from_millis(800);
    for _ in 0..3 {
        let lease = log.enter(BUDGET, window);
        log.end(BUDGET, lease, LeaseEnd::Counted { window, answered: true });
    }
    let in_flight = log.enter(BUDGET, window);
    let usage = usage_until(log, window, |usage| started(usage) == 4).await;
    assert!(usage.used <= 4);
    let usage = usage_until(log, window, |usage| usage.used == 1).await;
    assert_eq!(started(&usage), 4, "{usage:?}");
    assert!(usage.starts.iter().all(|slot| slot.length == window / 16 && slot.began_ago < window * 3));
    assert!(usage.starts.is_sorted_by(|one, other| one.began_ago > other.began_ago), "{usage:?}");
    // It stays in use as long as no process tells its end, whenever it started.
    usage_until(log, window, |usage| started(usage) == 0 && usage.used == 1).await;
    log.end(BUDGET, in_flight, LeaseEnd::Counted { window, answered: true });
    usage_until(log, window, |usage| usage.used == 0).await;
}

const SECOND: Duration = Duration::from_secs(1);
const TEN: Room = Room { requests: 10, window: SECOND, may_explore: true };

/// Asks as fast as there is room, and lets each request end at once, until one is let go as `wanted`; gives its lease.
async fn take_until(log: &dyn DistributedLimiter, wanted: impl Fn(&Taken) -> bool) -> Lease {
    for _ in 0..2_000 {
        let taken = log.take(BUDGET, TEN).await.unwrap();
        match taken.outcome {
            Ok(lease) if wanted(&taken) => return lease,
            Ok(lease) => log.end(BUDGET, lease, LeaseEnd::Counted { window: SECOND, answered: true }),
            Err(wait) => tokio::time::sleep(wait).await,
        }
    }
    panic!("it never came");
}

/// Asks for a while, and expects that nothing explores and that it is known how the server counts.
async fn take_without_exploring(log: &dyn DistributedLimiter, counting: CountingKind) {
    for _ in 0..35 {
        let lease = take_until(log, |_| true).await;
        log.end(BUDGET, lease, LeaseEnd::Counted { window: SECOND, answered: true });
        let taken = log.take(BUDGET, TEN).await.unwrap();
        assert_eq!((taken.counting, taken.explores), (counting, false));
        if let Ok(lease) = taken.outcome {
            log.end(BUDGET, lease, LeaseEnd::NotCounted);
        }
    }
}

async fn one_explores_alone_and_a_429_tells_all(log: &dyn DistributedLimiter) {
    let explorer = take_until(log, |taken| taken.explores).await;
    let other = log.take(BUDGET, TEN).await.unwrap();
    assert_eq!(other.counting, CountingKind::Unknown);
    assert!(other.outcome.is_err_and(|wait| wait <= Duration::from_millis(20)), "{other:?}");
    let wait = Duration::from_millis(1);
    log.end(BUDGET, explorer, LeaseEnd::Throttled { wait, window: SECOND });
    let lease = take_until(log, |taken| taken.counting == CountingKind::SlidingCounter).await;
    log.end(BUDGET, lease, LeaseEnd::NotCounted);
    take_without_exploring(log, CountingKind::SlidingCounter).await;
}

async fn successes_of_those_who_explore_tell_all(log: &dyn DistributedLimiter) {
    let lease = take_until(log, |taken| taken.counting == CountingKind::Exact).await;
    log.end(BUDGET, lease, LeaseEnd::NotCounted);
    take_without_exploring(log, CountingKind::Exact).await;
}

async fn after_a_429_that_nothing_explains_nothing_explores(log: &dyn DistributedLimiter) {
    let lease = take_until(log, |taken| !taken.explores).await;
    let wait = Duration::from_millis(1);
    log.end(BUDGET, lease, LeaseEnd::Throttled { wait, window: SECOND });
    let lease = take_until(log, |taken| taken.throttled == 1).await;
    log.end(BUDGET, lease, LeaseEnd::NotCounted);
    take_without_exploring(log, CountingKind::Unknown).await;
}

async fn play(log: impl AsyncFn() -> Arc<dyn DistributedLimiter>) {
    what_never_left_is_not_used(&*log().await).await;
    what_ended_a_window_ago_is_not_used_but_told(&*log().await).await;
    one_explores_alone_and_a_429_tells_all(&*log().await).await;
    successes_of_those_who_explore_tell_all(&*log().await).await;
    after_a_429_that_nothing_explains_nothing_explores(&*log().await).await;
}

#[tokio::test(start_paused = true)]
async fn the_log_in_memory_keeps_the_contract() {
    play(async || {
        let clock = Arc::new(Clock::simulated(clerk_test_support::start()));
        let log: Arc<dyn DistributedLimiter> = MemoryDistributedLimiter::new(clock, 1);
        log
    })
    .await;
}

#[tokio::test]
async fn the_log_in_redis_keeps_the_contract() {
    let redis = RedisServer::start(&[]).await;
    play(async || {
        let name = format!("{:016x}", fastrand::u64(..));
        let log: Arc<dyn DistributedLimiter> = RedisLimiter::new(redis.store(), &name);
        log
    })
    .await;
}
