//! Shares of callers in distributed logs: the same cases for Redis and memory.
//!
//! Windows last an hour, so that nothing depends on time.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::{
    BucketKey, Claim, DistributedLimiter, Lease, LeaseEnd, MemoryDistributedLimiter, RedisLimiter, Room, SharedCaller,
    SharedShares, Taken,
};
use clerk_quota::Bucket;
use clerk_quota::clock::Clock;
use clerk_test_support::redis::RedisServer;

const BUDGET: BucketKey = BucketKey { bucket: Bucket::Instance, entity: None };
const HOUR: Duration = Duration::from_secs(3600);
const TEN: Room = Room { requests: 10, window: HOUR, may_explore: false };

/// A process with two callers: `import` has 4 of 10 guaranteed, `batch` may use 3 at most.
struct Process {
    log: Arc<dyn DistributedLimiter>,
    first_ticket: u64,
}

const IMPORT: Option<usize> = Some(0);
const BATCH: Option<usize> = Some(1);

impl Process {
    async fn take(&self, own: Option<usize>, ticket: u64) -> Taken {
        let caller = |name: &str, guarantee, cap| SharedCaller { name: name.into(), guarantee, cap };
        let shares = SharedShares {
            callers: vec![caller("import", 4, None), caller("batch", 0, Some(3))],
            own,
            guaranteed_room: 10,
            ticket: self.first_ticket + ticket,
            patience: HOUR,
        };
        // A reserve of 1 for requests beyond a guarantee.
        let room = Room { requests: if own == IMPORT { 9 } else { 10 }, ..TEN };
        self.log.take(BUDGET, room, Some(shares)).await.unwrap()
    }

    async fn take_all(&self, own: Option<usize>, count: u64) -> Vec<Lease> {
        let mut leases = Vec::new();
        for ticket in 0..count {
            leases.push(self.take(own, ticket).await.outcome.unwrap());
        }
        leases
    }

    fn claim(&self, ticket: u64, patience: Duration) {
        let claim = Claim { caller: "import".into(), ticket: self.first_ticket + ticket };
        self.log.claim(BUDGET, claim, patience);
    }

    /// Ends a request as if never sent.
    async fn give_back(&self, lease: Lease) {
        let used = self.used().await;
        self.log.end(BUDGET, lease, LeaseEnd::NotCounted);
        until(async || self.used().await < used).await;
    }

    /// Waits for claims, which arrive in the background.
    async fn until_refused(&self, ticket: u64) {
        while let Ok(lease) = self.take(None, ticket).await.outcome {
            self.give_back(lease).await;
        }
    }

    async fn used(&self) -> u64 {
        self.log.usage(BUDGET, HOUR).await.unwrap().used
    }
}

/// Reports arrive in the background.
async fn until(condition: impl AsyncFn() -> bool) {
    while !condition().await {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn cap_is_of_the_caller_alone(one: &Process) {
    let leases = one.take_all(BATCH, 3).await;
    let full = one.take(BATCH, 3).await.outcome.unwrap_err();
    assert!(full.is_capped && full.wait > HOUR / 2, "{full:?}");
    assert!(one.take(None, 4).await.outcome.is_ok());
    one.give_back(leases[1].clone()).await;
    until(async || one.take(BATCH, 5).await.outcome.is_ok()).await;
    // What leaves without asking counts all the same.
    let used = one.used().await;
    let entered = one.log.enter(BUDGET, HOUR, Some("batch".into()));
    until(async || one.used().await > used).await;
    one.log.end(BUDGET, leases[0].clone(), LeaseEnd::Counted { window: HOUR, answered: true });
    one.give_back(leases[2].clone()).await;
    assert!(one.take(BATCH, 6).await.outcome.is_err_and(|full| full.is_capped));
    one.give_back(entered).await;
    until(async || one.take(BATCH, 7).await.outcome.is_ok()).await;
}

async fn what_was_lent_returns_to_its_caller_first(one: &Process, other: &Process) {
    let mut lent = other.take_all(None, 10).await;
    let refused = one.take(IMPORT, 0).await;
    assert!(refused.is_guaranteed && refused.guarantee_wait.is_zero());
    assert!(refused.outcome.is_err_and(|full| !full.is_capped));
    other.give_back(lent.pop().unwrap()).await;
    let held = other.take(None, 20).await.outcome.unwrap_err();
    assert!(held.wait <= HOUR / 16, "what is held back may become free soon: {held:?}");
    assert!(one.take(IMPORT, 0).await.outcome.is_ok(), "the reserve is not for it");
    // It claims no more.
    other.give_back(lent.pop().unwrap()).await;
    assert!(other.take(None, 20).await.outcome.is_ok());
}

async fn claims_hold_back_the_guarantee_at_most(one: &Process, other: &Process) {
    let own = one.take_all(IMPORT, 2).await;
    for ticket in 2..9 {
        one.claim(ticket, HOUR);
    }
    // 7 claims, of which 2 are within the guarantee: 8 of 10 are left to others.
    let lent = other.take_all(None, 6).await;
    other.until_refused(6).await;
    for ticket in 2..9 {
        one.claim(ticket, Duration::ZERO);
    }
    until(async || other.take(None, 6).await.outcome.is_ok()).await;
    drop((own, lent));
}

async fn use_beyond_the_guarantee_ranks_with_that_of_others(one: &Process, other: &Process) {
    let own = one.take_all(IMPORT, 4).await;
    let taken = one.take(IMPORT, 4).await;
    assert!(taken.outcome.is_ok() && !taken.is_guaranteed && taken.guarantee_wait > HOUR / 2, "{taken:?}");
    let lent = other.take_all(None, 5).await;
    // Now 10 are used. Of what is free then, a request beyond the guarantee leaves the reserve, and another need not.
    assert!(one.take(IMPORT, 5).await.outcome.is_err());
    other.give_back(lent[0].clone()).await;
    assert!(one.take(IMPORT, 5).await.outcome.is_err(), "it leaves the reserve");
    assert!(other.take(None, 5).await.outcome.is_ok(), "a claim beyond the guarantee holds nothing back");
    one.give_back(own[0].clone()).await;
    one.give_back(own[1].clone()).await;
    let taken = one.take(IMPORT, 5).await;
    assert!(taken.is_guaranteed && taken.outcome.is_ok(), "{taken:?}");
}

async fn play(processes: impl AsyncFn() -> [Process; 2]) {
    let [one, _] = processes().await;
    cap_is_of_the_caller_alone(&one).await;
    let [one, other] = processes().await;
    what_was_lent_returns_to_its_caller_first(&one, &other).await;
    let [one, other] = processes().await;
    claims_hold_back_the_guarantee_at_most(&one, &other).await;
    let [one, other] = processes().await;
    use_beyond_the_guarantee_ranks_with_that_of_others(&one, &other).await;
}

#[tokio::test(start_paused = true)]
async fn memory_log_keeps_shares() {
    play(async || {
        let clock = Arc::new(Clock::simulated(clerk_test_support::start()));
        let log = MemoryDistributedLimiter::new(clock, 2);
        [0, 1000].map(|first_ticket| {
            let log: Arc<dyn DistributedLimiter> = Arc::<MemoryDistributedLimiter>::clone(&log);
            Process { log, first_ticket }
        })
    })
    .await;
}

#[tokio::test]
async fn redis_log_keeps_shares() {
    let redis = RedisServer::start(&[]).await;
    play(async || {
        let name = format!("{:016x}", fastrand::u64(..));
        [0, 1000].map(|first_ticket| Process { log: RedisLimiter::new(redis.store(), &name), first_ticket })
    })
    .await;
}
