//! 429 responses to probes.

use clerk_exporter::probe::Trigger;
use clerk_quota::{Bucket, ProbeFailure, ProbeSkip, Source};
use clerk_simulator::{Fault, FaultBody, FaultRule, HeaderProfile};

use crate::world::{TICK, World, seconds};

fn throttled(retry_after: Option<&str>) -> FaultRule {
    Fault::Throttled { retry_after: retry_after.map(str::to_owned), body: FaultBody::Clerk }.always()
}

#[tokio::test(start_paused = true)]
async fn probes_follow_retry_after() {
    let world = World::with_fault(throttled(Some("100")));
    world.pass(seconds(99)).await;
    let (snapshot, bucket) = (world.snapshot(), world.bucket());
    assert_eq!((world.made(), world.requests()), (1, 1));
    assert_eq!(world.failed(ProbeFailure::Throttled), 1);
    assert!(world.skipped(ProbeSkip::Blocked) >= 5);
    assert_eq!(snapshot.up, Some(true), "a 429 is a usable response");
    assert!(bucket.blocked_until.is_some());
    assert_eq!(bucket.throttled[Source::Probe.index()], 1);
    world.no_fault();
    world.pass(TICK).await;
    let bucket = world.bucket();
    assert_eq!((world.made(), bucket.remaining, bucket.blocked_until), (2, Some(99), None));
    assert_eq!(bucket.exhausted_windows, 1);
    for other in Bucket::LIMITED.into_iter().filter(|bucket| *bucket != Bucket::Instance) {
        let snapshot = world.snapshot();
        let other = snapshot.bucket(other).unwrap();
        assert_eq!((other.windows, other.exhausted_windows, other.remaining), (0, 0, None));
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_zero_waits_at_least_a_second() {
    let often = |options: &mut clerk_exporter::probe::ProbeOptions| {
        options.trigger = Some(Trigger::Interval(std::time::Duration::from_millis(100)));
        options.interval = std::time::Duration::from_millis(100);
    };
    for retry_after in ["0", "Wed, 25 Nov 2020 00:00:00 GMT"] {
        let world = World::with(clerk_test_support::simulator(1), often);
        world.fault(throttled(Some(retry_after)));
        world.pass(seconds(20)).await;
        assert!((10..=20).contains(&world.requests()), "{retry_after}: {}", world.requests());
        world.stopped().await;
    }
    let world = World::with(clerk_test_support::simulator(1), often);
    world.fault(throttled(Some("tomorrow")));
    world.pass(seconds(20)).await;
    assert!(world.requests() <= 20, "nonsense: {}", world.requests());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_capped_at_five_minutes() {
    let world = World::with_fault(throttled(Some("31536000")));
    world.pass(seconds(299)).await;
    assert_eq!(world.requests(), 1);
    world.no_fault();
    world.pass(TICK * 2).await;
    assert!((2..=4).contains(&world.requests()), "{}", world.requests());
    assert_eq!(world.failed(ProbeFailure::Throttled), 1);
}

#[tokio::test(start_paused = true)]
async fn a_429_without_retry_after_waits_for_the_next_probe() {
    let world = World::with_fault(throttled(None));
    world.pass(seconds(150)).await;
    assert!((5..=11).contains(&world.requests()), "{}", world.requests());
}

#[tokio::test(start_paused = true)]
async fn edge_page_with_429_counts_as_throttled() {
    let rule = Fault::Throttled { retry_after: Some("30".into()), body: FaultBody::Html }.times(1);
    let world = World::with_fault(rule);
    world.pass(seconds(20)).await;
    assert_eq!((world.snapshot().up, world.snapshot().key_valid), (Some(true), None));
    assert_eq!((world.bucket().throttled[Source::Probe.index()], world.bucket().blocked_until.is_some()), (1, true));
}

#[tokio::test(start_paused = true)]
async fn without_quota_headers_only_429s_are_known() {
    let options = clerk_test_support::simulator(1).headers(HeaderProfile::None);
    let world = World::with(options, |_| {});
    world.pass(seconds(31)).await;
    let bucket = world.bucket();
    assert_eq!((bucket.basis.unwrap().as_str(), bucket.remaining), ("probe", None));
    world.fault(throttled(Some("40")));
    world.pass(TICK).await;
    assert!(world.bucket().blocked_until.is_some());
    world.no_fault();
    world.pass(seconds(60)).await;
    let bucket = world.bucket();
    assert_eq!((bucket.remaining, bucket.usage_peak, bucket.blocked_until), (None, None, None));
    assert_eq!((bucket.low_windows, bucket.exhausted_windows), (1, 1));
    assert_eq!(bucket.window_usage.map_or(0, |usage| usage.count()), 0);
}

#[tokio::test(start_paused = true)]
async fn exceeded_plan_quota_is_neither_a_bad_key_nor_a_429() {
    let rule = Fault::QuotaExceeded { code: "user_quota_exceeded".into() }.always();
    let world = World::with_fault(rule);
    world.pass(seconds(1)).await;
    let snapshot = world.snapshot();
    assert_eq!(snapshot.key_valid, Some(true));
    assert_eq!(snapshot.quota_exceeded.iter().sum::<u64>(), 1);
    assert_eq!(snapshot.quota_exceeded[0], 1, "user_quota_exceeded comes first");
    assert_eq!(world.failed(ProbeFailure::Status), 1);
    assert_eq!(world.bucket().exhausted_windows, 0);
    assert_eq!(world.bucket().remaining, Some(99), "its quota headers count");
}
