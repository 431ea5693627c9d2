//! Random traffic of several callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clerk_client::limiter::{
    CallerShare, CountingKind, DistributedLimiter, Limiter, LimiterOptions, MemoryDistributedLimiter, Priority, Sender,
};
use clerk_quota::clock::Clock;

use clerk_quota::{Bucket, CallerId, KeyVerdict, Limit, Observation, Quota, RouteId, Source};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::record::{Record, Request};

pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// Few: what is guaranteed has a place in any case.
const MAX_QUEUE: usize = 12;

pub(crate) const RESERVE: f64 = 0.1;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) name: &'static str,
    pub(crate) min_share: f64,
    pub(crate) max_share: f64,
    pub(crate) is_low: bool,
}

/// Requests that come at once.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    pub(crate) at: Duration,
    pub(crate) caller: usize,
    pub(crate) count: usize,
    /// How long each is in flight.
    pub(crate) took: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    pub(crate) limit: u64,
    pub(crate) callers: Vec<Caller>,
    pub(crate) arrivals: Vec<Arrivals>,
    /// Each gets every so many of the requests.
    pub(crate) processes: usize,
    /// The longest wait of every request.
    pub(crate) patience: Duration,
    /// Whether it is known from the start that the server is no sliding counter.
    pub(crate) is_counting_known: bool,
}

fn id(caller: usize) -> CallerId {
    CallerId(u16::try_from(caller).unwrap() + 2)
}

/// A response without quota headers.
fn success(clock: &Clock) -> Observation {
    Observation {
        at: clock.now(),
        source: Source::Client,
        route: RouteId::OTHER,
        bucket: Bucket::Instance,
        entity: None,
        status: 200,
        usable: true,
        key: KeyVerdict::Valid,
        quota_code: None,
        is_rate_limit: false,
        quota: Quota::default(),
        clock_offset_seconds: None,
    }
}

impl Traffic {
    pub(crate) fn run(&self) -> Record {
        let share = |(place, caller): (usize, &Caller)| {
            let share = CallerShare::new(id(place), caller.name.into());
            share.min_share(caller.min_share).max_share(caller.max_share)
        };
        let shares = self.callers.iter().enumerate().filter(|(_, it)| it.min_share > 0.0 || it.max_share < 1.0);
        self.run_with(shares.map(share).collect())
    }

    pub(crate) fn run_without_shares(&self) -> Record {
        self.run_with(Vec::new())
    }

    fn run_with(&self, shares: Vec<CallerShare>) -> Record {
        let mut record = None;
        clerk_test_support::in_simulated_time(async { record = Some(self.simulate(shares).await) });
        record.unwrap()
    }

    async fn simulate(&self, shares: Vec<CallerShare>) -> Record {
        let clock = Arc::new(Clock::simulated(clerk_test_support::start()));
        let log = MemoryDistributedLimiter::new(Arc::clone(&clock), self.processes as u64);
        let options = LimiterOptions::default()
            .limit(Limit { requests: self.limit, window: WINDOW })
            .reserve(RESERVE)
            .max_queue(MAX_QUEUE);
        let limiter = || match self.processes {
            1 => Limiter::new(options, Arc::clone(&clock)),
            _ => Limiter::sharing(
                options,
                Arc::clone(&clock),
                Arc::<MemoryDistributedLimiter>::clone(&log) as Arc<dyn DistributedLimiter>,
            ),
        };
        let limiters: Vec<_> = (0..self.processes).map(|_| limiter()).collect();
        for limiter in &limiters {
            if self.is_counting_known {
                learn_how_the_server_counts(limiter, &clock).await;
            }
            limiter.set_shares(shares.clone());
        }
        // Until nothing of that counts.
        sleep(WINDOW * 3).await;
        let (from, numbers, patience) = (Instant::now(), Arc::new(AtomicU64::new(0)), self.patience);
        let mut tasks = JoinSet::new();
        for arrivals in &self.arrivals {
            for _ in 0..arrivals.count {
                let limiter = Arc::clone(&limiters[tasks.len() % self.processes]);
                let (clock, arrivals, numbers) = (Arc::clone(&clock), arrivals.clone(), Arc::clone(&numbers));
                let priority = if self.callers[arrivals.caller].is_low { Priority::Low } else { Priority::High };
                tasks.spawn(
                    async move { request(&limiter, &clock, &arrivals, priority, (from, &numbers), patience).await },
                );
            }
        }
        let mut requests = tasks.join_all().await;
        requests.sort_by_key(|request| request.number);
        Record { traffic: self.clone(), requests }
    }
}

async fn request(
    limiter: &Arc<Limiter>,
    clock: &Clock,
    arrivals: &Arrivals,
    priority: Priority,
    (from, numbers): (Instant, &AtomicU64),
    patience: Duration,
) -> Request {
    sleep_until(from + arrivals.at).await;
    let caller = arrivals.caller;
    let (came, number) = (from.elapsed(), numbers.fetch_add(1, Ordering::Relaxed));
    let sender = Sender::from(priority).of(id(caller));
    let permit = limiter.acquire(Bucket::Instance, None, sender, patience).await;
    let left = from.elapsed();
    let Ok(mut permit) = permit else { return Request { number, caller, came, left, ended: None } };
    sleep(arrivals.took).await;
    permit.answered(&success(clock));
    Request { number, caller, came, left, ended: Some(from.elapsed()) }
}

/// Without other knowledge, the limiter also allows for a sliding counter, which returns quota later.
async fn learn_how_the_server_counts(limiter: &Arc<Limiter>, clock: &Clock) {
    while limiter.stats().counting != CountingKind::Exact {
        let mut permit = limiter.acquire(Bucket::Instance, None, Priority::High, WINDOW * 6).await.unwrap();
        permit.answered(&success(clock));
    }
}
