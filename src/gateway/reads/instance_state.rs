//! State shared by the requests to one instance: the cache, reads in flight and batched lookups.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::shareable::{API_VERSION, may_be_kept};
use crate::gateway::accounting::counters::DryRunCounts;
use crate::gateway::config::policy::{Mode, RoutePolicies};
use clerk_client::cache::{self, Cache, CacheKey, CachedResponse};
use clerk_client::clerk::{Clerk, Loader, LoaderOptions, MAX_IDS};
use clerk_client::limiter::Priority;
use clerk_client::outbound::{ExecuteOptions, Outbound};
use clerk_client::webhook::Tag;
use clerk_quota::Source;

/// Maximum number of kinds of lookups that are batched separately. Lookups of further kinds are not batched.
const MAX_LOADERS: usize = 16;

/// Memory of the dry-run cache. Its entries have no bodies.
const SHADOW_BYTES: u64 = 4 << 20;

/// Lookups that may share a batch: same API version, same accepted type, same priority.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::gateway) struct LookUpKind {
    version: Option<HeaderValue>,
    accept: Option<HeaderValue>,
    priority: Priority,
}

impl LookUpKind {
    /// Returns the kind of a request as it is sent upstream.
    pub(in crate::gateway) fn of(headers: &HeaderMap, priority: Priority) -> Self {
        let (version, accept) = (headers.get(&API_VERSION).cloned(), headers.get(ACCEPT).cloned());
        Self { version, accept, priority }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(API_VERSION.clone(), &self.version), (ACCEPT, &self.accept)] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        headers
    }
}

/// A batch that would still accept lookups if batching were on.
#[derive(Debug)]
struct ShadowBatch {
    opened: Instant,
    keys: HashSet<CacheKey>,
    look_ups: u32,
}

/// The state of one instance.
#[derive(Debug)]
pub(in crate::gateway) struct InstanceState {
    pub(in crate::gateway) cache: Cache,
    /// Separate from the real cache, so that a cache policy in shadow mode never serves a response.
    shadow: Cache,
    loaders: Mutex<HashMap<LookUpKind, Loader>>,
    window: Duration,
    /// Reads in flight, for the dry run of coalescing.
    under_way: Arc<Mutex<ReadsInFlight>>,
    look_ups: Mutex<HashMap<LookUpKind, ShadowBatch>>,
}

impl InstanceState {
    pub(in crate::gateway) fn new(cache: Cache, name: &Arc<str>, clock: &Arc<clerk_quota::clock::Clock>) -> Self {
        let options = cache::CacheOptions::new(Arc::clone(name)).memory_bytes(SHADOW_BYTES);
        Self {
            cache,
            shadow: Cache::new(options, Arc::clone(clock)),
            loaders: Mutex::default(),
            window: LoaderOptions::default().window,
            under_way: Arc::default(),
            look_ups: Mutex::default(),
        }
    }

    /// Both caches; invalidations apply to both.
    pub(in crate::gateway) fn caches(&self) -> [&Cache; 2] {
        [&self.cache, &self.shadow]
    }

    /// Returns the loader of a kind of lookups, or `None` if there are too many kinds.
    pub(in crate::gateway) fn loader(
        &self,
        outbound: &Arc<Outbound>,
        kind: LookUpKind,
        options: impl FnOnce() -> ExecuteOptions,
    ) -> Option<Loader> {
        let mut loaders = self.loaders.lock();
        if let Some(loader) = loaders.get(&kind) {
            return Some(loader.clone());
        }
        if loaders.len() >= MAX_LOADERS {
            return None;
        }
        let headers = kind.headers();
        // All lookups use one route, and therefore the same policies until a reload replaces this state.
        let options = options();
        let clerk = Clerk::with_transport(Arc::clone(outbound)).with_source(Source::Gateway);
        let loader = clerk.with_execute_options(options).with_headers(headers).users().loader(LoaderOptions::default());
        loaders.insert(kind, loader.clone());
        Some(loader)
    }

    /// Runs the policies that are in shadow mode for a read.
    pub(in crate::gateway) async fn dry_run(
        &self,
        key: &CacheKey,
        tags: &[Tag],
        policies: &RoutePolicies,
        priority: Priority,
        shadow: &mut DryRunCounts,
    ) -> DryRun {
        let mut ahead = DryRun { cache: None, under_way: None };
        if policies.cache == Mode::Shadow {
            let look = self.shadow.dry_run(*key, tags, cache::CachePolicy::fresh_for(policies.ttl)).await;
            shadow.cache_hit = look.hit().is_some();
            ahead.cache = Some(look);
        }
        // Coalescing would not see a read that the cache would answer.
        if policies.coalesce == Mode::Shadow && !shadow.cache_hit {
            let under_way = InFlight::begin(&self.under_way, (*key, priority));
            shadow.coalesced = under_way.is_shared;
            ahead.under_way = Some(under_way);
        }
        ahead
    }

    /// Adds a lookup to the batch it would share if batching were on. Returns how many lookups are now known to be
    /// batched: 0 for a batch's first, 2 for its second (both), 1 for each further one.
    pub(in crate::gateway) fn dry_run_batch(&self, key: &CacheKey, headers: &HeaderMap, priority: Priority) -> u32 {
        let now = Instant::now();
        let kind = LookUpKind::of(headers, priority);
        let mut look_ups = self.look_ups.lock();
        if let Some(batch) = look_ups.get_mut(&kind)
            && now - batch.opened < self.window
            && batch.keys.len() < MAX_IDS
        {
            batch.keys.insert(*key);
            batch.look_ups += 1;
            return if batch.look_ups == 2 { 2 } else { 1 };
        }
        if look_ups.len() < MAX_LOADERS || look_ups.contains_key(&kind) {
            look_ups.insert(kind, ShadowBatch { opened: now, keys: HashSet::from([*key]), look_ups: 1 });
        }
        0
    }
}

/// Dry-run work that is left until the response is known.
pub(in crate::gateway) struct DryRun {
    cache: Option<cache::DryRun>,
    under_way: Option<InFlight>,
}

impl DryRun {
    /// The response arrived.
    pub(in crate::gateway) async fn keep(self, status: StatusCode, headers: &HeaderMap, wall: SystemTime) {
        drop(self.under_way);
        if let Some(cache) = self.cache.filter(|_| may_be_kept(headers)) {
            cache.keep(&CachedResponse::new(status, HeaderMap::new(), Bytes::new(), wall)).await;
        }
    }
}

/// Number of reads in flight per key and priority.
type ReadsInFlight = FxHashMap<(CacheKey, Priority), usize>;

/// A read in flight.
struct InFlight {
    all: Arc<Mutex<ReadsInFlight>>,
    key: (CacheKey, Priority),
    is_shared: bool,
}

impl InFlight {
    fn begin(all: &Arc<Mutex<ReadsInFlight>>, key: (CacheKey, Priority)) -> Self {
        let mut reads = all.lock();
        let is_shared = key.1.may_join().iter().any(|of| reads.contains_key(&(key.0, *of)));
        *reads.entry(key).or_default() += 1;
        drop(reads);
        Self { all: Arc::clone(all), key, is_shared }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut reads = self.all.lock();
        if let Some(count) = reads.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                reads.remove(&self.key);
            }
        }
    }
}
