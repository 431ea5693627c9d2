//! Counts of users, on a schedule of their own.

use clerk_exporter::probe::Trigger;
use clerk_quota::Source;
use clerk_simulator::{Fault, FaultBody};

use crate::world::{World, seconds};

fn hourly() -> World {
    World::with(clerk_test_support::simulator(1), |options| {
        options.count_users = Some(Trigger::Interval(seconds(3600)))
    })
}

#[tokio::test(start_paused = true)]
async fn users_are_counted_at_start_and_then_on_schedule() {
    let world = hourly();
    world.pass(seconds(61)).await;
    let snapshot = world.snapshot();
    assert_eq!(snapshot.users, Some(100));
    let active = snapshot.users_active_30d.unwrap();
    assert!(active > 0 && active < 100, "{active}");
    let requests = world.requests();
    assert_eq!(requests, world.made() + 2);
    world.pass(seconds(8000)).await;
    assert_eq!(world.requests(), world.made() + 6, "two requests an hour");
    assert_eq!(world.snapshot().responses[&(Source::Probe, 200)], world.requests());
}

#[tokio::test(start_paused = true)]
async fn users_are_not_counted_by_default() {
    let world = World::new();
    world.pass(seconds(7200)).await;
    assert_eq!((world.snapshot().users, world.snapshot().users_active_30d), (None, None));
    assert_eq!(world.requests(), world.made());
}

#[tokio::test(start_paused = true)]
async fn failed_count_keeps_the_last_value() {
    let world = hourly();
    world.pass(seconds(61)).await;
    let before = world.snapshot();
    for fault in [
        Fault::Status { status: 500, body: FaultBody::Html },
        Fault::Status { status: 200, body: FaultBody::Html },
        Fault::Throttled { retry_after: Some("0".into()), body: FaultBody::Clerk },
    ] {
        world.fault(fault.always());
        world.pass(seconds(4000)).await;
        let snapshot = world.snapshot();
        assert_eq!((snapshot.users, snapshot.users_active_30d), (before.users, before.users_active_30d));
    }
}
