//! Probes that are unnecessary because other traffic reports the quota.

use clerk_client::outbound::ApiRequest;
use clerk_quota::{Bucket, ProbeSkip, Source};
use clerk_simulator::{Fault, FaultBody};
use http::Method;

use crate::world::{INTERVAL, TICK, World, seconds};

/// Other traffic: one request every `every` seconds for `length` seconds.
async fn traffic(world: &World, path: &str, source: Source, every: u64, length: u64) {
    let call = ApiRequest::get(path, source);
    for _ in 0..length / every {
        world.options.outbound.request(&call, seconds(5)).await.unwrap();
        world.pass(seconds(every)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn probes_are_skipped_while_other_traffic_is_fresh() {
    let world = World::new();
    world.pass(seconds(1)).await;
    for source in [Source::Gateway, Source::Client] {
        let (made, skipped) = (world.made(), world.skipped(ProbeSkip::Fresh));
        traffic(&world, "/v1/users/count", source, 5, 150).await;
        assert_eq!(world.made(), made);
        assert!((9..=11).contains(&(world.skipped(ProbeSkip::Fresh) - skipped)));
    }
    world.pass(INTERVAL + TICK).await;
    let made = world.made();
    assert!(made >= 2, "the other traffic stopped");
    world.pass(INTERVAL * 10).await;
    assert!((9..=11).contains(&(world.made() - made)));
}

#[tokio::test(start_paused = true)]
async fn probes_run_despite_traffic_if_configured() {
    let world = World::with(clerk_test_support::simulator(1), |options| options.only_when_idle = false);
    traffic(&world, "/v1/users/count", Source::Gateway, 5, 150).await;
    assert!((10..=11).contains(&world.made()), "{}", world.made());
    assert_eq!(world.skipped(ProbeSkip::Fresh), 0);
}

#[tokio::test(start_paused = true)]
async fn traffic_without_quota_does_not_replace_probes() {
    let world = World::new();
    // Clerk does not limit this route, so that the response does not report the quota.
    traffic(&world, "/v1/jwks", Source::Gateway, 5, 150).await;
    assert!((10..=11).contains(&world.made()), "{}", world.made());
    assert!(world.bucket().remaining.is_some());
    // Neither does an error page of the edge.
    let made = world.made();
    world.fault(Fault::Status { status: 502, body: FaultBody::Html }.always());
    traffic(&world, "/v1/users/count", Source::Gateway, 5, 60).await;
    assert!(world.made() > made);
}

#[tokio::test(start_paused = true)]
async fn instance_with_traffic_from_the_start_is_ready() {
    let world = World::new();
    let call = ApiRequest::new(Method::GET, "/v1/users/count", Source::Gateway);
    // Before the first probe is due.
    world.options.outbound.request(&call, seconds(5)).await.unwrap();
    world.probes.configure(vec![world.options.clone()]);
    traffic(&world, "/v1/users/count", Source::Gateway, 5, 60).await;
    assert!(world.made() <= 1);
    assert!(world.probes.has_polled());
}

#[tokio::test(start_paused = true)]
async fn other_429_suspends_probes_of_the_same_bucket() {
    let world = World::new();
    world.pass(seconds(1)).await;
    let made = world.made();
    let throttle = |path: &str| {
        let mut rule = Fault::Throttled { retry_after: Some("70".into()), body: FaultBody::Clerk }.times(1);
        rule.path_prefix = Some(path.to_owned());
        rule
    };
    world.fault(throttle("/v1/invitations"));
    let call = ApiRequest::new(Method::POST, "/v1/invitations", Source::Gateway);
    assert_eq!(world.options.outbound.request(&call, seconds(5)).await.unwrap().status, 429);
    world.pass(INTERVAL * 4).await;
    assert!(world.made() >= made + 3, "another bucket is blocked, not that of the probes");
    assert!(world.bucket().blocked_until.is_none() && world.bucket().exhausted_windows == 0);
    let invitations = world.snapshot().bucket(Bucket::Invitations).unwrap().clone();
    assert_eq!(invitations.throttled[Source::Gateway.index()], 1);

    world.fault(throttle("/v1/users"));
    let call = ApiRequest::new(Method::GET, "/v1/users?limit=1", Source::Gateway);
    assert_eq!(world.options.outbound.request(&call, seconds(5)).await.unwrap().status, 429);
    let made = world.made();
    world.pass(seconds(69)).await;
    assert_eq!(world.made(), made);
    assert!(world.skipped(ProbeSkip::Blocked) >= 3);
    assert!(world.bucket().blocked_until.is_some());
    world.pass(TICK).await;
    assert_eq!(world.made(), made + 1);
}
