//! The way of a request through memory, Redis and a shared fetch, and that of an invalidation.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::entry::Record;
use super::generations::{Generations, Snapshot};
use super::memory_tier::{Memory, MemoryTier, Times};
use super::pending_invalidations::PendingInvalidations;
use super::redis_tier::{RedisHit, RedisTier, TagGenerations};
use super::single_flight::{FetchResult, SingleFlight, Waiter};
use super::stats::CacheCounters;
use super::{CacheKey, CacheKeyParts, CacheOptions, CachePolicy, CacheStats, CachedResponse, Hit};
use crate::webhook::Tag;
use clerk_quota::Moment;
use clerk_quota::clock::Clock;

/// How long after a write of which the end is not known could have been carried out answers are kept shortly.
const AFTER_DOUBT: Duration = Duration::from_secs(60);

/// The answers of one instance. Clones share them.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use bytes::Bytes;
/// use clerk_client::cache::{CacheKeyParts, Cache, Hit, CacheOptions, CachePolicy, CachedResponse};
/// use clerk_quota::clock::Clock;
/// use clerk_client::webhook::{Invalidate, tags_of_route};
/// use http::{HeaderMap, StatusCode};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let clock = Arc::new(Clock::new());
/// let cache = Cache::new(CacheOptions::new("prod"), Arc::clone(&clock));
/// let key = cache.key(&CacheKeyParts { method: "GET", path: "/v1/users/user_1", ..CacheKeyParts::default() });
/// let tags = tags_of_route("/v1/users/{user_id}", &["user_1"]);
/// let policy = CachePolicy::fresh_for(Duration::from_secs(60));
/// // Stands for a request to Clerk.
/// let fetch = || {
///     let now = clock.wall();
///     async move { Ok::<_, std::io::Error>(CachedResponse::new(StatusCode::OK, HeaderMap::new(), Bytes::from("{}"), now)) }
/// };
/// assert_eq!(cache.get_or_fetch(key, &tags, policy, fetch).await?.1, Hit::Fetched);
/// assert!(matches!(cache.get_or_fetch(key, &tags, policy, fetch).await?.1, Hit::Memory { .. }));
/// // An event says that the user has changed.
/// cache.invalidate(&tags[1..]).await?;
/// assert_eq!(cache.get_or_fetch(key, &tags, policy, fetch).await?.1, Hit::Fetched);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cache(pub(super) Arc<Inner>);

pub(super) struct Inner {
    instance: Arc<str>,
    max_entry_bytes: u64,
    disconnected_ttl: Duration,
    read_after_write_grace: Duration,
    pub(super) clock: Arc<Clock>,
    pub(super) generations: Generations,
    pub(super) memory: Memory,
    pub(super) redis_tier: Option<RedisTier>,
    /// What `shared` could not be told.
    pub(super) pending_invalidations: PendingInvalidations,
    pub(super) flights: SingleFlight,
    pub(super) counters: CacheCounters,
    /// Whether messages of other processes are heard. True if there are no others.
    pub(super) is_connected: AtomicBool,
    #[cfg(feature = "redis")]
    pub(super) is_listening: AtomicBool,
    /// Hearing messages, and fetching anew what was given stale. Ends with the cache.
    pub(super) tasks: Mutex<JoinSet<()>>,
}

impl Cache {
    /// An empty cache, over a Redis if the options have one. It hears other processes from its first use on.
    #[must_use]
    pub fn new(options: CacheOptions, clock: Arc<Clock>) -> Self {
        #[cfg(feature = "redis")]
        let shared = options.redis.map(|store| RedisTier::new(store, options.encryption, &options.instance));
        #[cfg(not(feature = "redis"))]
        let shared: Option<RedisTier> = None;
        let CacheOptions {
            instance,
            memory_bytes: memory,
            max_entry_bytes,
            disconnected_ttl,
            read_after_write_grace,
            ..
        } = options;
        let is_heard = AtomicBool::new(shared.is_none());
        let cache = Self(Arc::new(Inner {
            redis_tier: shared,
            instance,
            max_entry_bytes,
            disconnected_ttl,
            read_after_write_grace,
            clock,
            generations: Generations::new(),
            memory: Memory::new(memory),
            pending_invalidations: PendingInvalidations::default(),
            flights: SingleFlight::default(),
            counters: CacheCounters::default(),
            is_connected: is_heard,
            #[cfg(feature = "redis")]
            is_listening: AtomicBool::new(false),
            tasks: Mutex::default(),
        }));
        cache.subscribe();
        cache
    }

    /// The key of a request to this instance.
    #[must_use]
    pub fn key(&self, asked: &CacheKeyParts<'_>) -> CacheKey {
        CacheKey::new(&self.0.instance, asked)
    }

