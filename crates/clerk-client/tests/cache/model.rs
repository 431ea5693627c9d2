//! Random sequences of readers, fetches and invalidations: no request after an acknowledged invalidation gets an older
//! response, nothing outlives its TTL, each key has one fetch at a time and at most one per reader, and no reader waits
//! forever.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::cache::{Cache, CacheKey, CacheOptions, CachePolicy, CachedResponse, Hit};
use clerk_client::webhook::{Invalidate, Tag};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Failed, answer, clock, key, over, settle};
use clerk_test_support::redis::RedisServer;

const TTL: Duration = Duration::from_secs(10);
const STALE: Duration = Duration::from_secs(20);

/// A step.
#[derive(Debug, Clone)]
enum Step {
    Ask {
        cache: usize,
        key: usize,
    },
    /// A fetch in flight ends with a response or an error.
    Land {
        fetch: usize,
        is_good: bool,
    },
    /// Clerk's data changes, and the webhook arrives at one of the processes.
    Change {
        cache: usize,
        tag: usize,
    },
    /// A reader is dropped.
    Leave {
        reader: usize,
    },
    Wait {
        millis: u64,
    },
    /// Redis loses all data.
    Flush,
    /// All subscriptions break and are restored.
    Cut,
}

fn steps(with_redis: bool) -> impl Strategy<Value = Vec<Step>> {
    let wait = if with_redis { 1..2_u64 } else { 1..9000 };
    let step = prop_oneof![
        6 => (0..2_usize, 0..KEYS.len()).prop_map(|(cache, key)| Step::Ask { cache, key }),
        6 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(fetch, is_good)| Step::Land { fetch, is_good }),
        4 => (0..2_usize, 0..TAGS).prop_map(|(cache, tag)| Step::Change { cache, tag }),
        1 => any::<usize>().prop_map(|reader| Step::Leave { reader }),
        2 => wait.prop_map(|millis| Step::Wait { millis }),
    ];
    let rare = prop_oneof![Just(Step::Flush), Just(Step::Cut)];
    let step = if with_redis { prop_oneof![30 => step, 1 => rare].boxed() } else { step.boxed() };
    prop::collection::vec(step, 1..60)
}

/// Number of tags, and the tags of each key.
const TAGS: usize = 4;
const KEYS: [&[usize]; 4] = [&[0, 1], &[0, 2], &[0, 1, 3], &[0, 3]];

fn tag(index: usize) -> Tag {
    match index {
        0 => Tag::Everything,
        1 => Tag::User("user_1".into()),
        2 => Tag::User("user_2".into()),
        _ => Tag::UserList,
    }
}

/// Versions of the tagged data.
type Versions = [u64; TAGS];

fn of(versions: &Versions, key: usize) -> Vec<u64> {
    KEYS[key].iter().map(|tag| versions[*tag]).collect()
}

#[derive(Default)]
struct State {
    /// Number of requests.
    asked: usize,
    /// Clerk's current data.
    truth: Versions,
    /// The data at the last invalidation that was acknowledged and received by all.
    acknowledged: Versions,
    fetches: Vec<Fetch>,
    faults: Vec<String>,
}

struct Fetch {
    key: usize,
    cache: usize,
    began: Instant,
    /// Its response: the data when it began.
    versions: Versions,
    acknowledged: Versions,
    end: Option<oneshot::Sender<bool>>,
}

impl Fetch {
    fn is_in_flight(&self) -> bool {
        self.end.as_ref().is_some_and(|end| !end.is_closed())
    }
}

struct World {
    caches: Vec<Cache>,
    policy: CachePolicy,
    state: Arc<Mutex<State>>,
    readers: JoinSet<()>,
    handles: Vec<AbortHandle>,
    redis: Option<RedisServer>,
}

impl World {
    fn new(caches: Vec<Cache>, policy: CachePolicy, redis: Option<RedisServer>) -> Self {
        Self { caches, policy, state: Arc::default(), readers: JoinSet::new(), handles: Vec::new(), redis }
    }

