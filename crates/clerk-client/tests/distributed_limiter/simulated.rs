//! Minutes of saturated traffic from several processes against the simulator's limiter.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::{
    self, BucketKey, DistributedLimiter, LeaseEnd, MemoryDistributedLimiter, Priority, Room, Sharing,
};
use clerk_client::outbound::{ApiRequest, InstanceLimits, Outbound, RequestOptions, SendError};
use clerk_quota::{Bucket, Environment, Source};
use clerk_simulator::{Fault, HeaderProfile, LimiterKind};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use clerk_test_support::{self, World, in_simulated_time};

/// Several processes, each with its own client of one simulated instance.
struct Fleet {
    world: World,
    log: Arc<MemoryDistributedLimiter>,
    ways: Vec<Arc<Outbound>>,
}

impl Fleet {
    fn new(options: clerk_simulator::Options, processes: usize) -> Self {
        let world = World::new(options);
        let log = MemoryDistributedLimiter::new(Arc::clone(&world.outbound.clock), processes as u64);
        let ways = (0..processes).map(|_| Self::way(&world, &log)).collect();
        Self { world, log, ways }
    }

    fn way(world: &World, log: &Arc<MemoryDistributedLimiter>) -> Arc<Outbound> {
        let beside = world.beside();
        let Outbound { transport: upstream, base, key, ledger, clock, .. } = &*beside.outbound;
        let options = limiter::LimiterOptions::default().environment(Environment::Development);
        let budget: Arc<dyn DistributedLimiter> = Arc::<MemoryDistributedLimiter>::clone(log);
        Arc::new(Outbound {
            limits: Arc::new(InstanceLimits::sharing(options, Arc::clone(clock), budget)),
            transport: Arc::clone(upstream),
            base: base.clone(),
            key: Arc::clone(key),
            ledger: Arc::clone(ledger),
            clock: Arc::clone(clock),
            log: None,
        })
    }

    /// Every process sends without a pause, with `workers` workers each. Returns the successes of each.
    async fn saturate(&self, workers: usize, length: Duration) -> Vec<u64> {
        let end = Instant::now() + length;
        let mut fleet = JoinSet::new();
        for (index, way) in self.ways.iter().enumerate() {
            for _ in 0..workers {
                let way = Arc::clone(way);
                fleet.spawn(async move {
                    let policy = RequestOptions::low_priority().priority(Priority::High);
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

    /// Requests that passed and that were rejected, from `skip` after the start on.
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
    clerk_test_support::simulator(7).limiter(limiter).headers(headers).kept_windows(kept).kept_events(kept)
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
                assert!(least > *successes.iter().max().unwrap(), "all make progress: {successes:?}");
            });
        }
    }
}

#[test]
fn unreachable_log_means_local_share_until_it_is_back() {
    in_simulated_time(async {
        let fleet = Fleet::new(options(LimiterKind::SlidingWindow, HeaderProfile::None), 3);
        fleet.saturate(8, Duration::from_secs(60)).await;
        assert!(fleet.sharing().iter().all(|it| it.reachable && it.processes == Some(3)));
        fleet.log.set_away(true);
        let alone = Instant::now();
        fleet.saturate(8, Duration::from_secs(120)).await;
        assert!(fleet.sharing().iter().all(|it| !it.reachable && it.processes == Some(3)));
        let (passed, _) = fleet.events(Duration::from_secs(80));
        assert!(passed as f64 > 10.0 * 100.0 * 0.85, "three thirds of the limit: {passed}");
        fleet.log.set_away(false);
        fleet.saturate(8, Duration::from_secs(60)).await;
        assert!(fleet.sharing().iter().all(|it| it.reachable));
        assert_eq!(fleet.refused(), 0, "after {:?}", alone.elapsed());
    });
}

#[test]
fn process_without_contact_uses_half_of_the_limit() {
    in_simulated_time(async {
        let fleet = Fleet::new(options(LimiterKind::FixedWindow, HeaderProfile::None), 2);
        fleet.log.set_away(true);
        fleet.saturate(8, Duration::from_secs(60)).await;
        assert_eq!(fleet.refused(), 0);
    });
}

#[test]
fn a_429_of_one_process_blocks_all() {
    in_simulated_time(async {
        let fleet = Fleet::new(options(LimiterKind::FixedWindow, HeaderProfile::None), 2);
        let fault = Fault::Throttled { retry_after: Some("30".to_owned()), body: clerk_simulator::FaultBody::Clerk };
        fleet.world.simulator.set_faults(fault.times(1).into()).unwrap();
        let once = RequestOptions::default().max_queue_wait(Duration::from_secs(5));
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
fn cancelled_requests_leave_no_entry() {
    in_simulated_time(async {
        let fleet = Fleet::new(options(LimiterKind::FixedWindow, HeaderProfile::None), 1);
        let limiter = &fleet.ways[0].limits.limiter;
        for _ in 0..50 {
            let acquire = limiter.acquire(Bucket::Instance, None, Priority::High, Duration::from_secs(1));
            assert!(
                tokio::time::timeout(Duration::from_millis(1), acquire).await.is_err(),
                "still waiting for the log"
            );
        }
        let numbers = limiter.stats();
        assert_eq!((numbers.in_flight, numbers.waiting), (0, 0));
        assert!(fleet.log.is_empty());
        assert_eq!(fleet.log.asked(), 50);
    });
}

#[test]
fn requeued_requests_keep_their_order() {
    in_simulated_time(async {
        let fleet = Fleet::new(options(LimiterKind::FixedWindow, HeaderProfile::None), 2);
        // The other process takes the whole window.
        fleet.ways[1].request(&count(), Duration::from_secs(5)).await.unwrap();
        let budget = BucketKey { bucket: Bucket::Instance, entity: None };
        let room = Room { requests: 100, window: Duration::from_secs(10), may_explore: false };
        while fleet
            .log
            .try_take(budget, room)
            .map(|lease| fleet.log.end(budget, lease, LeaseEnd::Counted { window: room.window, answered: true }))
            .is_ok()
        {}
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for index in 0..20 {
            let (limiter, order) = (Arc::clone(&fleet.ways[0].limits.limiter), Arc::clone(&order));
            tasks.spawn(async move {
                let wait = Duration::from_secs(60);
                let permit = limiter.acquire(Bucket::Instance, None, Priority::High, wait).await.unwrap();
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