    /// The answer to a request: one that is kept and good, else that of `fetch`, which all who ask for the same key at
    /// the same time share, as far as their [`Priority`](crate::limiter::Priority) allows.
    ///
    /// `tags` are what the answer shows, as of [`tags_of_route`](crate::webhook::tags_of_route); they have to be the same
    /// each time for a key. `fetch` makes a request to Clerk, and is called once at most. A future that it made may be
    /// dropped without having been polled.
    ///
    /// Dropping the future cancels the fetch, unless others wait for it.
    ///
    /// # Errors
    ///
    /// That of the fetch, which others may have got too. No error of Redis is one.
    pub async fn get_or_fetch<E, F, Fut>(
        &self,
        key: CacheKey,
        tags: &[Tag],
        policy: CachePolicy,
        fetch: F,
    ) -> Result<(CachedResponse, Hit), Arc<E>>
    where
        E: Send + Sync + 'static,
        F: Fn() -> Fut,
        Fut: Future<Output = Result<CachedResponse, E>> + Send + 'static,
    {
        self.subscribe();
        let inner = &self.0;
        if policy.keeps() {
            // Without messages of other processes, memory is for when Redis cannot be asked.
            let found = if self.is_connected() { inner.in_memory(&key) } else { None };
            if let Some((answer, hit)) = found {
                if matches!(hit, Hit::Stale { .. }) {
                    self.refresh(key, tags, policy, &fetch);
                }
                return Ok((answer, hit));
            }
            inner.counters.memory.misses.add();
        }
        let waiter = self.join(key, tags, policy, &fetch);
        let is_first = waiter.is_first;
        let (result, is_outdated) = waiter.wait(&inner.generations).await;
        if is_outdated && policy.keeps() {
            inner.counters.detached.add();
        }
        match result {
            Ok((answer, hit)) => {
                let stale = if is_failure(&answer) { inner.stale_if_error(&key) } else { None };
                if let Some(stale) = stale {
                    return Ok(stale);
                }
                if !is_first {
                    inner.counters.coalesced.add();
                }
                return Ok((answer, if is_first { hit } else { Hit::Coalesced }));
            }
            Err(error) => {
                if let Some(stale) = inner.stale_if_error(&key) {
                    return Ok(stale);
                }
                // Otherwise of somebody who fetches the same with errors of another type.
                if let Ok(error) = error.downcast::<E>() {
                    return Err(error);
                }
            }
        }
        let answer = fetch().await.map_err(Arc::new)?;
        inner.counters.fetched.add();
        Ok((answer, Hit::Fetched))
    }

    /// How old the answer is that memory would give now. Changes and counts nothing.
    #[must_use]
    pub fn peek(&self, key: &CacheKey) -> Option<Duration> {
        let now = self.0.clock.now();
        let entry = self.0.memory.get(key, &self.0.generations, now)?;
        (now < entry.times.fresh_until).then(|| entry.answer.age(self.0.clock.wall()))
    }

    /// Whether answers are kept in a Redis, too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.redis_tier.is_some()
    }

    /// How the Redis is doing, if there is one.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn redis_stats(&self) -> Option<crate::redis::RedisStats> {
        self.0.redis_tier.as_ref().map(RedisTier::stats)
    }

    /// What became of look-ups so far, and the size of the cache.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let (entries, bytes) = self.0.memory.size();
        CacheStats { in_flight: self.0.flights.count(), entries, bytes, ..self.0.counters.stats() }
    }

    /// Whether what other processes invalidate is heard, or there are none.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.is_connected.load(Ordering::SeqCst)
    }

    fn join<E, Fut>(&self, key: CacheKey, tags: &[Tag], policy: CachePolicy, fetch: &dyn Fn() -> Fut) -> Waiter
    where
        E: Send + Sync + 'static,
        Fut: Future<Output = Result<CachedResponse, E>> + Send + 'static,
    {
        let inner = &self.0;
        let snapshot = || inner.generations.snapshot(tags);
        inner.flights.join((key, policy.priority), &inner.generations, snapshot, |snapshot| {
            let fetch = fetch().map(|result| result.map_err(|error| Arc::new(error) as Arc<dyn Any + Send + Sync>));
            // Only Redis is asked by them.
            let tags = if inner.redis_tier.is_some() { tags.into() } else { Box::default() };
            Arc::clone(inner).fetch_and_keep(key, tags, policy, snapshot, fetch).boxed()
        })
    }

    /// Fetches anew in the background, once at a time.
    fn refresh<E, Fut>(&self, key: CacheKey, tags: &[Tag], policy: CachePolicy, fetch: &dyn Fn() -> Fut)
    where
        E: Send + Sync + 'static,
        Fut: Future<Output = Result<CachedResponse, E>> + Send + 'static,
    {
        if self.0.flights.in_flight((key, policy.priority), &self.0.generations).is_some() {
            return;
        }
        let waiter = self.join(key, tags, policy, fetch);
        let inner = Arc::clone(&self.0);
        self.0.in_background(async move {
            // Whatever comes of it, somebody will ask again.
            let _ = waiter.wait(&inner.generations).await;
        });
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("instance", &self.0.instance).finish_non_exhaustive()
    }
}

