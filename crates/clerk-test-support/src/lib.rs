//! Shared test helpers: a simulated Clerk with a client, processes and Redis servers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod log;
pub mod process;
pub mod redis;
pub mod redis_cluster;
pub mod redis_sentinel;

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

/// Wall-clock time at which simulated tests start: the start of a window.
pub fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_608_000)
}

/// A well-formed but invalid key.
pub const KEY: &str = "sk_test_4bMbJyWZ2vnLx0aQCANARY";

/// Options of a small simulator in simulated time, with quota headers.
pub fn simulator(seed: u64) -> clerk_simulator::Options {
    let options = clerk_simulator::Options::default().seed(seed).users(100).base(Some(start()));
    options.headers(clerk_simulator::HeaderProfile::XRateLimit)
}

/// A simulated development instance with a ledger and a client.
pub struct World {
    /// The simulated Clerk.
    pub simulator: Simulator,
    /// The ledger, with the one instance `test`.
    pub ledger: Arc<Ledger>,
    /// The client of the simulator.
    pub outbound: Arc<Outbound>,
    /// A second ledger of the same instance, for observations that arrive by another path.
    pub late: Handle,
    upstream: Arc<dyn Transport>,
}

impl World {
    /// Creates a simulator with these options and a client.
    pub fn new(options: clerk_simulator::Options) -> Self {
        let simulator = Simulator::new(options);
        let upstream: Arc<dyn Transport> = MemoryTransport::new(simulator.router());
        Self::over(simulator, upstream)
    }

    /// Creates a simulator and a client with these limiter options.
    pub fn paced(options: clerk_simulator::Options, pace: limiter::LimiterOptions) -> Self {
        let world = Self::new(options);
        let clock = Arc::clone(&world.outbound.clock);
        let limits = Arc::new(InstanceLimits::new(pace, Arc::clone(&clock)));
        let Outbound { transport: upstream, base, key, ledger, .. } = &*world.outbound;
        let (upstream, key, ledger) = (Arc::clone(upstream), Arc::clone(key), Arc::clone(ledger));
        let outbound =
            Arc::new(Outbound { transport: upstream, base: base.clone(), key, ledger, clock, limits, log: None });
        Self { outbound, ..world }
    }

    /// Creates a client with its own ledger, for the same simulator and key.
    pub fn beside(&self) -> Self {
        Self::over(self.simulator.clone(), Arc::clone(&self.upstream))
    }

    fn over(simulator: Simulator, upstream: Arc<dyn Transport>) -> Self {
        let ledger = Arc::new(Ledger::new([settings("test")]));
        let late = Ledger::new([settings("late")]);
        let outbound = outbound(Arc::clone(&upstream), &ledger);
        Self { simulator, ledger, outbound: Arc::new(outbound), late: late.instance("late").unwrap(), upstream }
    }

    /// Returns the instance's snapshot now.
    pub fn snapshot(&self) -> InstanceSnapshot {
        let now = self.outbound.clock.now();
        self.outbound.ledger.lock().snapshot(now)
    }
}

/// Creates a client over `upstream`, for the ledger's instance `test`.
pub fn outbound(upstream: Arc<dyn Transport>, ledger: &Ledger) -> Outbound {
    Outbound::new(
        upstream,
        "http://clerk.test".to_owned(),
        Arc::new(KeySource::new(SecretSource::Inline(Secret::new(KEY.to_owned())))),
        ledger.instance("test").unwrap(),
        Arc::new(Clock::simulated(start())),
    )
}

/// Settings of a development instance with Clerk's published limits, probed every 15 s.
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
        lateness: None,
    }
}

/// Runs a test with paused time, which jumps to the next timer, and a fixed random seed.
pub fn in_simulated_time(test: impl Future<Output = ()>) {
    fastrand::seed(42);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test);
}
