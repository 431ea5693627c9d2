//! Fail-over, a slot that moves and a lost node under load. Takes minutes: `scripts/prove-redis` runs it.
//!
//! Three processes share the limit of one simulated instance: their workers send as many requests as it allows. They also
//! share the cache of another one, which has room: one process writes, and all read until they see it.

#![expect(clippy::print_stdout, reason = "what it prints is its result")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clerk_client::limiter::RedisLimiter;
use clerk_client::redis::{InstanceKeys, RedisClient, RedisOptions, Script};
use clerk_client::secret::Secret;
use clerk_client::transport::MemoryTransport;
use clerk_client::{Cache, Clerk, UpdateUser};
use clerk_simulator::{Options, Simulator};
use clerk_test_support::redis_cluster::RedisCluster;
use clerk_test_support::redis_sentinel::WatchedRedis;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const USERS: u32 = 100;
const PROCESSES: usize = 3;
const WORKERS: usize = 8;

/// Longest time until all processes see a write: after the fail-over.
const PATIENCE: Duration = Duration::from_secs(60);

/// The limits of an operation in production.
fn options(url: Secret) -> RedisOptions {
    RedisOptions::new(url)
}

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    writes: AtomicU64,
    errors: AtomicU64,
    shed: AtomicU64,
    /// Most milliseconds until a write was seen by all processes.
    slowest: AtomicU64,
    /// Most milliseconds without a script that succeeded.
    away: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn at_least(counter: &AtomicU64, time: Duration) {
        counter.fetch_max(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

struct Load {
    simulator: Simulator,
    counts: Arc<Counts>,
    tasks: JoinSet<()>,
}

impl Load {
    fn start(options: &RedisOptions, instance: &str) -> Self {
        let simulator = Simulator::new(Options::default().users(USERS));
        let ids: Arc<Vec<String>> = Arc::new((0..USERS).filter_map(|number| simulator.user_id(number)).collect());
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        let mut readers = Vec::new();
        for _ in 0..PROCESSES {
            let redis = RedisClient::new(options.clone()).unwrap();
            let clerk =
                |key: &str| Clerk::builder().secret_key(key).transport(MemoryTransport::new(simulator.router()));
            let limiter = RedisLimiter::new(redis.clone(), instance);
            let limited = clerk("sk_live_4bMbJyWZ2vnLx0aQ").distributed_limiter(limiter).build().unwrap();
            for _ in 0..WORKERS {
                tasks.spawn(work(limited.clone(), Arc::clone(&ids), Arc::clone(&counts)));
            }
            let cache = Cache::memory(8 << 20).redis(redis, instance);
            readers.push(clerk("sk_live_9cNcKzXA3woMy1bR").cache(cache).build().unwrap());
        }
        tasks.spawn(write(readers, ids[0].clone(), Arc::clone(&counts)));
        tasks.spawn(watch(RedisClient::new(options.clone()).unwrap(), instance.to_owned(), Arc::clone(&counts)));
        Self { simulator, counts, tasks }
    }

    /// Ends the load and returns its figures.
    async fn finish(mut self, what: &str) {
        self.tasks.shutdown().await;
        let by_status = self.simulator.truth().requests.by_status;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let throttled = by_status.get(&429).copied().unwrap_or(0);
        println!(
            "{what}: {} reads, {} writes, {} errors, {} shed, Clerk's 429: {throttled}, Redis away for at most {} ms, \
            slowest invalidation {} ms",
            read(&self.counts.reads),
            read(&self.counts.writes),
            read(&self.counts.errors),
            read(&self.counts.shed),
            read(&self.counts.away),
            read(&self.counts.slowest),
        );
        assert!(read(&self.counts.reads) > 1000 && read(&self.counts.writes) > 5, "no load");
        assert_eq!(read(&self.counts.errors), 0, "errors");
    }
}

async fn work(clerk: Clerk, ids: Arc<Vec<String>>, counts: Arc<Counts>) {
    loop {
        let id = &ids[fastrand::usize(..ids.len())];
        match clerk.users().get(id).await {
            Ok(_) => Counts::add(&counts.reads),
            // Too many wait for the limit, as is meant.
            Err(error) if error.retry_after().is_some() => {
                Counts::add(&counts.shed);
                sleep(Duration::from_millis(100)).await;
            }
            Err(error) => {
                println!("error: {error}");
                Counts::add(&counts.errors);
            }
        }
    }
}

/// Changes a user in one process, until all others see it in their caches.
async fn write(clerks: Vec<Clerk>, id: String, counts: Arc<Counts>) {
    for number in 0_u64.. {
        let name = format!("name{number}");
        let changes = UpdateUser::default().first_name(name.clone());
        if clerks[0].users().update(&id, &changes).await.is_err() {
            continue;
        }
        Counts::add(&counts.writes);
        let written = Instant::now();
        let seen = timeout(PATIENCE, async {
            for clerk in &clerks {
                loop {
                    let user = clerk.users().get(&id).await;
                    if user.is_ok_and(|user| user.fields["first_name"] == *name) {
                        break;
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            }
        });
        if seen.await.is_err() {
            println!("error: {name} was not seen by all processes");
            Counts::add(&counts.errors);
        }
        Counts::at_least(&counts.slowest, written.elapsed());
        sleep(Duration::from_millis(200)).await;
    }
}

/// Measures how long no script succeeds, of which some keys do not exist, as for the limiter's.
async fn watch(client: RedisClient, instance: String, counts: Arc<Counts>) {
    let keys = ["watched", "missing"].map(|name| InstanceKeys::new(&instance).key(&[name]));
    let script = Script::new("return redis.call('GET', KEYS[2]) or redis.call('SET', KEYS[1], 'v', 'PX', 60000)");
    let mut last = Instant::now();
    loop {
        if client.run(&script, &keys.each_ref(), &[]).await.is_ok() {
            Counts::at_least(&counts.away, last.elapsed());
            last = Instant::now();
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; scripts/prove-redis runs it"]
async fn prove_redis_fail_over_by_sentinels() {
    let mut watched = WatchedRedis::start(3, 1000).await;
    let load = Load::start(&options(watched.url()), "a");
    sleep(Duration::from_secs(15)).await;
    watched.kill_primary().await;
    sleep(Duration::from_secs(30)).await;
    // The former primary becomes a replica.
    watched.restart_primary().await;
    sleep(Duration::from_secs(10)).await;
    load.finish("sentinels, primary killed").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; scripts/prove-redis runs it"]
async fn prove_redis_slot_moved() {
    let (cluster, slot, from) = cluster(0).await;
    let load = Load::start(&options(cluster.url()), "a");
    sleep(Duration::from_secs(15)).await;
    let to = (from + 1) % 3;
    cluster.begin_move(slot, from, to).await;
    sleep(Duration::from_secs(3)).await;
    cluster.finish_move(slot, from, to).await;
    sleep(Duration::from_secs(20)).await;
    load.finish("cluster, slot moved for 3 s").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; scripts/prove-redis runs it"]
async fn prove_redis_node_lost() {
    let (mut cluster, _, owner) = cluster(1).await;
    let load = Load::start(&options(cluster.url()), "a");
    sleep(Duration::from_secs(15)).await;
    cluster.node_mut(owner).server.kill().await;
    sleep(Duration::from_secs(30)).await;
    load.finish("cluster, primary killed").await;
}

/// A cluster, the slot of the instance `a`, and the node that has it.
async fn cluster(replicas: usize) -> (RedisCluster, u16, usize) {
    let cluster = RedisCluster::start(3, replicas).await;
    let slot = cluster.nodes()[0].server.command(&["CLUSTER", "KEYSLOT", "a"]).await;
    let owner = cluster.owner(0, slot).await;
    (cluster, slot, owner)
}
