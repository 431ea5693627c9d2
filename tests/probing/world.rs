//! One probed instance in simulated time.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::outbound::Outbound;
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::{MemoryTransport, Transport};
use clerk_exporter::probe::{ProbeOptions, Probes, Trigger};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::snapshot::{BucketSnapshot, InstanceSnapshot};
use clerk_quota::{Bucket, ProbeFailure, ProbeSkip};
use clerk_simulator::{Fault, FaultRule, Faults, Simulator};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const INTERVAL: Duration = Duration::from_secs(15);

/// Long enough for a tick that is late by its jitter.
pub(crate) const TICK: Duration = Duration::from_millis(16_500);

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Probes of one instance, or of several that share the simulator, its key and the ledger.
pub(crate) struct World {
    pub(crate) simulator: Simulator,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) probes: Arc<Probes>,
    /// The probe options of the first instance.
    pub(crate) options: ProbeOptions,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(clerk_test_support::simulator(1), |_| {})
    }

    pub(crate) fn with_fault(rule: FaultRule) -> Self {
        let world = Self::new();
        world.fault(rule);
        world
    }

    /// `change` adapts the probe's options.
    pub(crate) fn with(options: clerk_simulator::Options, change: impl FnOnce(&mut ProbeOptions)) -> Self {
        let simulator = Simulator::new(options);
        let upstream = MemoryTransport::new(simulator.router());
        Self::over(simulator, upstream, change)
    }

    pub(crate) fn over(
        simulator: Simulator,
        upstream: Arc<dyn Transport>,
        change: impl FnOnce(&mut ProbeOptions),
    ) -> Self {
        Self::several(1, simulator, upstream, change)
    }

    /// Instances `test`, `test1`, `test2` and so on, with the same options.
    pub(crate) fn several(
        count: usize,
        simulator: Simulator,
        upstream: Arc<dyn Transport>,
        change: impl FnOnce(&mut ProbeOptions),
    ) -> Self {
        let names: Vec<_> =
            (0..count).map(|index| if index == 0 { "test".to_owned() } else { format!("test{index}") }).collect();
        let ledger = Arc::new(Ledger::new(names.iter().map(|name| clerk_test_support::settings(name))));
        let outbound = |name: &str| {
            Outbound::new(
                Arc::clone(&upstream),
                "http://clerk.test".to_owned(),
                Arc::new(KeySource::new(SecretSource::Inline(Secret::new(clerk_test_support::KEY.to_owned())))),
                ledger.instance(name).unwrap(),
                Arc::new(Clock::simulated(clerk_test_support::start())),
            )
        };
        let mut options = ProbeOptions {
            name: "test".into(),
            trigger: Some(Trigger::Interval(INTERVAL)),
            interval: INTERVAL,
            timeout: seconds(5),
            path: "/v1/users/count".to_owned(),
            only_when_idle: true,
            count_users: None,
            keeps_story: false,
            lease: None,
            outbound: Arc::new(outbound("test")),
        };
        change(&mut options);
        let others = names[1..].iter().map(|name| ProbeOptions {
            name: name.as_str().into(),
            outbound: Arc::new(outbound(name)),
            ..options.clone()
        });
        let probes = Probes::new(std::iter::once(options.clone()).chain(others).collect());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&probes).run(stop.clone()));
        Self { simulator, ledger, probes, options, stop, tasks }
    }

    /// Applies only this fault to every request from now on.
    pub(crate) fn fault(&self, rule: FaultRule) {
        self.simulator.set_faults(rule.into()).unwrap();
    }

    pub(crate) fn no_fault(&self) {
        self.simulator.set_faults(Faults::default()).unwrap();
    }

    /// Advances the time.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    pub(crate) fn snapshot(&self) -> InstanceSnapshot {
        self.snapshot_of("test")
    }

    pub(crate) fn snapshot_of(&self, name: &str) -> InstanceSnapshot {
        let now = self.options.outbound.clock.now();
        self.ledger.instance(name).unwrap().lock().snapshot(now)
    }

    /// The bucket of the probes.
    pub(crate) fn bucket(&self) -> BucketSnapshot {
        self.snapshot().bucket(Bucket::Instance).unwrap().clone()
    }

    pub(crate) fn made(&self) -> u64 {
        self.snapshot().probes.total
    }

    pub(crate) fn failed(&self, reason: ProbeFailure) -> u64 {
        self.snapshot().probes.failures[reason as usize]
    }

    pub(crate) fn skipped(&self, reason: ProbeSkip) -> u64 {
        self.snapshot().probes.skipped[reason as usize]
    }

    /// Number of requests that the simulator answered.
    pub(crate) fn requests(&self) -> u64 {
        self.simulator.truth().requests.total
    }

    /// Stops probing; fails if that hangs.
    pub(crate) async fn stopped(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(seconds(600), ended).await.expect("probing does not end");
    }
}

/// Responses that arrive after a probe's timeout.
pub(crate) fn late(wait: Duration) -> FaultRule {
    Fault::Latency { millis: u64::try_from(wait.as_millis()).unwrap() }.always()
}
