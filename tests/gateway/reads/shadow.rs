//! Policies in shadow mode only change counters.

use std::time::Duration;

use clerk_exporter::gateway::{Decision, InstancePolicies, Mode, RoutePolicies};
use clerk_simulator::Plan as Budget;

use super::{Answer, CACHE, COALESCE, OFF, Reads, get, pass, roomy, throttled};
use crate::support::Setup;

const SHADOW: Mode = Mode::Shadow;

/// Typical requests: identical and different ones, concurrent and repeated.
async fn work(reads: &Reads) -> Vec<Answer> {
    reads.lag(50);
    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.extend(reads.together((0..6).map(|_| get("/v1/users/count"))).await);
        answers.extend(reads.together((0..6).map(|number| get(&reads.path(number)))).await);
        answers.extend(reads.together([get("/v1/jwks"), get("/v1/users?limit=2")]).await);
        pass(5).await;
    }
    answers
}

#[tokio::test(start_paused = true)]
async fn shadow_policy_changes_no_response_or_request() {
    let off = Reads::new(OFF);
    let expected = work(&off).await;
    let visible = |answers: &[Answer]| -> Vec<_> {
        answers
            .iter()
            .map(|answer| (answer.status, answer.body.clone(), answer.decision().map(str::to_owned)))
            .collect()
    };
    for (policies, decision, times) in [
        // The second round of all but the keys, which no webhook covers.
        (RoutePolicies { cache: SHADOW, ..OFF }, Decision::CacheHit, 13),
        // All but the first of each six.
        (RoutePolicies { coalesce: SHADOW, ..OFF }, Decision::Coalesced, 10),
        // Each six share a list.
        (RoutePolicies { batch: SHADOW, ..OFF }, Decision::Batched, 12),
    ] {
        let reads = Reads::new(policies);
        let answers = work(&reads).await;
        assert_eq!(visible(&answers), visible(&expected), "{policies:?}");
        assert_eq!(reads.targets().len(), off.targets().len(), "{policies:?}");
        assert_eq!(reads.shadowed(decision), times, "{policies:?}");
        let numbers = reads.world.numbers();
        assert_eq!(numbers.shadowed.iter().sum::<u64>(), times, "nothing else: {policies:?}");
        assert_eq!(numbers.decisions[Decision::Forwarded.index()], 28);
        assert_eq!(numbers.saved, [0; 4]);
        let sizes = |answers: &[Answer]| answers.iter().map(|answer| answer.headers.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&answers), sizes(&expected), "no header more or less");
    }
}

/// Lookups of users: single, concurrent, duplicate, more than a list holds, and slightly apart.
async fn look_up(reads: &Reads) {
    reads.lag(50);
    for alone in 0..3 {
        reads.get(&reads.path(alone)).await;
        pass(1).await;
    }
    reads.together((0..150).map(|number| get(&reads.path(number % 140)))).await;
    pass(1).await;
    reads.together([get(&reads.path(7)), get(&reads.path(7))]).await;
    pass(1).await;
    for apart in [3, 9] {
        let (one, other) = (reads.path(1), reads.path(2));
        let later = async {
            tokio::time::sleep(Duration::from_millis(apart)).await;
            reads.get(&other).await
        };
        tokio::join!(reads.get(&one), later);
        pass(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn batching_in_shadow_counts_what_batching_would_share() {
    let (on, shadow) =
        (Reads::new(RoutePolicies { batch: Mode::On, ..OFF }), Reads::new(RoutePolicies { batch: SHADOW, ..OFF }));
    look_up(&on).await;
    look_up(&shadow).await;
    assert_eq!(on.decided(Decision::Batched), 150 + 2 + 2);
    assert_eq!(shadow.shadowed(Decision::Batched), on.decided(Decision::Batched));
}

#[tokio::test(start_paused = true)]
async fn shadow_cache_hit_is_neither_queued_nor_batched() {
    let all = RoutePolicies { cache: SHADOW, batch: SHADOW, pace: SHADOW, ..OFF };
    let options = roomy().plan(Some(Budget::Development)).limits(vec![]);
    let plan = InstancePolicies { policies: all, ..InstancePolicies::default() };
    let reads = Reads::with(options, Setup { plan, ..Setup::default() });
    for _ in 0..90 {
        reads.get(&reads.path(0)).await;
    }
    assert_eq!(reads.shadowed(Decision::CacheHit), 89);
    for number in 0..90 {
        reads.get(&reads.path(number)).await;
        pass(1).await;
    }
    let unwanted = [Decision::Queued, Decision::Shed, Decision::Batched].map(|decision| reads.shadowed(decision));
    assert_eq!(unwanted, [0; 3]);
}

#[tokio::test(start_paused = true)]
async fn all_shadow_policies_together_change_nothing() {
    let off = Reads::new(OFF);
    let expected = work(&off).await;
    let all = RoutePolicies { cache: SHADOW, coalesce: SHADOW, batch: SHADOW, pace: SHADOW, retry: SHADOW, ..OFF };
    let reads = Reads::new(all);
    let answers = work(&reads).await;
    assert!(answers.iter().zip(&expected).all(|(own, other)| own.body == other.body && own.decision().is_none()));
    assert_eq!(reads.sent(), off.sent());
    for decision in [Decision::CacheHit, Decision::Coalesced, Decision::Batched] {
        assert!(reads.shadowed(decision) > 0, "{decision:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn shadow_cache_is_invalidated_and_expires() {
    let reads = Reads::new(RoutePolicies { cache: SHADOW, ..OFF });
    let path = reads.path(1);
    reads.get(&path).await;
    reads.get(&path).await;
    assert_eq!(reads.shadowed(Decision::CacheHit), 1);
    reads.announce(1).await;
    reads.get(&path).await;
    assert_eq!(reads.shadowed(Decision::CacheHit), 1);
    reads.get(&path).await;
    assert_eq!(reads.shadowed(Decision::CacheHit), 2);
    pass(70).await;
    reads.get(&path).await;
    assert_eq!(reads.shadowed(Decision::CacheHit), 2);
    // The dry-run cache is not used once the policy is on.
    assert_eq!(reads.sent(), 5);
}

#[tokio::test(start_paused = true)]
async fn shadow_pacing_and_retry_are_counted_with_policies_on() {
    for policies in [COALESCE, CACHE, RoutePolicies { batch: Mode::On, ..OFF }] {
        let options = roomy().plan(Some(Budget::Development)).limits(vec![]);
        let plan = InstancePolicies {
            policies: RoutePolicies { pace: SHADOW, retry: SHADOW, ..policies },
            ..InstancePolicies::default()
        };
        let reads = Reads::with(options, Setup { plan, ..Setup::default() });
        reads.fault(throttled(1).times(1));
        reads.get(&reads.path(0)).await;
        assert_eq!(reads.shadowed(Decision::Retried), 1, "{policies:?}");
        tokio::time::sleep(Duration::from_secs(20)).await;
        for number in 0..130 {
            reads.get(&reads.path(number)).await;
        }
        let throttled = [Decision::Queued, Decision::Shed].map(|decision| reads.shadowed(decision));
        assert!(throttled.iter().sum::<u64>() >= 30, "{policies:?}: {throttled:?}");
        assert_eq!(reads.sent(), 131, "no waits, no retries");
    }
}
