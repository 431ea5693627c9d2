//! A simulated instance, the gateways that share it, and other clients.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::{CountingKind, DistributedLimiter, LimiterOptions, MemoryDistributedLimiter, Priority};
use clerk_client::outbound::{ApiRequest, InstanceLimits, Outbound, RequestOptions};
use clerk_quota::clock::Clock;
use clerk_quota::{Environment, Source};
use clerk_simulator::{HeaderProfile, LimiterKind, SimulatedBucket};
use clerk_test_support::World;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::wire::{Sent, Wire};

/// Limit in requests per 10 s.
pub(crate) const LIMIT: u64 = 100;

/// Workers of all gateways: far more than needed to reach the limit.
const WORKERS: usize = 24;

/// How far the clocks of the gateways and of the shared log are ahead of the server's, in milliseconds.
const GATEWAYS_AHEAD: [i64; 2] = [400, -600];
const LOG_AHEAD: i64 = 800;

/// Requests of other clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    Nothing,
    /// Independent requests, 30 % of the limit.
    Poisson,
    /// Half of the limit at once, every 47 s.
    Bursts,
}

/// A scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) limiter: LimiterKind,
    pub(crate) headers: HeaderProfile,
    pub(crate) gateways: usize,
    pub(crate) foreign: Foreign,
}

/// Its result.
pub(crate) struct Outcome {
    pub(crate) sent: Vec<Sent>,
    /// When the server accepted a request of any client.
    pub(crate) passed: Vec<Duration>,
    /// When every gateway had detected how the server counts.
    pub(crate) recognised: Option<Duration>,
}

impl Outcome {
    pub(crate) fn attempts(&self) -> usize {
        self.sent.iter().map(|sent| sent.attempts.len()).sum()
    }

    pub(crate) fn refused_between(&self, from: Duration, to: Duration) -> usize {
        self.sent.iter().map(|sent| sent.refused_between(from, to)).sum()
    }

    /// Attempts sent by any gateway during the `Retry-After` of a 429.
    pub(crate) fn sent_against(&self) -> usize {
        let against = |(index, sender): (usize, &Sent)| {
            let counts = self.sent.iter().enumerate().map(move |(other, teller)| {
                // Another gateway may be using the log at that moment.
                let delay = Duration::from_millis(if other == index { 0 } else { 5 });
                sender.sent_against(&teller.refused, delay)
            });
            counts.sum::<usize>()
        };
        self.sent.iter().enumerate().map(against).sum()
    }

    /// The part of the limit used between two moments.
    pub(crate) fn used(&self, from: Duration, to: Duration) -> f64 {
        let passed = self.passed.iter().filter(|at| (from..to).contains(*at)).count();
        passed as f64 / (LIMIT as f64 * (to - from).as_secs_f64() / 10.0)
    }
}

impl Scene {
    fn world(self) -> World {
        let kept = usize::MAX;
        let options = clerk_test_support::simulator(7)
            .limiter(self.limiter)
            .headers(self.headers)
            .kept_windows(kept)
            .kept_events(kept);
        World::new(options)
    }

