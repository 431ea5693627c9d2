//! When probes run.

use std::time::Duration;

use clerk_client::transport::MemoryTransport;
use clerk_exporter::probe::Trigger;
use clerk_quota::{ProbeFailure, ProbeSkip};
use clerk_simulator::Simulator;

use crate::world::{INTERVAL, TICK, World, late, seconds};

#[tokio::test(start_paused = true)]
async fn probe_reports_the_remaining_quota() {
    let world = World::new();
    assert!(!world.probes.has_polled());
    world.pass(seconds(1)).await;
    assert!(world.probes.has_polled());
    let (snapshot, bucket) = (world.snapshot(), world.bucket());
    assert_eq!((snapshot.up, snapshot.key_valid), (Some(true), Some(true)));
    assert_eq!((bucket.limit, bucket.remaining), (Some(100), Some(99)));
    assert_eq!((world.made(), world.requests()), (1, 1));
    assert!(snapshot.probes.last_success.is_some());
    world.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_intervals_make_a_thousand_probes() {
    let world = World::new();
    world.pass(INTERVAL * 1000).await;
    assert!((999..=1001).contains(&world.made()), "{}", world.made());
    assert_eq!(world.snapshot().probes.skipped.iter().sum::<u64>(), 0);
}

#[tokio::test(start_paused = true)]
async fn overlapping_probes_are_skipped_and_counted() {
    let world = World::with(clerk_test_support::simulator(1), |options| options.timeout = seconds(40));
    world.fault(late(seconds(35)));
    world.pass(seconds(34)).await;
    assert_eq!((world.made(), world.requests()), (0, 0), "the first probe is still in flight");
    assert_eq!(world.skipped(ProbeSkip::InFlight), 2);
    world.no_fault();
    world.pass(seconds(26)).await;
    // At 0 s, 45 s and about 60 s.
    assert!((2..=3).contains(&world.made()), "{}", world.made());
    assert_eq!(world.failed(ProbeFailure::Timeout), 0);
    world.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn pause_yields_one_probe_and_counts_missed_ones() {
    let world = World::new();
    world.pass(seconds(1)).await;
    assert_eq!(world.made(), 1);
    // A jump, as after a suspension of the machine: no timer in between fires.
    tokio::time::advance(INTERVAL * 10).await;
    world.pass(seconds(1)).await;
    assert_eq!(world.made(), 2);
    let missed = world.skipped(ProbeSkip::Missed);
    assert!((8..=10).contains(&missed), "{missed}");
    world.pass(INTERVAL * 10).await;
    assert!((11..=13).contains(&world.made()), "{}", world.made());
}

#[tokio::test(start_paused = true)]
async fn first_probes_are_spread_over_one_interval() {
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let upstream = MemoryTransport::new(simulator.router());
    let world = World::several(30, simulator, upstream, |_| {});
    let mut requests = Vec::new();
    // Before the first of them is due again, up to a tenth of the interval early.
    for _ in 0..13 {
        world.pass(seconds(1)).await;
        requests.push(world.requests());
    }
    for (second, count) in (1_u64..).zip(&requests) {
        assert!(count.abs_diff(second * 2) <= 1, "{requests:?}");
    }
    // They stay spread: never more than a few in one second.
    let mut before = world.requests();
    for _ in 0..600 {
        world.pass(seconds(1)).await;
        let now = world.requests();
        assert!(now - before < 15, "{} probes in one second", now - before);
        before = now;
    }
}

#[tokio::test(start_paused = true)]
async fn sent_plus_skipped_probes_equal_due_probes() {
    let world = World::with(clerk_test_support::simulator(1), |options| {
        options.timeout = seconds(20);
        options.count_users = Some(Trigger::Interval(seconds(60)));
    });
    let faults = [
        None,
        Some(late(seconds(18))),
        Some(clerk_simulator::Fault::Throttled { retry_after: Some("40".into()), body: Default::default() }.always()),
        Some(clerk_simulator::Fault::Reset { after_bytes: 0 }.always()),
    ];
    for fault in faults.into_iter().cycle().take(12) {
        match fault {
            Some(rule) => world.fault(rule),
            None => world.no_fault(),
        }
        world.pass(INTERVAL * 10).await;
    }
    world.no_fault();
    world.pass(seconds(30)).await;
    let probes = world.snapshot().probes;
    let due = probes.total + probes.skipped.iter().sum::<u64>();
    assert!((121..=124).contains(&due), "{due} for 122: {probes:?}");
    assert!(probes.failures.iter().sum::<u64>() < probes.total);
    assert_eq!(probes.duration_seconds.count(), probes.total);
    assert_eq!(probes.skipped[ProbeSkip::Missed as usize], 0, "user counts are not probes");
}

#[tokio::test(start_paused = true)]
async fn new_config_keeps_the_phase_and_applies_immediately() {
    let world = World::new();
    world.pass(seconds(5)).await;
    let mut options = world.options.clone();
    options.path = "/v1/users?limit=1".to_owned();
    world.probes.configure(vec![options.clone()]);
    world.pass(seconds(5)).await;
    assert_eq!(world.made(), 1, "no probe because of the reload");
    world.pass(TICK - seconds(10)).await;
    assert_eq!(world.made(), 2, "the next one keeps its phase");
    options.trigger = Some(Trigger::Interval(seconds(1)));
    options.interval = seconds(1);
    world.probes.configure(vec![options]);
    world.pass(seconds(10)).await;
    assert!((11..=14).contains(&world.made()), "{}", world.made());
    world.probes.configure(Vec::new());
    let made = world.made();
    world.pass(seconds(100)).await;
    assert_eq!(world.made(), made, "probing has stopped");
    world.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_slow_instances_are_all_probed_and_time_out() {
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let upstream = MemoryTransport::new(simulator.router());
    simulator.set_faults(late(seconds(60)).into()).unwrap();
    let world = World::several(1000, simulator, upstream, |_| {});
    world.pass(Duration::from_secs(22)).await;
    for index in 1..1000 {
        let probes = world.snapshot_of(&format!("test{index}")).probes;
        // More are due at the same time than may run; the wait for a slot counts against their deadline.
        assert!(probes.total >= 1, "{index}");
        assert_eq!(probes.failures[ProbeFailure::Timeout as usize], probes.total);
    }
}

/// Every two seconds by the wall clock.
fn by_cron() -> World {
    World::with(clerk_test_support::simulator(1), |options| {
        options.trigger = Some(Trigger::Cron("*/2 * * * * *".into()));
        options.interval = seconds(2);
        options.only_when_idle = false;
    })
}

#[tokio::test(start_paused = true)]
async fn cron_schedule_resumes_within_a_period_after_clock_set_back() {
    let world = by_cron();
    world.pass(seconds(20)).await;
    for step in [-30, -3630, -90_000] {
        world.options.outbound.clock.simulate_step(step);
        let before = world.made();
        // A heartbeat until it is detected, plus a period.
        world.pass(seconds(4)).await;
        assert!(world.made() > before, "{step}");
        world.pass(seconds(20)).await;
        assert!((10..=13).contains(&(world.made() - before)), "{step}: {}", world.made() - before);
    }
    assert_eq!(world.skipped(ProbeSkip::Missed), 0);
    world.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn due_times_skipped_by_clock_set_ahead_are_counted() {
    let world = by_cron();
    world.pass(seconds(20)).await;
    let (made, missed) = (world.made(), world.skipped(ProbeSkip::Missed));
    world.options.outbound.clock.simulate_step(3600);
    world.pass(seconds(2)).await;
    assert!((1..=2).contains(&(world.made() - made)), "one at once, and the next");
    assert!(
        (1798..=1800).contains(&(world.skipped(ProbeSkip::Missed) - missed)),
        "{}",
        world.skipped(ProbeSkip::Missed)
    );
    world.pass(seconds(20)).await;
    assert!((11..=13).contains(&(world.made() - made)));
    world.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn interval_is_independent_of_the_wall_clock() {
    let world = World::new();
    for step in [3600, -3600, 86_400, -86_400] {
        world.options.outbound.clock.simulate_step(step);
        let before = world.made();
        world.pass(INTERVAL * 10).await;
        assert!((9..=11).contains(&(world.made() - before)), "{step}");
    }
    assert_eq!(world.skipped(ProbeSkip::Missed), 0);
    world.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn suspension_expires_earlier_observations() {
    let world = World::new();
    world.pass(seconds(1)).await;
    assert_eq!(world.bucket().remaining, Some(99));
    world.options.outbound.clock.simulate_step(-3600);
    assert_eq!(world.bucket().remaining, Some(99), "setting the clock does not age observations");
    world.options.outbound.clock.simulate_suspend(seconds(8 * 3600));
    assert_eq!(world.bucket().remaining, None);
    world.pass(INTERVAL * 2).await;
    assert_eq!(world.bucket().remaining, Some(99), "the next probe reports it again");
    world.stopped().await;
}
