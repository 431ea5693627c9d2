//! The metrics that operators read add up, and low priority leaves a reserve.

use std::time::Duration;

use clerk_client::limiter;
use clerk_exporter::gateway::{Decision, InstancePolicies, Mode, RoutePolicies, Saving};
use clerk_quota::Limit;
use clerk_simulator::{LimitOverride, Quota, SimulatedBucket};

use super::{BATCH, CACHE, COALESCE, OFF, Reads, authorized, get, pass, roomy};
use crate::support::{BULK_TOKEN, Setup};
use clerk_test_support::KEY;

#[tokio::test(start_paused = true)]
async fn requests_equal_sent_plus_saved() {
    let on = Mode::On;
    for policies in [
        COALESCE,
        CACHE,
        BATCH,
        RoutePolicies { coalesce: on, ..BATCH },
        RoutePolicies { cache: on, ..BATCH },
        RoutePolicies { cache: on, coalesce: on, pace: on, retry: on, ..BATCH },
    ] {
        let reads = Reads::new(policies);
        reads.lag(30);
        let mut requests = 0;
        for round in 0..3 {
            let users = (0..150).map(|number| get(&reads.path(number % 60 + round * 10)));
            let counts = (0..10).map(|_| get("/v1/users/count"));
            let answers = reads.together(users.chain(counts).collect::<Vec<_>>()).await;
            assert!(answers.iter().all(|answer| answer.status == 200));
            requests += answers.len() as u64;
            pass(u64::from(round) * 40).await;
        }
        let numbers = reads.world.numbers();
        assert_eq!(numbers.decisions.iter().sum::<u64>(), requests);
        let saved: u64 = numbers.saved.iter().sum();
        assert!(saved > 0);
        assert_eq!(reads.sent() as u64 + saved, requests, "{policies:?} {:?}", numbers.saved);
        let spent: u64 = reads.world.top()[0].iter().map(|share| share.requests).sum();
        assert!(spent <= reads.sent() as u64, "saved requests are not charged");
    }
}

#[tokio::test(start_paused = true)]
async fn savings_are_counted_by_policy() {
    let reads = Reads::new(RoutePolicies { cache: Mode::On, coalesce: Mode::On, ..BATCH });
    reads.together([1, 1, 1, 2, 3].map(|number| get(&reads.path(number)))).await;
    reads.get(&reads.path(1)).await;
    let saved = Saving::ALL.map(|saving| reads.saved(saving));
    // Three requests for one user save two, three users in a list save two, and one comes from the cache.
    assert_eq!((saved, reads.sent()), ([1, 2, 2, 0], 1));
    let decided = [Decision::CacheHit, Decision::Coalesced, Decision::Batched].map(|decision| reads.decided(decision));
    assert_eq!(decided, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn low_priority_leaves_the_reserve() {
    let window = Duration::from_secs(3600);
    let limits = vec![LimitOverride { bucket: SimulatedBucket::Instance, quota: Quota::new(20, window) }];
    let pace = limiter::LimiterOptions::default().limit(Some(Limit { requests: 20, window })).reserve(0.25);
    let policies = RoutePolicies { pace: Mode::On, ..OFF };
    let plan = InstancePolicies { policies, max_queue_wait: Duration::from_millis(10), ..InstancePolicies::default() };
    let setup = Setup { plan, pace: Some(pace), ..Setup::default() };
    let reads = Reads::with(roomy().limits(limits), setup);
    let ask = async |token: &str, times: usize| {
        let answers = reads.together((0..times).map(|_| authorized("GET", "/v1/users/count", token))).await;
        answers.iter().filter(|answer| answer.status == 200).count()
    };
    assert_eq!(ask(BULK_TOKEN, 20).await, 15);
    assert_eq!(ask(KEY, 10).await, 5);
    assert_eq!(reads.sent(), 20, "no request was rejected");
    assert_eq!(reads.decided(Decision::Shed), 10);
}

#[tokio::test(start_paused = true)]
async fn high_priority_read_does_not_wait_for_a_low_priority_one() {
    let window = Duration::from_secs(100);
    let limits = vec![LimitOverride { bucket: SimulatedBucket::Instance, quota: Quota::new(20, window) }];
    let pace = limiter::LimiterOptions::default().limit(Some(Limit { requests: 20, window })).reserve(0.25);
    let policies = RoutePolicies { pace: Mode::On, ..COALESCE };
    let plan =
        InstancePolicies { policies, max_queue_wait: window * 2, deadline: window * 4, ..InstancePolicies::default() };
    let setup = Setup { plan, pace: Some(pace), ..Setup::default() };
    let reads = Reads::with(roomy().limits(limits), setup);
    let ask = |token: &str| reads.send(authorized("GET", "/v1/users/count", token));
    for _ in 0..15 {
        assert_eq!(ask(BULK_TOKEN).await.status, 200);
    }
    let from = tokio::time::Instant::now();
    let timed = async |token: &str| (ask(token).await.status, from.elapsed());
    let (bulk, urgent) = tokio::join!(timed(BULK_TOKEN), async {
        tokio::task::yield_now().await;
        timed(KEY).await
    });
    assert_eq!((bulk.0, urgent.0), (200, 200));
    assert!(urgent.1 < Duration::from_secs(1) && bulk.1 > window / 2, "{urgent:?} {bulk:?}");
    assert_eq!(reads.decided(Decision::Coalesced), 0);
}

/// What the alert on retry amplification uses: attempts over requests, whatever their outcome.
#[tokio::test(start_paused = true)]
async fn retries_count_as_attempts_beyond_requests() {
    for fault in [super::throttled(1), super::status(502)] {
        let reads = Reads::new(RoutePolicies { retry: Mode::On, ..OFF });
        reads.fault(fault.always());
        for number in 0..300 {
            assert!(matches!(reads.get(&reads.path(number)).await.status, 429 | 502));
        }
        let numbers = reads.world.numbers();
        let not_sent = [Decision::CacheHit, Decision::Coalesced, Decision::Shed, Decision::Rejected];
        let requests: u64 = numbers.decisions.iter().sum::<u64>()
            - not_sent.iter().map(|decision| numbers.decisions[decision.index()]).sum::<u64>();
        let ledger = reads.world.ledger.instance("test").unwrap();
        let snapshot = ledger.lock().snapshot(reads.world.clock.now());
        let attempts: u64 = snapshot.spent.iter().map(|(_, count)| count).sum();
        assert_eq!((requests, attempts), (300, reads.sent() as u64));
        assert!(attempts as f64 / requests as f64 - 1.0 > 0.1, "{attempts} attempts: the alert fires");
    }
}
