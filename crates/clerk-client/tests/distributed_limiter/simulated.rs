//! Minutes of saturated traffic from several processes, against the simulator's limiter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clerk_client::limiter::{
    self, BucketKey, DistributedLimiter, Lease, LeaseEnd, LimiterUnreachable, Priority, Room, Sharing, TakeFuture,
    Taken,
};
use clerk_client::outbound::{ApiRequest, InstanceLimits, Outbound, RequestOptions, SendError};
use clerk_quota::{Bucket, Environment, Source};
use clerk_simulator::{Fault, HeaderProfile, LimiterKind};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use clerk_test_support::{self, World, in_simulated_time};

/// What Redis does, in memory and on tokio's clock: the log of all processes. Can be cut off.
#[derive(Debug, Default)]
struct Log {
    entries: Mutex<BTreeMap<u64, (BucketKey, Option<Instant>)>>,
    blocked: Mutex<BTreeMap<String, Instant>>,
    next: AtomicU64,
    away: AtomicBool,
    asked: AtomicU64,
    processes: u64,
}

impl Log {
    fn new(processes: u64) -> Arc<Self> {
        Arc::new(Self { processes, ..Self::default() })
    }

    fn try_take(&self, budget: BucketKey, room: Room) -> Result<Lease, Duration> {
        let now = Instant::now();
        if let Some(until) = self.blocked.lock().get(&format!("{budget:?}")).filter(|until| **until > now) {
            return Err(*until - now);
        }
        let mut entries = self.entries.lock();
        entries.retain(|_, (_, over)| over.is_none_or(|over| over + room.window > now));
        let mut used: Vec<_> = entries.values().filter(|(other, _)| *other == budget).map(|(_, over)| *over).collect();
        if (used.len() as u64) < room.requests {
            let lease = self.next.fetch_add(1, Ordering::Relaxed);
            entries.insert(lease, (budget, None));
            return Ok(Lease(lease));
        }
        used.sort_by_key(|over| (over.is_none(), *over));
        let first = used[used.len() - usize::try_from(room.requests).unwrap()];
        Err(first.map_or(room.window, |over| (over + room.window - now).max(Duration::from_millis(1))))
    }
}

impl DistributedLimiter for Log {
    fn take(&self, budget: BucketKey, room: Room) -> TakeFuture<'_> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(3)).await;
            if self.away.load(Ordering::Relaxed) {
                return Err(LimiterUnreachable);
            }
            Ok(Taken { outcome: self.try_take(budget, room), processes: self.processes })
        })
    }

    fn enter(&self, budget: BucketKey, _: Duration) -> Lease {
        let lease = self.next.fetch_add(1, Ordering::Relaxed);
        self.entries.lock().insert(lease, (budget, None));
        Lease(lease)
    }

    fn end(&self, budget: BucketKey, lease: Lease, ended: LeaseEnd) {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        match ended {
            LeaseEnd::Counted { .. } => {
                if let Some(entry) = entries.get_mut(&lease.0) {
                    entry.1 = Some(now);
                }
            }
            LeaseEnd::NotCounted => drop(entries.remove(&lease.0)),
            LeaseEnd::Throttled { wait } => {
                entries.remove(&lease.0);
                self.blocked.lock().insert(format!("{budget:?}"), now + wait);
            }
        }
    }
}

/// So many processes, each with a way of its own to one simulated instance.
struct Fleet {
    world: World,
    log: Arc<Log>,
    ways: Vec<Arc<Outbound>>,
}

impl Fleet {
    fn new(options: clerk_simulator::Options, processes: usize) -> Self {
        let world = World::new(options);
        let log = Log::new(processes as u64);
        let ways = (0..processes).map(|_| Self::way(&world, &log)).collect();
        Self { world, log, ways }
    }

    fn way(world: &World, log: &Arc<Log>) -> Arc<Outbound> {
        let beside = world.beside();
        let Outbound { transport: upstream, base, key, ledger, clock, .. } = &*beside.outbound;
        let options =
            limiter::LimiterOptions { environment: Environment::Development, ..limiter::LimiterOptions::default() };
        let budget: Arc<dyn DistributedLimiter> = Arc::<Log>::clone(log);
        Arc::new(Outbound {
            limits: Arc::new(InstanceLimits::sharing(options, Arc::clone(clock), budget)),
            transport: Arc::clone(upstream),
            base: base.clone(),
            key: Arc::clone(key),
            ledger: Arc::clone(ledger),
            clock: Arc::clone(clock),
        })
    }