    /// Sends a burst of the whole limit every 13 s. Returns the duration of each burst, its 429s, and whether every
    /// gateway detected how the server counts.
    pub(crate) async fn burst(self, times: usize) -> (Vec<Duration>, Vec<usize>, bool) {
        let world = self.world();
        sleep(Duration::from_millis(5_300)).await;
        let log = MemoryDistributedLimiter::new(clock(&world, LOG_AHEAD), self.gateways as u64);
        let (ways, sent): (Vec<_>, Vec<_>) =
            (0..self.gateways).map(|gateway| self.gateway(&world, &log, gateway)).unzip();
        let refused = || sent.iter().map(|sent| sent.lock().refused.len()).sum::<usize>();
        let (mut lengths, mut refusals) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let (start, before) = (Instant::now(), refused());
            let mut tasks = JoinSet::new();
            for request in 0..usize::try_from(LIMIT).unwrap() {
                let way = Arc::clone(&ways[request % self.gateways]);
                tasks.spawn(async move { drop(way.send(&count(), &patient()).await.unwrap()) });
            }
            tasks.join_all().await;
            lengths.push(start.elapsed());
            refusals.push(refused() - before);
            sleep(Duration::from_secs(13).saturating_sub(start.elapsed())).await;
        }
        let knows = |way: &Arc<Outbound>| way.limits.stats().pace.counting != CountingKind::Unknown;
        (lengths, refusals, ways.iter().all(knows))
    }

    /// Runs the scenario for a time, starting somewhere within a window.
    pub(crate) async fn play(self, length: Duration) -> Outcome {
        let world = self.world();
        sleep(Duration::from_millis(5_300)).await;
        let log = MemoryDistributedLimiter::new(clock(&world, LOG_AHEAD), self.gateways as u64);
        let mut sent = Vec::new();
        let mut ways = Vec::new();
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        let from = world.simulator.now();
        for gateway in 0..self.gateways {
            let (way, log) = self.gateway(&world, &log, gateway);
            sent.push(log);
            ways.push(Arc::clone(&way));
            for _ in 0..WORKERS / self.gateways {
                tasks.spawn(work(Arc::clone(&way), start + length));
            }
        }
        let others = Arc::clone(&world.beside().outbound);
        tasks.spawn(self.foreign.send(others, start + length));
        let mut recognised = None;
        while recognised.is_none() && start.elapsed() < length {
            sleep(Duration::from_millis(100)).await;
            let knows = |way: &Arc<Outbound>| way.limits.stats().pace.counting != CountingKind::Unknown;
            recognised = ways.iter().all(knows).then(|| start.elapsed());
        }
        tasks.join_all().await;
        let truth = world.simulator.truth();
        let bucket = truth.instances[0].bucket(SimulatedBucket::Instance).unwrap();
        let passed = bucket.events.iter().filter(|event| !event.refused && event.at >= from);
        let passed = passed.map(|event| event.at.duration_since(from).unwrap()).collect();
        let sent = sent.into_iter().map(|sent| std::mem::take(&mut *sent.lock())).collect();
        Outcome { sent, passed, recognised }
    }

    fn gateway(
        self,
        world: &World,
        log: &Arc<MemoryDistributedLimiter>,
        number: usize,
    ) -> (Arc<Outbound>, Arc<Mutex<Sent>>) {
        let beside = world.beside();
        let Outbound { transport, base, key, ledger, .. } = &*beside.outbound;
        let clock = clock(world, GATEWAYS_AHEAD[number]);
        let options = LimiterOptions::default().environment(Environment::Development);
        let limits = if self.gateways > 1 {
            let budget: Arc<dyn DistributedLimiter> = Arc::<MemoryDistributedLimiter>::clone(log);
            InstanceLimits::sharing(options, Arc::clone(&clock), budget)
        } else {
            InstanceLimits::new(options, Arc::clone(&clock))
        };
        let (transport, sent) = Wire::new(Arc::clone(transport), number as u64);
        let way = Outbound {
            limits: Arc::new(limits),
            transport,
            base: base.clone(),
            key: Arc::clone(key),
            ledger: Arc::clone(ledger),
            clock,
            log: None,
        };
        (Arc::new(way), sent)
    }
}

/// A clock that is `ahead` milliseconds ahead of the server's.
fn clock(world: &World, ahead: i64) -> Arc<Clock> {
    let (now, by) = (world.simulator.now(), Duration::from_millis(ahead.unsigned_abs()));
    Arc::new(Clock::simulated(if ahead < 0 { now - by } else { now + by }))
}

/// Sends requests without a pause.
async fn work(way: Arc<Outbound>, end: Instant) {
    let policy = patient();
    while Instant::now() < end {
        let answer = tokio::time::timeout_at(end, way.send(&count(), &policy)).await;
        drop(answer.map(Result::unwrap));
    }
}

/// High priority, without a limit on the wait.
fn patient() -> RequestOptions {
    RequestOptions::low_priority().priority(Priority::High)
}

fn count() -> ApiRequest {
    ApiRequest::get("/v1/users/count", Source::Client)
}

impl Foreign {
    async fn send(self, way: Arc<Outbound>, end: Instant) {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut tasks = JoinSet::new();
        loop {
            let (pause, requests) = match self {
                Self::Nothing => (f64::MAX, 0),
                Self::Poisson => (-(1.0 - rng.f64()).ln() / (LIMIT as f64 * 0.03), 1),
                Self::Bursts => (47.0, LIMIT / 2),
            };
            if Instant::now() + Duration::from_secs_f64(pause.min(1e6)) >= end {
                return;
            }
            sleep(Duration::from_secs_f64(pause)).await;
            for _ in 0..requests {
                let way = Arc::clone(&way);
                tasks.spawn(async move { drop(way.request(&count(), Duration::from_secs(10)).await) });
            }
        }
    }
}
