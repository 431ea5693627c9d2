//! Gateways over one shared log, against the simulator's limiter, in simulated time: the same result on every machine.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::{
    BucketKey, Claim, CountingKind, DistributedLimiter, Lease, LeaseEnd, LimiterOptions, MemoryDistributedLimiter,
    Room, SharedShares, TakeFuture, UsageFuture,
};
use clerk_client::outbound::{ApiRequest, InstanceLimits, Outbound, RequestOptions, SendError};
use clerk_quota::clock::Clock;
use clerk_quota::{Limit, Moment, Source};
use clerk_simulator::{Fault, HeaderProfile, LimiterKind, SimulatedBucket};
use clerk_test_support::{World, in_simulated_time, start};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// How long Clerk takes for a response.
pub(crate) const LATENCY: Duration = Duration::from_millis(80);

/// The gateway's default for `max_wait`.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(11);

/// As of the limiter in Redis: a process without a request for this long is considered gone.
const PRESENCE: Duration = Duration::from_secs(60);

/// A fleet and its demand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fleet {
    pub(crate) gateways: usize,
    /// Clerk's limit of requests in 10 s.
    pub(crate) limit: u64,
    /// Requests that come, as a part of the limit.
    pub(crate) demand: f64,
    pub(crate) limiter: LimiterKind,
    /// Time before it is measured, in which the fleet finds out how the server counts.
    pub(crate) warm_up: Duration,
    /// Measured time.
    pub(crate) length: Duration,
    /// Whether the shared log is lost when the measured time begins.
    pub(crate) is_log_lost: bool,
}

/// What happened in the measured time.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) came: u64,
    pub(crate) answered: u64,
    /// Rejected by the gateways because the limit had no room in time.
    pub(crate) shed: u64,
    /// 429s of the server since the start.
    pub(crate) throttled: u64,
    /// Largest number of requests that the server accepted in any period of one window since the start.
    pub(crate) most_in_window: u64,
    /// Accepted requests, as a part of the limit.
    pub(crate) used: f64,
    pub(crate) asked: u64,
    pub(crate) ended: u64,
    pub(crate) largest_log: usize,
    /// Waits of answered requests beyond the server's latency, sorted.
    pub(crate) waits: Vec<Duration>,
    /// Answered requests of each gateway, sorted. As many come to each.
    pub(crate) by_gateway: Vec<u64>,
    pub(crate) counting: CountingKind,
}

impl Measured {
    /// Calls of the log's scripts per second.
    pub(crate) fn calls_per_second(&self, length: Duration) -> f64 {
        (self.asked + self.ended) as f64 / length.as_secs_f64()
    }

    /// Calls of the log's scripts for each answered request.
    pub(crate) fn calls_per_request(&self) -> f64 {
        (self.asked + self.ended) as f64 / self.answered.max(1) as f64
    }
}

/// What all gateways did to the log, and what Redis would hold.
#[derive(Debug, Default)]
struct Traffic {
    asked: u64,
    ended: u64,
    in_flight: usize,
    /// Ends of requests, the earliest first. The script removes them after two windows.
    ends: VecDeque<Moment>,
    largest_log: usize,
    last_seen: Vec<Moment>,
    by_last_seen: BTreeSet<(Moment, usize)>,
}

impl Traffic {
    /// Counts a gateway as present. Returns the number of those that are.
    fn see(&mut self, gateway: usize, now: Moment) -> u64 {
        let before = std::mem::replace(&mut self.last_seen[gateway], now);
        self.by_last_seen.remove(&(before, gateway));
        self.by_last_seen.insert((now, gateway));
        while let Some(first) = self.by_last_seen.first().copied()
            && first.0.after(PRESENCE) <= now
        {
            self.by_last_seen.remove(&first);
        }
        self.by_last_seen.len() as u64
    }

    fn measure_log(&mut self, now: Moment) {
        while self.ends.pop_front_if(|end| end.after(WINDOW * 2) <= now).is_some() {}
        self.largest_log = self.largest_log.max(self.in_flight + self.ends.len());
    }
}