    /// Every process asks without a pause, with so many workers each. Gives the successes of each.
    async fn saturate(&self, workers: usize, length: Duration) -> Vec<u64> {
        let end = Instant::now() + length;
        let mut fleet = JoinSet::new();
        for (index, way) in self.ways.iter().enumerate() {
            for _ in 0..workers {
                let way = Arc::clone(way);
                fleet.spawn(async move {
                    let policy = RequestOptions { priority: Priority::High, ..RequestOptions::low_priority() };
                    let mut successes = 0;
                    while Instant::now() < end {
                        let answer = tokio::time::timeout_at(end, way.send(&count(), &policy)).await;
                        successes += u64::from(answer.is_ok_and(|answer| answer.unwrap().status.is_success()));
                    }
                    (index, successes)
                });
            }
        }
        let mut successes = vec![0; self.ways.len()];
        while let Some(done) = fleet.join_next().await {
            let (index, count) = done.unwrap();
            successes[index] += count;
        }
        successes
    }

    fn refused(&self) -> usize {
        self.events(Duration::ZERO).1
    }

    /// Requests that passed and that were refused, from `skip` after the start on.
    fn events(&self, skip: Duration) -> (usize, usize) {
        let truth = self.world.simulator.truth();
        let bucket = truth.instances[0].bucket(clerk_simulator::SimulatedBucket::Instance).unwrap();
        let events = bucket.events_between(clerk_test_support::start() + skip, self.world.simulator.now());
        let refused = events.iter().filter(|event| event.refused).count();
        (events.len() - refused, refused)
    }

    fn sharing(&self) -> Vec<Sharing> {
        self.ways.iter().map(|way| way.limits.stats().pace.sharing.unwrap()).collect()
    }
}

fn count() -> ApiRequest {
    ApiRequest::get("/v1/users/count", Source::Client)
}

fn options(limiter: LimiterKind, headers: HeaderProfile) -> clerk_simulator::Options {
    let kept = usize::MAX;
    clerk_simulator::Options {
        limiter,
        headers,
        kept_windows: kept,
        kept_events: kept,
        ..clerk_test_support::simulator(7)
    }
}

#[test]
fn several_processes_use_the_whole_limit_and_meet_no_429() {
    for limiter in [LimiterKind::FixedWindow, LimiterKind::SlidingWindow, LimiterKind::TokenBucket { burst: None }] {
        for headers in [HeaderProfile::None, HeaderProfile::XRateLimit] {
            in_simulated_time(async {
                let fleet = Fleet::new(options(limiter, headers), 3);
                let rule = Fault::Latency { millis: 80 }.always();
                fleet.world.simulator.set_faults(rule.into()).unwrap();
                sleep(Duration::from_millis(3_700)).await;
                let successes = fleet.saturate(12, Duration::from_secs(240)).await;
                assert_eq!(fleet.refused(), 0, "{limiter}, {headers}");
                let (passed, _) = fleet.events(Duration::from_secs(60));
                let share = passed as f64 / (10.0 * 183.7);
                assert!(share >= 0.93, "{limiter}, {headers}: {share}");
                let least = successes.iter().min().unwrap() * 4;
                assert!(least > *successes.iter().max().unwrap(), "all get on: {successes:?}");
            });
        }
    }
}

