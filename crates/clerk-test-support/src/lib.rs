//! What several tests share: a simulated Clerk and a way to it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod log;
pub mod process;
pub mod redis;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clerk_client::limiter;
use clerk_client::outbound::{InstanceLimits, Outbound};
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::{MemoryTransport, Transport};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::{Handle, Ledger};
use clerk_quota::snapshot::InstanceSnapshot;
use clerk_quota::{Coverage, Environment, Limit, Settings, Source};
use clerk_simulator::Simulator;

/// Wall-clock time at which simulated tests begin: the first moment of a window.
pub fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_608_000)
}

/// A key that looks like one and is not.
pub const KEY: &str = "sk_test_4bMbJyWZ2vnLx0aQCANARY";

/// A small simulator in simulated time.
pub fn simulator(seed: u64) -> clerk_simulator::Options {
    clerk_simulator::Options { seed, users: 100, base: Some(start()), ..clerk_simulator::Options::default() }
}

/// A development instance of the simulator, with a ledger and a way to it.
pub struct World {
    /// The simulated Clerk.
    pub simulator: Simulator,
    /// The ledger, with the one instance `test`.
    pub ledger: Arc<Ledger>,
    /// The way to the simulator.
    pub outbound: Arc<Outbound>,
    /// A second ledger of the same instance, for observations that take another way.
    pub late: Handle,
    upstream: Arc<dyn Transport>,
}

impl World {
    /// A simulator with these options, and a way to it.
    pub fn new(options: clerk_simulator::Options) -> Self {
        let simulator = Simulator::new(options);
        let upstream: Arc<dyn Transport> = MemoryTransport::new(simulator.router());
        Self::over(simulator, upstream)
    }

    /// The same with a pacer of these options.
    pub fn paced(options: clerk_simulator::Options, pace: limiter::LimiterOptions) -> Self {
        let world = Self::new(options);
        let clock = Arc::clone(&world.outbound.clock);
        let flow = Arc::new(InstanceLimits::new(pace, Arc::clone(&clock)));
        let Outbound { transport: upstream, base, key, ledger, .. } = &*world.outbound;
        let (upstream, key, ledger) = (Arc::clone(upstream), Arc::clone(key), Arc::clone(ledger));
        let outbound = Arc::new(Outbound { transport: upstream, base: base.clone(), key, ledger, clock, limits: flow });
        Self { outbound, ..world }
    }

    /// The same simulator and key, with a ledger of its own.
    pub fn beside(&self) -> Self {
        Self::over(self.simulator.clone(), Arc::clone(&self.upstream))
    }

    fn over(simulator: Simulator, upstream: Arc<dyn Transport>) -> Self {
        let ledger = Arc::new(Ledger::new([settings("test")]));
        let late = Ledger::new([settings("late")]);
        let outbound = outbound(Arc::clone(&upstream), &ledger);
        Self { simulator, ledger, outbound: Arc::new(outbound), late: late.instance("late").unwrap(), upstream }
    }

    /// The instance's numbers now.
    pub fn snapshot(&self) -> InstanceSnapshot {
        let now = self.outbound.clock.now();
        self.outbound.ledger.lock().snapshot(now)
    }
}

/// A way to whatever the upstream leads to, for the ledger's instance `test`.
pub fn outbound(upstream: Arc<dyn Transport>, ledger: &Ledger) -> Outbound {
    Outbound::new(
        upstream,
        "http://clerk.test".to_owned(),
        Arc::new(KeySource::new(SecretSource::Inline(Secret::new(KEY.to_owned())))),
        ledger.instance("test").unwrap(),
        Arc::new(Clock::simulated(start())),
    )
}

/// A development instance with Clerk's published limits, probed every 15 s.
pub fn settings(name: &str) -> Settings {
    Settings {
        name: name.into(),
        environment: Environment::Development,
        api_host: "clerk.test".into(),
        limit: Some(Limit { requests: 100, window: Duration::from_secs(10) }),
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(45),
        sources: vec![Source::Probe],
        coverage: Coverage::Sole,
    }
}

/// Runs a test on a runtime of its own whose time jumps to the next timer, with the same dice each time.
pub fn in_simulated_time(test: impl Future<Output = ()>) {
    fastrand::seed(42);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test);
}
