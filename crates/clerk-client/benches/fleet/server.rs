//! The same over a real redis-server: what a call of the scripts costs it, and a fleet in real time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::{
    BucketKey, CountingKind, DistributedLimiter, Lease, LeaseEnd, Limiter, LimiterOptions, Priority, RedisLimiter, Room,
};
use clerk_client::redis::{InstanceKeys, RedisClient, Reply, Script};
use clerk_quota::clock::Clock;
use clerk_quota::{Bucket, KeyVerdict, Limit, Observation, Quota, RouteId, Source};
use clerk_test_support::redis::RedisServer;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::simulated::{LATENCY, MAX_WAIT, WINDOW, most_in_window};

const BUDGET: BucketKey = BucketKey { bucket: Bucket::Instance, entity: None };
const COUNTING: &str = "clerk-exporter:{fleet}:v2:pace:counting";
const LOG: &str = "clerk-exporter:{fleet}:v2:pace:instance::log";

/// Reports that the limiter queues.
const MAX_UPDATES: u64 = 10_000;

/// Calls at the same time: the server then reads and answers several at once, as with many gateways.
const CONCURRENT: u64 = 64;

/// Microseconds of the server for a call: in the script, and all CPU time of its thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) script: f64,
    pub(crate) cpu: f64,
}

/// What calls cost with a full log.
#[derive(Debug)]
pub(crate) struct Costs {
    pub(crate) entries: u64,
    pub(crate) log_bytes: u64,
    pub(crate) admitted: Cost,
    pub(crate) refused: Cost,
    pub(crate) ended: Cost,
}

/// Use of the server so far.
#[derive(Debug, Clone, Copy)]
struct Use {
    calls: u64,
    script_micros: f64,
    cpu_micros: f64,
}

impl Use {
    async fn read(redis: &RedisServer) -> Self {
        let stats: String = redis.command(&["INFO", "commandstats"]).await;
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap_or_default();
        let field = |name: &str| {
            let value = line.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            value.map_or(0.0, |value| value.parse::<f64>().unwrap())
        };
        let cpu: String = redis.command(&["INFO", "cpu"]).await;
        let seconds = |name: &str| {
            let value = cpu.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap().parse::<f64>().unwrap()
        };
        let cpu = seconds("used_cpu_user_main_thread") + seconds("used_cpu_sys_main_thread");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let calls = field("calls") as u64;
        Self { calls, script_micros: field("usec"), cpu_micros: cpu * 1e6 }
    }

    fn since(self, before: Self) -> Cost {
        let calls = (self.calls - before.calls).max(1) as f64;
        let script = (self.script_micros - before.script_micros) / calls;
        Cost { script, cpu: (self.cpu_micros - before.cpu_micros) / calls }
    }
}

/// Measures calls of a limiter with this limit while the log is full, in an hour's window so that nothing returns.
pub(crate) async fn costs(limit: u64, counting: CountingKind, calls: u64) -> Costs {
    let redis = RedisServer::start(&[]).await;
    set_counting(&redis, counting).await;
    let budget = RedisLimiter::new(redis.store(), "fleet");
    let room = Room { requests: limit, window: Duration::from_secs(3600), may_explore: false };
    let most = calls.min(limit / 2);
    take(&budget, room, limit - most).await;
    let before = Use::read(&redis).await;
    let leases = take(&budget, room, most).await;
    let admitted = Use::read(&redis).await.since(before);

    let before = Use::read(&redis).await;
    assert!(take(&budget, room, calls).await.is_empty(), "the log is full");
    let refused = Use::read(&redis).await.since(before);

    let before = Use::read(&redis).await;
    let ends = leases.len() as u64;
    for lease in leases {
        budget.end(BUDGET, lease, LeaseEnd::Counted { window: room.window, answered: true });
    }
    let mut after = Use::read(&redis).await;
    assert!(ends <= MAX_UPDATES, "the limiter drops reports beyond that");
    while after.calls < before.calls + ends {
        sleep(Duration::from_millis(5)).await;
        after = Use::read(&redis).await;
    }
    Costs {
        entries: redis.command(&["ZCARD", LOG]).await,
        log_bytes: redis.command(&["MEMORY", "USAGE", LOG, "SAMPLES", "0"]).await,
        admitted,
        refused,
        ended: after.since(before),
    }
}

async fn set_counting(redis: &RedisServer, counting: CountingKind) {
    let kind = match counting {
        CountingKind::Unknown => return,
        CountingKind::Exact => "1",
        CountingKind::SlidingCounter => "2",
    };
    let () = redis.command(&["SET", COUNTING, kind]).await;
}

/// What it costs to renew a lease: to compare its owner and extend it.
pub(crate) async fn lease_cost(calls: u64) -> Cost {
    const RENEW: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
";
    let redis = RedisServer::start(&[]).await;
    let (store, renew) = (redis.store(), Arc::new(Script::new(RENEW)));
    let key = Arc::new(InstanceKeys::new("fleet").key(&["probe", "lease"]));
    store.set(&key, b"owner", Duration::from_secs(3600)).await.unwrap();
    let before = Use::read(&redis).await;
    let mut callers = JoinSet::new();
    for _ in 0..CONCURRENT {
        let (store, renew, key) = (store.clone(), Arc::clone(&renew), Arc::clone(&key));
        callers.spawn(async move {
            for _ in 0..calls.div_ceil(CONCURRENT) {
                let renewed = store.run(&renew, &[&key], &[b"owner", b"3600000"]).await.unwrap();
                assert_eq!(renewed, Reply::Int(1));
            }
        });
    }
    callers.join_all().await;
    Use::read(&redis).await.since(before)
}

