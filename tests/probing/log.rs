//! The log: one line per change of state, and no part of a key.

use std::sync::Arc;

use clerk_simulator::{Fault, FaultBody};

use crate::world::{World, seconds};
use clerk_test_support::log::{everything, listen};

/// The probes' lines at level info or above.
fn lines() -> Vec<String> {
    let text = everything();
    let is_told = |line: &&str| line.contains("clerk_exporter::probe") && !line.contains(" DEBUG ");
    text.lines().filter(is_told).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn each_change_of_state_is_one_line() {
    listen();
    let world = World::new();
    let mut told = 0;
    let mut expect = |marks: &[&str]| {
        let lines = lines();
        assert_eq!(lines.len(), told + 1, "one line more: {lines:#?}");
        told += 1;
        for mark in marks {
            assert!(lines[told - 1].contains(mark), "{mark}: {}", lines[told - 1]);
        }
    };
    world.pass(seconds(600)).await;
    expect(&["INFO", "probes succeed", "clerk_instance=test"]);
    world.fault(Fault::Status { status: 401, body: FaultBody::Clerk }.always());
    world.pass(seconds(3600)).await;
    expect(&["WARN", "probes fail", "reason=\"key\"", "status=401", "trace_id", "Clerk rejects the secret key"]);
    world.fault(Fault::Status { status: 200, body: FaultBody::Html }.always());
    world.pass(seconds(3600)).await;
    expect(&["reason=\"unexpected_content\"", "content_type=\"text/html", "body_bytes=", "proxy"]);
    world.fault(Fault::Throttled { retry_after: Some("5".into()), body: FaultBody::Clerk }.always());
    world.pass(seconds(600)).await;
    expect(&["reason=\"throttled\"", "status=429"]);
    world.no_fault();
    world.pass(seconds(600)).await;
    expect(&["INFO", "probes succeed"]);
    world.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn unchanged_config_does_not_log_a_key_reload() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, clerk_test_support::KEY).unwrap();
    listen();
    let from_file = |options: &mut clerk_exporter::probe::ProbeOptions| {
        let source = clerk_client::secret::SecretSource::File(path.clone());
        let outbound = &options.outbound;
        options.outbound = Arc::new(clerk_client::outbound::Outbound::new(
            Arc::clone(&outbound.transport),
            outbound.base.clone(),
            Arc::new(clerk_client::secret::KeySource::new(source)),
            Arc::clone(&outbound.ledger),
            Arc::clone(&outbound.clock),
        ));
    };
    let world = World::with(clerk_test_support::simulator(1), from_file);
    world.pass(seconds(60)).await;
    let mut again = world.options.clone();
    from_file(&mut again);
    world.probes.configure(vec![again]);
    world.pass(seconds(60)).await;
    let lines = lines();
    assert_eq!(lines.len(), 1, "only that probes succeed: {lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn log_contains_no_part_of_the_key() {
    listen();
    let world = World::new();
    for fault in [
        Fault::Status { status: 401, body: FaultBody::Clerk },
        Fault::Status { status: 500, body: FaultBody::Html },
        Fault::Reset { after_bytes: 0 },
        Fault::Redirect { location: "http://elsewhere.test/".into() },
    ] {
        world.fault(fault.always());
        world.pass(seconds(120)).await;
    }
    let text = everything();
    assert!(text.contains("probes fail"));
    for part in clerk_test_support::KEY.as_bytes().windows(8).skip(8) {
        assert!(!text.contains(std::str::from_utf8(part).unwrap()));
    }
}