#[test]
fn who_cannot_ask_keeps_to_a_share_and_asks_again_afterwards() {
    in_simulated_time(async {
        let fleet = Fleet::new(options(LimiterKind::SlidingWindow, HeaderProfile::None), 3);
        fleet.saturate(8, Duration::from_secs(60)).await;
        assert!(fleet.sharing().iter().all(|it| it.reachable && it.processes == Some(3)));
        fleet.log.away.store(true, Ordering::Relaxed);
        let alone = Instant::now();
        fleet.saturate(8, Duration::from_secs(120)).await;
        assert!(fleet.sharing().iter().all(|it| !it.reachable && it.processes == Some(3)));
        let (passed, _) = fleet.events(Duration::from_secs(80));
        assert!(passed as f64 > 10.0 * 100.0 * 0.85, "three thirds of the limit: {passed}");
        fleet.log.away.store(false, Ordering::Relaxed);
        fleet.saturate(8, Duration::from_secs(60)).await;
        assert!(fleet.sharing().iter().all(|it| it.reachable));
        assert_eq!(fleet.refused(), 0, "after {:?}", alone.elapsed());
    });
}

#[test]
fn nobody_asked_yet_and_nobody_there_is_half_of_the_limit() {
    in_simulated_time(async {
        let fleet = Fleet::new(options(LimiterKind::FixedWindow, HeaderProfile::None), 2);
        fleet.log.away.store(true, Ordering::Relaxed);
        fleet.saturate(8, Duration::from_secs(60)).await;
        assert_eq!(fleet.refused(), 0);
    });
}

#[test]
fn a_429_of_one_process_holds_all() {
    in_simulated_time(async {
        let fleet = Fleet::new(options(LimiterKind::FixedWindow, HeaderProfile::None), 2);
        let fault = Fault::Throttled { retry_after: Some("30".to_owned()), body: clerk_simulator::FaultBody::Clerk };
        fleet.world.simulator.set_faults(fault.times(1).into()).unwrap();
        let once = RequestOptions { max_queue_wait: Duration::from_secs(5), ..RequestOptions::default() };
        let refused = fleet.ways[0].request(&count(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(refused.status, 429);
        let other = fleet.ways[1].send(&count(), &once).await;
        let Err(SendError::Shed(shed)) = other else { panic!("{other:?}") };
        assert!(shed.retry_after > Duration::from_secs(25) && shed.retry_after < Duration::from_secs(32), "{shed:?}");
        sleep(Duration::from_secs(31)).await;
        assert!(fleet.ways[1].send(&count(), &once).await.unwrap().status.is_success());
    });
}

#[test]
fn who_gives_up_leaves_nothing_behind() {
    in_simulated_time(async {
        let fleet = Fleet::new(options(LimiterKind::FixedWindow, HeaderProfile::None), 1);
        let pacer = &fleet.ways[0].limits.limiter;
        for _ in 0..50 {
            let acquire = pacer.acquire(Bucket::Instance, None, Priority::High, Duration::from_secs(1));
            assert!(tokio::time::timeout(Duration::from_millis(1), acquire).await.is_err(), "it was still asking");
        }
        let numbers = pacer.stats();
        assert_eq!((numbers.in_flight, numbers.waiting), (0, 0));
        assert!(fleet.log.entries.lock().is_empty());
        assert_eq!(fleet.log.asked.load(Ordering::Relaxed), 50);
    });
}

#[test]
fn those_who_were_sent_back_keep_their_order() {
    in_simulated_time(async {
        let fleet = Fleet::new(options(LimiterKind::FixedWindow, HeaderProfile::None), 2);
        // The other process takes the whole window.
        fleet.ways[1].request(&count(), Duration::from_secs(5)).await.unwrap();
        let budget = BucketKey { bucket: Bucket::Instance, entity: None };
        let room = Room { requests: 100, window: Duration::from_secs(10) };
        while fleet
            .log
            .try_take(budget, room)
            .map(|lease| fleet.log.end(budget, lease, LeaseEnd::Counted { window: room.window }))
            .is_ok()
        {}
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for index in 0..20 {
            let (pacer, order) = (Arc::clone(&fleet.ways[0].limits.limiter), Arc::clone(&order));
            tasks.spawn(async move {
                let wait = Duration::from_secs(60);
                let permit = pacer.acquire(Bucket::Instance, None, Priority::High, wait).await.unwrap();
                order.lock().push(index);
                drop(permit);
            });
            tokio::task::yield_now().await;
        }
        while tasks.join_next().await.is_some() {}
        let order = order.lock().clone();
        assert!(order.is_sorted(), "{order:?}");
    });
}