/// Asks this many times. Returns what was admitted.
async fn take(budget: &Arc<RedisLimiter>, room: Room, calls: u64) -> Vec<Lease> {
    let mut callers = JoinSet::new();
    for caller in 0..CONCURRENT {
        let budget = Arc::clone(budget);
        let calls = (calls + CONCURRENT - 1 - caller) / CONCURRENT;
        callers.spawn(async move {
            let mut leases = Vec::new();
            for _ in 0..calls {
                leases.extend(budget.take(BUDGET, room, None).await.unwrap().outcome.ok());
            }
            leases
        });
    }
    callers.join_all().await.into_iter().flatten().collect()
}

/// A fleet in real time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RealFleet {
    pub(crate) gateways: usize,
    /// Requests in 10 s.
    pub(crate) limit: u64,
    /// Requests that come, as a part of the limit.
    pub(crate) demand: f64,
    /// How the server counts, as the fleet has found out.
    pub(crate) counting: CountingKind,
    /// Time before it is measured.
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// What a fleet did in the measured time.
#[derive(Debug)]
pub(crate) struct RealMeasured {
    /// Script calls per second.
    pub(crate) calls: f64,
    pub(crate) cost: Cost,
    /// Admitted requests, as a part of the limit.
    pub(crate) used: f64,
    /// Largest number of requests that left in any period of one window since the start.
    pub(crate) most_in_window: u64,
    pub(crate) entries: u64,
    pub(crate) log_bytes: u64,
    /// Memory of all keys.
    pub(crate) data_bytes: u64,
    /// Gateways that reached the server at the end.
    pub(crate) reachable: usize,
    /// Waits of admitted requests, sorted.
    pub(crate) waits: Vec<Duration>,
}

impl RealFleet {
    pub(crate) async fn measure(self) -> RealMeasured {
        let redis = RedisServer::start(&["--maxclients", "20000"]).await;
        set_counting(&redis, self.counting).await;
        let empty: String = redis.command(&["INFO", "memory"]).await;
        let clock = Arc::new(Clock::new());
        let options = LimiterOptions::default().limit(Limit { requests: self.limit, window: WINDOW });
        let gateways: Vec<_> = (0..self.gateways)
            .map(|_| {
                // Each has its own connection. The timeout is not the default one: this machine's load is not the subject.
                let budget = RedisLimiter::new(RedisClient::new(redis.options()).unwrap(), "fleet");
                Limiter::sharing(options, Arc::clone(&clock), budget)
            })
            .collect();
        let from = Instant::now();
        let end = self.warm_up + self.length;
        let gap = WINDOW.mul_f64(self.gateways as f64 / (self.limit as f64 * self.demand));
        let mut fleet = JoinSet::new();
        for limiter in &gateways {
            fleet.spawn(requests(Arc::clone(limiter), Arc::clone(&clock), (from, gap, end)));
        }
        sleep_until(from + self.warm_up).await;
        let (before, began) = (Use::read(&redis).await, Instant::now());
        sleep_until(from + end).await;
        let (after, took) = (Use::read(&redis).await, began.elapsed());
        let entries = redis.command(&["ZCARD", LOG]).await;
        let log_bytes = redis.command(&["MEMORY", "USAGE", LOG, "SAMPLES", "0"]).await;
        let full: String = redis.command(&["INFO", "memory"]).await;
        let reachable =
            gateways.iter().filter(|limiter| limiter.stats().sharing.is_some_and(|sharing| sharing.reachable)).count();
        let mut requests: VecDeque<_> = fleet.join_all().await.into_iter().flatten().collect();
        requests.make_contiguous().sort_unstable();
        let left: Vec<_> = requests.iter().map(|(left, _)| *left).collect();
        let in_period = |left: &Duration| (self.warm_up..end).contains(left);
        let mut waits: Vec<_> =
            requests.iter().filter(|(left, _)| in_period(left)).map(|(_, waited)| *waited).collect();
        waits.sort_unstable();
        RealMeasured {
            calls: (after.calls - before.calls) as f64 / took.as_secs_f64(),
            cost: after.since(before),
            used: waits.len() as f64 / (self.limit as f64 * self.length.div_duration_f64(WINDOW)),
            most_in_window: most_in_window(&left),
            entries,
            log_bytes,
            data_bytes: dataset(&full).saturating_sub(dataset(&empty)),
            reachable,
            waits,
        }
    }
}

fn dataset(memory: &str) -> u64 {
    let value = memory.lines().find_map(|line| line.strip_prefix("used_memory_dataset:"));
    value.unwrap().trim().parse().unwrap()
}

/// The requests of one gateway: when each left, and how long it had waited.
async fn requests(
    limiter: Arc<Limiter>,
    clock: Arc<Clock>,
    (from, gap, end): (Instant, Duration, Duration),
) -> Vec<(Duration, Duration)> {
    let mut requests = JoinSet::new();
    for number in 0_u32.. {
        let at = gap.mul_f64(f64::from(number) + fastrand::f64());
        if at >= end {
            break;
        }
        sleep_until(from + at).await;
        let (limiter, clock) = (Arc::clone(&limiter), Arc::clone(&clock));
        requests.spawn(async move {
            let came = Instant::now();
            let permit = limiter.acquire(Bucket::Instance, None, Priority::High, MAX_WAIT).await;
            let (left, waited) = (from.elapsed(), came.elapsed());
            let mut permit = permit.ok()?;
            sleep(LATENCY).await;
            permit.answered(&success(&clock));
            Some((left, waited))
        });
    }
    requests.join_all().await.into_iter().flatten().collect()
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