/// The shared log as one gateway reaches it.
#[derive(Debug)]
struct GatewayLog {
    log: Arc<MemoryDistributedLimiter>,
    clock: Arc<Clock>,
    traffic: Arc<Mutex<Traffic>>,
    gateway: usize,
}

impl DistributedLimiter for GatewayLog {
    fn take(&self, budget: BucketKey, room: Room, shares: Option<SharedShares>) -> TakeFuture<'_> {
        Box::pin(async move {
            self.traffic.lock().asked += 1;
            let mut taken = self.log.take(budget, room, shares).await?;
            let (now, mut traffic) = (self.clock.now(), self.traffic.lock());
            taken.processes = traffic.see(self.gateway, now);
            traffic.in_flight += usize::from(taken.outcome.is_ok());
            traffic.measure_log(now);
            Ok(taken)
        })
    }

    fn enter(&self, budget: BucketKey, window: Duration, caller: Option<Arc<str>>) -> Lease {
        self.traffic.lock().in_flight += 1;
        self.log.enter(budget, window, caller)
    }

    fn claim(&self, budget: BucketKey, claim: Claim, patience: Duration) {
        self.log.claim(budget, claim, patience);
    }

    fn end(&self, budget: BucketKey, lease: Lease, ended: LeaseEnd) {
        {
            let (now, mut traffic) = (self.clock.now(), self.traffic.lock());
            traffic.ended += 1;
            traffic.in_flight -= 1;
            if matches!(ended, LeaseEnd::Counted { .. }) {
                traffic.ends.push_back(now);
            }
            traffic.measure_log(now);
        }
        self.log.end(budget, lease, ended);
    }

    fn usage(&self, budget: BucketKey, window: Duration) -> UsageFuture<'_> {
        self.log.usage(budget, window)
    }
}

/// Runs a fleet in simulated time.
pub(crate) fn measure(fleet: Fleet) -> Measured {
    let measured = Cell::new(None);
    in_simulated_time(async { measured.set(Some(fleet.run().await)) });
    measured.take().unwrap()
}

/// A request: when it came, and how it ended.
type Request = (Instant, Outcome);

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Answered(Duration),
    Shed,
    Failed,
}

impl Fleet {
    /// Time between two requests to one gateway.
    pub(crate) fn gap(&self) -> Duration {
        WINDOW.mul_f64(self.gateways as f64 / (self.limit as f64 * self.demand))
    }

    async fn run(self) -> Measured {
        let kept = usize::MAX;
        let options = clerk_test_support::simulator(7)
            .limiter(self.limiter)
            .headers(HeaderProfile::None)
            .limits(vec![format!("instance={}/10s", self.limit).parse().unwrap()])
            .kept_windows(kept)
            .kept_events(kept);
        let world = World::new(options);
        let latency = Fault::Latency { millis: u64::try_from(LATENCY.as_millis()).unwrap() };
        world.simulator.set_faults(latency.always().into()).unwrap();
        let log = MemoryDistributedLimiter::new(Arc::clone(&world.outbound.clock), self.gateways as u64);
        let traffic = Traffic { last_seen: vec![Moment::default(); self.gateways], ..Traffic::default() };
        let traffic = Arc::new(Mutex::new(traffic));
        let ways: Vec<_> = (0..self.gateways).map(|gateway| self.way(&world, &log, &traffic, gateway)).collect();

        let from = Instant::now();
        let mut gateways = JoinSet::new();
        for way in &ways {
            gateways.spawn(self.gateway(Arc::clone(way), from));
        }
        sleep_until(from + self.warm_up).await;
        let (asked, ended) = {
            let mut traffic = traffic.lock();
            traffic.largest_log = 0;
            (traffic.asked, traffic.ended)
        };
        log.set_away(self.is_log_lost);
        sleep_until(from + self.warm_up + self.length).await;
        let (asked, ended, largest_log) = {
            let traffic = traffic.lock();
            (traffic.asked - asked, traffic.ended - ended, traffic.largest_log)
        };
        let requests: Vec<Vec<Request>> = gateways.join_all().await;

        let truth = world.simulator.truth();
        let bucket = truth.instances[0].bucket(SimulatedBucket::Instance).unwrap();
        let events = bucket.events_between(start(), world.simulator.now());
        let passed: Vec<_> = events
            .iter()
            .filter(|event| !event.refused)
            .map(|event| event.at.duration_since(start()).unwrap())
            .collect();
        let period = self.warm_up..self.warm_up + self.length;
        let in_period = passed.iter().filter(|at| period.contains(at)).count();

        let is_measured = |(came, _): &&Request| period.contains(&came.duration_since(from));
        let of_gateways: Vec<Vec<&Request>> =
            requests.iter().map(|requests| requests.iter().filter(is_measured).collect()).collect();
        let waits_of = |requests: &[&Request]| -> Vec<Duration> {
            let wait = |(_, outcome): &&Request| if let Outcome::Answered(wait) = outcome { Some(*wait) } else { None };
            requests.iter().filter_map(wait).collect()
        };
        let mut waits: Vec<_> = of_gateways.iter().flat_map(|requests| waits_of(requests)).collect();
        waits.sort_unstable();
        let mut by_gateway: Vec<_> = of_gateways.iter().map(|requests| waits_of(requests).len() as u64).collect();
        by_gateway.sort_unstable();
        let measured = of_gateways.iter().flatten();
        Measured {
            came: measured.clone().count() as u64,
            answered: waits.len() as u64,
            shed: measured.filter(|(_, outcome)| matches!(outcome, Outcome::Shed)).count() as u64,
            throttled: (events.len() - passed.len()) as u64,
            most_in_window: most_in_window(&passed),
            used: in_period as f64 / (self.limit as f64 * self.length.div_duration_f64(WINDOW)),
            asked,
            ended,
            largest_log,
            waits,
            by_gateway,
            counting: ways[0].limits.stats().pace.counting,
        }
    }

