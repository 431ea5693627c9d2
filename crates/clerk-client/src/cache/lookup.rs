//! The cache itself: lookups through memory, Redis and a shared fetch.

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
use super::key::{MacKey, random_mac};
use super::memory_tier::{Memory, Times};
use super::pending_invalidations::PendingInvalidations;
use super::redis_tier::{RedisHit, RedisTier, TagGenerations};
use super::single_flight::{FetchResult, SingleFlight, Waiter};
use super::stats::CacheCounters;
use super::{CacheContent, CacheKey, CacheKeyParts, CacheOptions, CachePolicy, CacheStats, CachedResponse, Hit};
use crate::webhook::Tag;
use clerk_quota::clock::Clock;

/// A response cache for one Clerk instance. Clones share it.
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
    pub(super) content: CacheContent,
    instance: Arc<str>,
    /// Whether entries are stored in Redis, which is used for invalidations in any case.
    stores_in_redis: bool,
    /// The key of [`Cache::secret_key`], unless processes share one.
    mac: MacKey,
    pub(super) max_entry_bytes: u64,
    pub(super) disconnected_ttl: Duration,
    pub(super) read_after_write_grace: Duration,
    pub(super) clock: Arc<Clock>,
    pub(super) generations: Generations,
    pub(super) memory: Memory,
    pub(super) redis_tier: Option<RedisTier>,
    /// Invalidations that Redis has not accepted yet.
    pub(super) pending_invalidations: PendingInvalidations,
    pub(super) flights: SingleFlight,
    pub(super) counters: CacheCounters,
    /// Whether the subscription to other processes works. Always true without Redis.
    pub(super) is_connected: AtomicBool,
    #[cfg(feature = "redis")]
    pub(super) is_listening: AtomicBool,
    /// The subscription and background refreshes. They end with the cache.
    pub(super) tasks: Mutex<JoinSet<()>>,
}

impl Cache {
    /// Creates an empty cache, over Redis if configured. It subscribes on first use within a runtime.
    #[must_use]
    pub fn new(options: CacheOptions, clock: Arc<Clock>) -> Self {
        #[cfg(feature = "redis")]
        let stores_in_redis = options.content != CacheContent::Verifications || options.encryption.is_some();
        #[cfg(not(feature = "redis"))]
        let stores_in_redis = false;
        #[cfg(feature = "redis")]
        let shared = options.redis.map(|store| RedisTier::new(store, options.encryption, &options.instance));
        #[cfg(not(feature = "redis"))]
        let shared: Option<RedisTier> = None;
        let CacheOptions {
            content,
            instance,
            memory_bytes: memory,
            max_entry_bytes,
            disconnected_ttl,
            read_after_write_grace,
            ..
        } = options;
        let is_connected = AtomicBool::new(shared.is_none());
        let cache = Self(Arc::new(Inner {
            redis_tier: shared,
            content,
            stores_in_redis,
            instance,
            mac: random_mac(),
            max_entry_bytes,
            disconnected_ttl,
            read_after_write_grace,
            clock,
            generations: Generations::new(),
            memory: Memory::new(memory),
            pending_invalidations: PendingInvalidations::default(),
            flights: SingleFlight::default(),
            counters: CacheCounters::default(),
            is_connected,
            #[cfg(feature = "redis")]
            is_listening: AtomicBool::new(false),
            tasks: Mutex::default(),
        }));
        cache.subscribe();
        cache
    }

    /// Returns the key of a request to this instance.
    #[must_use]
    pub fn key(&self, parts: &CacheKeyParts<'_>) -> CacheKey {
        CacheKey::new(&self.0.instance, parts)
    }

    /// Returns the key of a request that contains a secret: a keyed hash, from which the secret cannot be found
    /// by trying.
    ///
    /// The hash's key is the encryption key, if entries in Redis are encrypted, and else one of this process.
    #[must_use]
    pub fn secret_key(&self, parts: &[Option<&[u8]>]) -> CacheKey {
        CacheKey::keyed(&self.0.shared_mac().unwrap_or_else(|| self.0.mac.clone()), &self.0.instance, parts)
    }

