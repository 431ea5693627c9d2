//! Rejected keys and replaced keys.

use std::path::Path;
use std::sync::Arc;

use clerk_client::outbound::Outbound;
use clerk_client::secret::{KeySource, SecretSource};
use clerk_exporter::probe::{ProbeOptions, Trigger};
use clerk_quota::{ProbeFailure, ProbeSkip};

use crate::world::{INTERVAL, TICK, World, seconds};

const OLD: &str = "sk_test_oldKeyThatWasRevoked1";

/// A simulator that accepts a single key.
fn strict() -> clerk_simulator::Options {
    clerk_test_support::simulator(1).keys(vec![format!("test={}", clerk_test_support::KEY).parse().unwrap()])
}

fn reads_key_from(path: &Path) -> impl FnOnce(&mut ProbeOptions) {
    let path = path.to_owned();
    move |options| {
        let outbound = &options.outbound;
        options.outbound = Arc::new(Outbound::new(
            Arc::clone(&outbound.transport),
            outbound.base.clone(),
            Arc::new(KeySource::new(SecretSource::File(path))),
            Arc::clone(&outbound.ledger),
            Arc::clone(&outbound.clock),
        ));
    }
}

/// Replaces the file atomically, as secret agents do.
fn replace(path: &Path, key: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{key}\n")).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn rejected_key_backs_off() {
    // Four a second would be 15,000 an hour.
    for interval in [seconds(15), seconds(1), std::time::Duration::from_millis(240)] {
        let world = World::with(strict(), |options| {
            options.trigger = Some(Trigger::Interval(interval));
            options.interval = interval;
            options.count_users = Some(Trigger::Interval(seconds(60)));
            let wrong = SecretSource::Inline(clerk_client::secret::Secret::new(OLD.to_owned()));
            let outbound = &options.outbound;
            options.outbound = Arc::new(Outbound::new(
                Arc::clone(&outbound.transport),
                outbound.base.clone(),
                Arc::new(KeySource::new(wrong)),
                Arc::clone(&outbound.ledger),
                Arc::clone(&outbound.clock),
            ));
        });
        world.pass(seconds(1)).await;
        assert_eq!((world.snapshot().key_valid, world.snapshot().up), (Some(false), Some(false)));
        world.pass(seconds(3600)).await;
        assert!(world.made() < 20, "{} probes at an interval of {interval:?}", world.made());
        assert_eq!(world.failed(ProbeFailure::Key), world.made());
        assert!(world.skipped(ProbeSkip::Backoff) > 100);
        let made = world.made();
        world.pass(seconds(3600)).await;
        assert!((10..=14).contains(&(world.made() - made)), "every five minutes: {}", world.made() - made);
        assert!(world.requests() < 70, "counts of users wait as well: {}", world.requests());
    }
}

#[tokio::test(start_paused = true)]
async fn a_replaced_key_is_used_at_the_next_probe_and_counters_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    replace(&path, OLD);
    let world = World::with(strict(), reads_key_from(&path));
    world.pass(seconds(1000)).await;
    let (made, snapshot) = (world.made(), world.snapshot());
    assert_eq!((snapshot.key_valid, world.failed(ProbeFailure::Key)), (Some(false), made));
    replace(&path, clerk_test_support::KEY);
    world.pass(TICK).await;
    let snapshot = world.snapshot();
    assert_eq!((snapshot.key_valid, snapshot.up), (Some(true), Some(true)), "not only at the end of the backoff");
    assert_eq!((world.made(), world.failed(ProbeFailure::Key)), (made + 1, made));
    world.pass(INTERVAL * 10).await;
    assert!((10..=12).contains(&(world.made() - made)), "as often as before");
}

#[tokio::test(start_paused = true)]
async fn rejected_old_key_reloads_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    replace(&path, OLD);
    let world = World::with(strict(), reads_key_from(&path));
    world.probes.configure(Vec::new());
    // The request is in flight with the old key when the file is replaced.
    world.options.outbound.key.current().unwrap();
    replace(&path, clerk_test_support::KEY);
    let finding = clerk_exporter::probe::probe_once(&world.options.outbound, "/v1/users/count", seconds(5)).await;
    assert_eq!(finding.failure, None);
    assert_eq!((world.made(), world.requests()), (1, 2), "one probe, two requests");
    assert_eq!(world.snapshot().key_valid, Some(true));
}

#[tokio::test(start_paused = true)]
async fn key_reloaded_elsewhere_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    replace(&path, OLD);
    let world = World::with(strict(), reads_key_from(&path));
    world.probes.configure(Vec::new());
    let outbound = &world.options.outbound;
    // The latency keeps the request in flight while the key is replaced and reloaded.
    world.fault(crate::world::late(seconds(1)));
    let probe = clerk_exporter::probe::probe_once(outbound, "/v1/users/count", seconds(5));
    let other = async {
        world.pass(std::time::Duration::from_millis(500)).await;
        replace(&path, clerk_test_support::KEY);
        assert_eq!(outbound.key.refresh(), Ok(true));
    };
    let (finding, ()) = tokio::join!(probe, other);
    assert_eq!(finding.failure, None);
}

#[tokio::test(start_paused = true)]
async fn rejected_key_is_reloaded_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    replace(&path, OLD);
    let world = World::with(strict(), reads_key_from(&path));
    world.probes.configure(Vec::new());
    world.options.outbound.key.current().unwrap();
    replace(&path, "sk_test_anotherWrongKey22");
    let finding = clerk_exporter::probe::probe_once(&world.options.outbound, "/v1/users/count", seconds(5)).await;
    assert_eq!(finding.failure, Some(ProbeFailure::Key));
    assert_eq!(world.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn temporarily_broken_key_file_keeps_the_old_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let world = World::with(strict(), reads_key_from(&path));
    world.pass(seconds(100)).await;
    assert_eq!(world.failed(ProbeFailure::Secret), world.made());
    assert_eq!((world.requests(), world.snapshot().key_valid), (0, None), "nothing was sent");
    replace(&path, clerk_test_support::KEY);
    world.pass(TICK).await;
    assert_eq!(world.snapshot().up, Some(true));
    // An invalid key does not replace a valid one.
    for broken in ["", "not a key", "sk_test_two\nsk_test_lines"] {
        replace(&path, broken);
        world.pass(TICK).await;
        assert_eq!(world.snapshot().up, Some(true), "{broken:?}");
    }
    std::fs::remove_file(&path).unwrap();
    world.pass(TICK).await;
    assert_eq!(world.snapshot().up, Some(true));
    world.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn new_key_in_config_ends_the_backoff() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    replace(&old, OLD);
    replace(&new, clerk_test_support::KEY);
    let world = World::with(strict(), reads_key_from(&old));
    world.pass(seconds(1000)).await;
    let made = world.made();
    let mut same = world.options.clone();
    reads_key_from(&old)(&mut same);
    world.probes.configure(vec![same]);
    world.pass(TICK).await;
    assert_eq!(world.made(), made, "an unchanged key does not end the backoff");
    let mut other = world.options.clone();
    reads_key_from(&new)(&mut other);
    world.probes.configure(vec![other]);
    world.pass(TICK).await;
    assert_eq!(world.snapshot().key_valid, Some(true));
    assert_eq!(world.made(), made + 1);
}