    fn way(
        &self,
        world: &World,
        log: &Arc<MemoryDistributedLimiter>,
        traffic: &Arc<Mutex<Traffic>>,
        gateway: usize,
    ) -> Arc<Outbound> {
        let beside = world.beside();
        let Outbound { transport, base, key, ledger, clock, .. } = &*beside.outbound;
        let options = LimiterOptions::default().limit(Limit { requests: self.limit, window: WINDOW });
        let (log, clock) = (Arc::clone(log), Arc::clone(clock));
        let budget = Arc::new(GatewayLog { log, clock: Arc::clone(&clock), traffic: Arc::clone(traffic), gateway });
        Arc::new(Outbound {
            limits: Arc::new(InstanceLimits::sharing(options, Arc::clone(&clock), budget)),
            transport: Arc::clone(transport),
            base: base.clone(),
            key: Arc::clone(key),
            ledger: Arc::clone(ledger),
            clock,
            log: None,
        })
    }

    /// The requests of one gateway: one at a random moment within each gap.
    async fn gateway(self, way: Arc<Outbound>, from: Instant) -> Vec<Request> {
        let (gap, end) = (self.gap(), self.warm_up + self.length);
        let mut requests = JoinSet::new();
        for number in 0_u32.. {
            let at = gap.mul_f64(f64::from(number) + fastrand::f64());
            if at >= end {
                break;
            }
            sleep_until(from + at).await;
            requests.spawn(request(Arc::clone(&way)));
        }
        requests.join_all().await
    }
}

async fn request(way: Arc<Outbound>) -> Request {
    let came = Instant::now();
    let options = RequestOptions::default().max_queue_wait(MAX_WAIT);
    let outcome = match way.send(&ApiRequest::get("/v1/users/count", Source::Client), &options).await {
        Ok(response) if response.status.is_success() => Outcome::Answered(came.elapsed().saturating_sub(LATENCY)),
        Err(SendError::Shed(_)) => Outcome::Shed,
        Ok(_) | Err(_) => Outcome::Failed,
    };
    (came, outcome)
}

/// The largest number of these moments, which are in order, in any period of one window.
pub(crate) fn most_in_window(passed: &[Duration]) -> u64 {
    let mut first = 0;
    let mut most = 0;
    for (last, at) in passed.iter().enumerate() {
        while passed[first] + WINDOW <= *at {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most as u64
}
