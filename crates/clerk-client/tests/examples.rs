//! Runs the examples against the simulator. The webhook example is tested in `tests/webhook`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/batch.rs"]
#[expect(dead_code, reason = "the example's main is not run here")]
mod batch;
#[path = "../examples/paging.rs"]
#[expect(dead_code, reason = "the example's main is not run here")]
mod paging;
#[path = "../examples/retry.rs"]
#[expect(dead_code, reason = "the example's main is not run here")]
mod retry;

use std::sync::Arc;

use clerk_client::clerk::{Clerk, RawUser};
use clerk_simulator::{Fault, FaultBody, Faults};
use clerk_test_support::World;

fn world(options: clerk_simulator::Options) -> (World, Clerk) {
    let world = World::new(options);
    let clerk = Clerk::with_transport(Arc::clone(&world.outbound));
    (world, clerk)
}

fn lines(bytes: Vec<u8>) -> Vec<String> {
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn batch_looks_up_ids_from_standard_input() {
    let (world, clerk) = world(clerk_test_support::simulator(1).users(300));
    let ids: Vec<_> = (0..250).map(|number| world.simulator.user_id(number).unwrap()).collect();
    let input = format!("{}\n\nuser_000000000000000000000000000\n", ids.join("\n"));
    let mut out = Vec::new();
    batch::run(&clerk, input.as_bytes(), &mut out).await.unwrap();
    let lines = lines(out);
    assert!(lines.iter().zip(&ids).all(|(line, id)| line.starts_with(&format!("{id} ")) && line.contains('@')));
    assert_eq!(lines[250..], ["user_000000000000000000000000000 is missing"]);
    assert_eq!(world.simulator.truth().requests.total, 4, "three lists, and a second request for the missing ID");
}

#[tokio::test(start_paused = true)]
async fn paging_writes_all_users_and_resumes_at_a_cursor() {
    let (world, clerk) = world(clerk_test_support::simulator(1).users(1200));
    let (mut out, mut log) = (Vec::new(), Vec::new());
    paging::run(&clerk, None, &mut out, &mut log).await.unwrap();
    let (users, log) = (lines(out), lines(log));
    let id = |line: &String| serde_json::from_str::<RawUser>(line).unwrap().id().to_owned();
    assert!((0..1200).map(|number| world.simulator.user_id(number).unwrap()).eq(users.iter().map(id)));
    let (_, cursor) = log[0].rsplit_once(' ').unwrap();
    let (mut rest, mut more) = (Vec::new(), Vec::new());
    paging::run(&clerk, Some(cursor.parse().unwrap()), &mut rest, &mut more).await.unwrap();
    assert_eq!(lines(rest), users[500..]);
    assert_eq!(lines(more), log[1..]);
}

/// One of five responses is a 503, one of twenty a 429 whose `Retry-After` must be waited for.
fn faults() -> Faults {
    let mut faults = Faults::default();
    for (fault, probability) in [
        (Fault::Status { status: 503, body: FaultBody::Html }, 0.2),
        (Fault::Throttled { retry_after: Some("1".to_owned()), body: FaultBody::Clerk }, 0.05),
    ] {
        let mut rule = fault.always();
        rule.probability = probability;
        faults.rules.push(rule);
    }
    faults
}

#[test]
fn retry_gets_all_responses_despite_frequent_failures() {
    // With a fixed random seed.
    clerk_test_support::in_simulated_time(async {
        let (_, clerk) = world(clerk_test_support::simulator(1).faults(faults()));
        let mut out = Vec::new();
        retry::run(clerk, &mut out).await.unwrap();
        let lines = lines(out);
        assert!(lines[..20].iter().all(|line| line == "100 users"), "{lines:?}");
        let attempts: u32 =
            lines[20].strip_prefix("20 requests took ").unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(attempts > 20, "{lines:?}");
    });
}