impl Inner {
    /// Does something that nobody waits for, until the cache ends.
    pub(super) fn in_background(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Without a runtime the program is at its end.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &runtime);
    }

    /// An answer that may be given without a fetch, or while one is under way.
    fn in_memory(&self, key: &CacheKey) -> Option<(CachedResponse, Hit)> {
        let now = self.clock.now();
        let entry = self.memory.get(key, &self.generations, now)?;
        let age = || entry.answer.age(self.clock.wall());
        if now < entry.times.fresh_until {
            self.counters.memory.hits.add();
            return Some((entry.answer.clone(), Hit::Memory { age: age() }));
        }
        (now < entry.times.stale_until).then(|| {
            self.counters.stale.add();
            (entry.answer.clone(), Hit::Stale { age: age() })
        })
    }

    /// An answer that came into memory since it was looked for. Counted then.
    fn fresh_in_memory(&self, key: &CacheKey) -> Option<(CachedResponse, Hit)> {
        let now = self.clock.now();
        let entry = self.memory.get(key, &self.generations, now)?;
        let hit = || Hit::Memory { age: entry.answer.age(self.clock.wall()) };
        (now < entry.times.fresh_until).then(|| (entry.answer.clone(), hit()))
    }

    fn stale_if_error(&self, key: &CacheKey) -> Option<(CachedResponse, Hit)> {
        let now = self.clock.now();
        let entry = self.memory.get(key, &self.generations, now)?;
        (now < entry.times.stale_if_error_until).then(|| {
            self.counters.stale.add();
            (entry.answer.clone(), Hit::Stale { age: entry.answer.age(self.clock.wall()) })
        })
    }

    /// What a flight does: the rest of the way, once for all who wait.
    async fn fetch_and_keep(
        self: Arc<Self>,
        key: CacheKey,
        tags: Box<[Tag]>,
        policy: CachePolicy,
        snapshot: Arc<Snapshot>,
        fetch: impl Future<Output = Result<CachedResponse, Arc<dyn Any + Send + Sync>>> + Send,
    ) -> FetchResult {
        let mut seen = None;
        if policy.keeps() {
            // A flight may have landed since this one's caller looked.
            if self.is_connected.load(Ordering::SeqCst)
                && let Some(result) = self.fresh_in_memory(&key)
            {
                return Ok(result);
            }
            let (found, place) = self.look_in_redis(key, &tags, policy, &snapshot).await;
            if let Some(found) = found {
                return Ok(found);
            }
            seen = place;
        }
        let begun = self.clock.now();
        let answer = fetch.await?;
        self.counters.fetched.add();
        self.keep(key, policy, begun, &snapshot, seen.as_ref(), &answer).await;
        Ok((answer, Hit::Fetched))
    }

    /// Looks in Redis, and takes what is there into memory. What is not fresh is no hit, but is there when fetching
    /// fails. Where Redis cannot be reached, memory may answer although nothing is heard of other processes, and where it
    /// answers, memory knows nothing better.
    async fn look_in_redis(
        &self,
        key: CacheKey,
        tags: &[Tag],
        policy: CachePolicy,
        snapshot: &Snapshot,
    ) -> (Option<(CachedResponse, Hit)>, Option<TagGenerations>) {
        let is_connected = self.is_connected.load(Ordering::SeqCst);
        let (found, seen) = match self.look(key, tags, policy).await {
            RedisLookup::Answered(found, seen) => (found, seen),
            RedisLookup::Unreachable if !is_connected => return (self.fresh_in_memory(&key), None),
            RedisLookup::Unreachable => return (None, None),
            RedisLookup::NotAsked => {
                if !is_connected {
                    self.memory.remove(&key);
                }
                return (None, None);
            }
        };
        let Some((answer, times)) = found else {
            self.counters.redis.misses.add();
            if !is_connected {
                self.memory.remove(&key);
            }
            return (None, Some(seen));
        };
        self.remember(key, &answer, times, snapshot);
        if self.clock.now() < times.fresh_until {
            self.counters.redis.hits.add();
            let age = answer.age(self.clock.wall());
            return (Some((answer, Hit::Redis { age })), Some(seen));
        }
        self.counters.redis.misses.add();
        (None, Some(seen))
    }

    /// What Redis has, and until when it is good.
    pub(super) async fn look(&self, key: CacheKey, tags: &[Tag], policy: CachePolicy) -> RedisLookup {
        let Some(shared) = self.redis_tier.as_ref().filter(|_| !self.pending_invalidations.contains(tags)) else {
            return RedisLookup::NotAsked;
        };
        // From before the question: its time to live was measured later.
        let now = self.clock.now();
        // In a box, since most caches have no Redis and need no room for it.
        let (found, seen) = match Box::pin(shared.look(key, tags, policy.lifetime())).await {
            Ok(looked) => looked,
            Err(error) => {
                self.counters.redis.errors.add();
                return if shared.is_away(&error) { RedisLookup::Unreachable } else { RedisLookup::NotAsked };
            }
        };
        let found = found.and_then(|RedisHit { record, left }| {
            let Record { answer, stale_while_revalidate, stale_if_error } = record;
            let (ttl, ..) = policy.of(answer.status())?;
            // What is left belongs to staleness at its end. And our policy may be shorter than that of the writer.
            let fresh_until = now.after(left).before(stale_while_revalidate.max(stale_if_error));
            let fresh_until = fresh_until.min(now.after(ttl));
            let times = Times::new(
                fresh_until,
                stale_while_revalidate.min(policy.stale_while_revalidate),
                stale_if_error.min(policy.stale_if_error),
            );
            Some((answer, times))
        });
        RedisLookup::Answered(found, seen)
    }

    /// Keeps an answer whose fetch began at `begun`, if it may be kept and nothing has come in between.
    pub(super) async fn keep(
        &self,
        key: CacheKey,
        policy: CachePolicy,
        begun: Moment,
        snapshot: &Snapshot,
        seen: Option<&TagGenerations>,
        answer: &CachedResponse,
    ) {
        let times = policy.of(answer.status()).filter(|_| answer.may_be_kept());
        let Some((ttl, stale, stale_if_error)) = times else { return };
        if answer.weight() > self.max_entry_bytes {
            self.counters.dropped.add();
            return;
        }
        if !self.generations.is_valid(snapshot) {
            self.counters.outdated.add();
            return;
        }
        if self.generations.is_doubtful(snapshot, begun, Duration::ZERO) {
            self.counters.outdated.add();
            return;
        }
        let ttl = (ttl / 1000).saturating_mul(fastrand::u32(900..=1100));
        let mut times = Times::new(begun.after(ttl), stale, stale_if_error);
        if self.generations.is_recent(snapshot, begun, self.read_after_write_grace)
            || self.generations.is_doubtful(snapshot, begun, AFTER_DOUBT)
        {
            times = times.capped(begun.after(self.read_after_write_grace));
        }
        self.remember(key, answer, times, snapshot);
        let left = times.end().since(self.clock.now());
        let (Some(shared), Some(seen)) = (&self.redis_tier, seen) else { return };
        if left.is_zero() {
            return;
        }
        let record = Record {
            answer: answer.clone(),
            stale_while_revalidate: times.stale_until.since(times.fresh_until),
            stale_if_error: times.stale_if_error_until.since(times.fresh_until),
        };
        match Box::pin(shared.keep(seen, &record, left)).await {
            Ok(true) => self.counters.redis.stored.add(),
            Ok(false) => self.counters.outdated.add(),
            Err(_) => self.counters.redis.errors.add(),
        }
    }

    fn remember(&self, key: CacheKey, answer: &CachedResponse, times: Times, snapshot: &Snapshot) {
        if !self.memory.has_room_for(answer.weight()) {
            self.counters.dropped.add();
            return;
        }
        let is_heard = self.is_connected.load(Ordering::SeqCst);
        let now = self.clock.now();
        let times = if is_heard { times } else { times.capped(now.after(self.disconnected_ttl)) };
        if now < times.end() && self.generations.is_current(snapshot) {
            self.memory.insert(key, MemoryTier::new(answer, times, snapshot.clone()));
            self.counters.memory.stored.add();
        }
    }
}

/// What came of a look into Redis.
pub(super) enum RedisLookup {
    /// It answered: what it has, and what was seen for keeping something later.
    Answered(Option<(CachedResponse, Times)>, TagGenerations),
    /// It could not be reached.
    Unreachable,
    /// There is none, or it refuses, or it may hold what should be gone.
    NotAsked,
}

/// An answer that is no better than a stale one (RFC 5861, section 4, and 429).
fn is_failure(answer: &CachedResponse) -> bool {
    answer.status().is_server_error() || answer.status().as_u16() == 429
}