    async fn run(mut self, steps: Vec<Step>) {
        for step in steps {
            self.step(&step).await;
            self.rest().await;
            self.check();
        }
        // All fetches and readers end.
        let end = timeout(Duration::from_secs(60), async {
            while !self.readers.is_empty() {
                self.land(0, true);
                self.rest().await;
                while self.readers.try_join_next().is_some() {}
            }
        });
        end.await.expect("a reader waits forever");
        self.check();
        if let Some(redis) = &self.redis {
            for (key, ttl) in redis.keys().await {
                assert!(ttl != -1, "{key} has no TTL");
            }
        }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Ask { cache, key } => self.ask(cache % self.caches.len(), key),
            Step::Land { fetch, is_good } => self.land(fetch, is_good),
            Step::Change { cache, tag } => self.change(cache % self.caches.len(), tag).await,
            Step::Leave { reader } => {
                if !self.handles.is_empty() {
                    self.handles.swap_remove(reader % self.handles.len()).abort();
                }
            }
            Step::Wait { millis } => sleep(Duration::from_millis(millis)).await,
            Step::Flush => {
                let () = self.redis.as_ref().unwrap().command(&["FLUSHALL"]).await;
            }
            Step::Cut => {
                let deaf: Vec<_> = self.caches.iter().map(|cache| cache.stats().disconnects).collect();
                let _: i64 = self.redis.as_ref().unwrap().command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
                for (cache, deaf) in self.caches.iter().zip(deaf) {
                    until(|| cache.stats().disconnects > deaf && cache.is_connected()).await;
                }
            }
        }
    }

    fn ask(&mut self, index: usize, number: usize) {
        let (cache, policy, state) = (self.caches[index].clone(), self.policy, Arc::clone(&self.state));
        let key = key(&cache, &number.to_string());
        self.handles.push(self.readers.spawn(read(cache, index, key, number, policy, state)));
    }

    fn land(&self, fetch: usize, is_good: bool) {
        let mut state = self.state.lock();
        let mut in_flight: Vec<_> = state.fetches.iter_mut().filter(|fetch| fetch.is_in_flight()).collect();
        let count = in_flight.len();
        if count > 0 {
            let _ = in_flight[fetch % count].end.take().unwrap().send(is_good);
        }
    }

    async fn change(&self, index: usize, number: usize) {
        let truth = {
            let mut state = self.state.lock();
            state.truth[number] += 1;
            state.truth
        };
        let heard: Vec<_> = self.caches.iter().map(|cache| cache.stats().heard).collect();
        self.caches[index].invalidate(&[tag(number)]).await.unwrap();
        for (other, heard) in heard.into_iter().enumerate().filter(|(other, _)| *other != index) {
            until(|| self.caches[other].stats().heard > heard).await;
        }
        self.state.lock().acknowledged[number] = truth[number];
    }

    /// Waits until no task is ready; only approximate with sockets.
    async fn rest(&self) {
        settle().await;
        if self.redis.is_some() {
            sleep(Duration::from_millis(2)).await;
            settle().await;
        }
    }

    fn check(&self) {
        let state = self.state.lock();
        assert!(state.faults.is_empty(), "{}", state.faults.join("\n"));
        assert!(state.fetches.len() <= state.asked, "{} fetches for {} requests", state.fetches.len(), state.asked);
        // Fetches that may no longer be joined do not count.
        for number in 0..KEYS.len() {
            for cache in 0..self.caches.len() {
                let is_shared = |fetch: &&Fetch| {
                    fetch.is_in_flight()
                        && (fetch.key, fetch.cache) == (number, cache)
                        && of(&fetch.acknowledged, number) == of(&state.acknowledged, number)
                };
                let count = state.fetches.iter().filter(is_shared).count();
                assert!(count <= 1, "{count} fetches of key {number} at once");
            }
        }
    }
}

async fn until(is_so: impl Fn() -> bool) {
    let wait = timeout(Duration::from_secs(60), async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    wait.await.expect("not in a minute");
}

async fn read(cache: Cache, index: usize, key: CacheKey, number: usize, policy: CachePolicy, state: Arc<Mutex<State>>) {
    let tags: Vec<_> = KEYS[number].iter().map(|index| tag(*index)).collect();
    let before = {
        let mut state = state.lock();
        state.asked += 1;
        state.acknowledged
    };
    let fetch = || fetch(Arc::clone(&state), index, number);
    let given = cache.get_or_fetch(key, &tags, policy, fetch).await;
    // No await since then: what is acknowledged now was acknowledged when the response was returned.
    let Ok((answer, hit)) = given else { return };
    let mut state = state.lock();
    let fetched: usize = std::str::from_utf8(answer.body()).unwrap().parse().unwrap();
    let fetch = &state.fetches[fetched];
    let mut faults = Vec::new();
    if fetch.key != number {
        faults.push(format!("the response of key {} was returned for key {number}", fetch.key));
    }
    // Readers from before an invalidation may get an earlier response.
    if KEYS[number].iter().any(|tag| fetch.versions[*tag] < before[*tag]) {
        faults.push(format!("{hit:?}: an outdated response of key {number} after its invalidation"));
    }
    let age = fetch.began.elapsed();
    let longest = match hit {
        Hit::Memory { .. } | Hit::Redis { .. } => TTL * 11 / 10,
        Hit::Stale { .. } => TTL * 11 / 10 + STALE,
        Hit::Coalesced | Hit::Fetched => Duration::MAX,
    };
    if age > longest {
        faults.push(format!("{hit:?}: the response is {age:?} old"));
    }
    state.faults.extend(faults);
}

async fn fetch(state: Arc<Mutex<State>>, cache: usize, key: usize) -> Result<CachedResponse, Failed> {
    let (sender, receiver) = oneshot::channel();
    let number = {
        let mut state = state.lock();
        let (versions, acknowledged) = (state.truth, state.acknowledged);
        let fetch = Fetch { key, cache, began: Instant::now(), versions, acknowledged, end: Some(sender) };
        state.fetches.push(fetch);
        state.fetches.len() - 1
    };
    if receiver.await.unwrap() { Ok(answer(&number.to_string())) } else { Err(Failed(0)) }
}

fn policies() -> impl Strategy<Value = CachePolicy> {
    let fresh = CachePolicy::fresh_for(TTL);
    prop_oneof![
        Just(fresh),
        Just(fresh.stale_while_revalidate(STALE)),
        Just(fresh.stale_if_error(STALE)),
        Just(fresh.stale_while_revalidate(STALE / 2).stale_if_error(STALE)),
        Just(CachePolicy::coalesce_only()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_memory_alone(steps in steps(false), policy in policies(), settles in any::<bool>()) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let read_after_write_grace = if settles { TTL / 4 } else { Duration::ZERO };
            let cache = Cache::new(CacheOptions::new("prod").read_after_write_grace(read_after_write_grace), clock());
            World::new(vec![cache], policy, None).run(steps).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_two_processes_over_redis(steps in steps(true), policy in policies()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let redis = RedisServer::start(&[]).await;
            let caches = vec![over(redis.store()), over(redis.store())];
            for cache in &caches {
                until(|| cache.is_connected()).await;
            }
            World::new(caches, policy, Some(redis)).run(steps).await;
        });
    }
}