    /// Returns a cached response, or that of `fetch`, which concurrent requests for the same key share.
    ///
    /// Which fetches a request may join depends on its [`Sender`](crate::limiter::Sender). `tags` are those of the
    /// response, see [`tags_of_route`](crate::webhook::tags_of_route); they must always be the same for a key. `fetch`
    /// makes a request to Clerk. Its futures may be dropped without being polled.
    ///
    /// Dropping the returned future cancels the fetch unless other requests wait for it.
    ///
    /// # Errors
    ///
    /// Returns the error of the fetch, which other requests may have received too. Redis errors are not returned.
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
            // While disconnected, memory is used only if Redis is unreachable.
            let found = if self.is_connected() { inner.in_memory(&key, policy) } else { None };
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
                // Another error type: a caller with a different `E` fetches the same key.
                if let Ok(error) = error.downcast::<E>() {
                    return Err(error);
                }
            }
        }
        let answer = fetch().await.map_err(Arc::new)?;
        inner.counters.fetched.add();
        Ok((answer, Hit::Fetched))
    }

    /// Returns the age of the response that memory would serve now. Changes no counter.
    #[must_use]
    pub fn peek(&self, key: &CacheKey) -> Option<Duration> {
        let now = self.0.clock.now();
        let entry = self.0.memory.get(key, &self.0.generations, now)?;
        (now < entry.times.fresh_until).then(|| entry.answer.age(self.0.clock.wall()))
    }

    /// Whether the cache uses Redis.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.redis_tier.is_some()
    }

    /// Returns the state of the Redis client, if there is one.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn redis_stats(&self) -> Option<crate::redis::RedisStats> {
        self.0.redis_tier.as_ref().map(RedisTier::stats)
    }

    /// Returns the counters and the size of the cache.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let (entries, bytes) = self.0.memory.size();
        CacheStats { in_flight: self.0.flights.count(), entries, bytes, ..self.0.counters.stats() }
    }

    /// Whether the subscription to other processes works; true without Redis.
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
        inner.flights.join((key, policy.sender), &inner.generations, snapshot, |snapshot| {
            let fetch = fetch().map(|result| result.map_err(|error| Arc::new(error) as Arc<dyn Any + Send + Sync>));
            // Only Redis needs the tags.
            let tags = if inner.redis_tier.is_some() { tags.into() } else { Box::default() };
            Arc::clone(inner).fetch_and_keep(key, tags, policy, snapshot, fetch).boxed()
        })
    }

    /// Refreshes in the background, once at a time.
    fn refresh<E, Fut>(&self, key: CacheKey, tags: &[Tag], policy: CachePolicy, fetch: &dyn Fn() -> Fut)
    where
        E: Send + Sync + 'static,
        Fut: Future<Output = Result<CachedResponse, E>> + Send + 'static,
    {
        if self.0.flights.in_flight((key, policy.sender), &self.0.generations).is_some() {
            return;
        }
        let waiter = self.join(key, tags, policy, fetch);
        let inner = Arc::clone(&self.0);
        self.0.in_background(async move {
            // The result is not needed: the next lookup finds it.
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
    /// Spawns a task that ends with the cache.
    pub(super) fn in_background(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Without a runtime the program is shutting down.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &runtime);
    }

    /// A fresh response, or a stale one that may be served during a refresh.
    fn in_memory(&self, key: &CacheKey, policy: CachePolicy) -> Option<(CachedResponse, Hit)> {
        let now = self.clock.now();
        let entry = self.memory.get(key, &self.generations, now)?;
        let age = || entry.answer.age(self.clock.wall());
        // The policy may have become stricter since.
        if self.content == CacheContent::Verifications && age() >= policy.ttl {
            return None;
        }
        if now < entry.times.fresh_until {
            self.counters.memory.hits.add();
            return Some((entry.answer.clone(), Hit::Memory { age: age() }));
        }
        (now < entry.times.stale_until).then(|| {
            self.counters.stale.add();
            (entry.answer.clone(), Hit::Stale { age: age() })
        })
    }

    /// A response stored since the first lookup, which was already counted.
    fn fresh_in_memory(&self, key: &CacheKey) -> Option<(CachedResponse, Hit)> {
        let now = self.clock.now();
        let entry = self.memory.get(key, &self.generations, now)?;
        let hit = || Hit::Memory { age: entry.answer.age(self.clock.wall()) };
        (now < entry.times.fresh_until).then(|| (entry.answer.clone(), hit()))
    }

    /// The key that processes share for keyed hashes.
    fn shared_mac(&self) -> Option<MacKey> {
        self.redis_tier.as_ref()?.mac()
    }

    fn stale_if_error(&self, key: &CacheKey) -> Option<(CachedResponse, Hit)> {
        let now = self.clock.now();
        let entry = self.memory.get(key, &self.generations, now)?;
        (now < entry.times.stale_if_error_until).then(|| {
            self.counters.stale.add();
            (entry.answer.clone(), Hit::Stale { age: entry.answer.age(self.clock.wall()) })
        })
    }

    /// The body of a flight: Redis, then the fetch.
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
            // Another flight may have ended since the caller's lookup.
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

    /// Looks in Redis and copies the entry to memory. A stale entry is a miss, but remains in memory for
    /// `stale_if_error`. While disconnected, memory is used only if Redis is unreachable; otherwise its entry is
    /// removed.
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
        let own = found.as_ref().and_then(|(answer, _)| self.narrowed(answer, snapshot));
        let found = found.and_then(|(answer, times)| Some((self.capped(&answer, times, policy)?, answer)));
        let Some(((times, answer), own)) = found.zip(own) else {
            self.counters.redis.misses.add();
            if !is_connected {
                self.memory.remove(&key);
            }
            return (None, Some(seen));
        };
        self.remember(key, &answer, times, &own);
        if self.clock.now() < times.fresh_until {
            self.counters.redis.hits.add();
            let age = answer.age(self.clock.wall());
            return (Some((answer, Hit::Redis { age })), Some(seen));
        }
        self.counters.redis.misses.add();
        (None, Some(seen))
    }

    /// Returns the entry in Redis and its expiry times.
    pub(super) async fn look(&self, key: CacheKey, tags: &[Tag], policy: CachePolicy) -> RedisLookup {
        let is_usable = self.stores_in_redis && !self.pending_invalidations.contains(tags);
        let Some(shared) = self.redis_tier.as_ref().filter(|_| is_usable) else {
            return RedisLookup::NotAsked;
        };
        // Taken before the request: Redis measures the TTL later, so the expiry errs on the early side.
        let now = self.clock.now();
        // Boxed to keep the future small: most caches have no Redis.
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
            // The remaining TTL includes the stale period. The local policy may also be shorter than the writer's.
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
}

/// Result of a lookup in Redis.
pub(super) enum RedisLookup {
    /// Redis responded: the entry, if any, and the generations needed to store one later.
    Answered(Option<(CachedResponse, Times)>, TagGenerations),
    /// Redis is unreachable.
    Unreachable,
    /// There is no Redis, it refuses commands, or its entry may be outdated.
    NotAsked,
}

/// Whether a stale response is preferred to this one (RFC 5861, section 4, and 429).
fn is_failure(answer: &CachedResponse) -> bool {
    answer.status().is_server_error() || answer.status().as_u16() == 429
}
