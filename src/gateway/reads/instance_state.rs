//! State shared by the requests to one instance: the cache, reads in flight and batched lookups.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::shadow_batches::ShadowBatches;
use super::shareable::{API_VERSION, may_be_kept};
use crate::gateway::accounting::counters::DryRunCounts;
use crate::gateway::config::policy::{Mode, RoutePolicies};
use crate::gateway::request::turn::Turn;
use clerk_client::cache::{self, Cache, CacheKey, CachedResponse};
use clerk_client::clerk::{Clerk, Loader, LoaderOptions};
use clerk_client::limiter::Sender;
use clerk_client::outbound::{ExecuteOptions, Outbound, QueueOptions};
use clerk_client::webhook::Tag;
use clerk_quota::Source;
use clerk_quota::clock::Clock;

/// Maximum number of kinds of lookups that are batched separately. Lookups of further kinds are not batched.
const MAX_LOADERS: usize = 64;

/// Memory of the dry-run cache. Its entries have no bodies.
const SHADOW_BYTES: u64 = 4 << 20;

/// Lookups that may share a batch: same API version, same accepted type, same sender, and the same wait for the limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::gateway) struct LookUpKind {
    version: Option<HeaderValue>,
    accept: Option<HeaderValue>,
    sender: Sender,
    /// `None` if it does not wait.
    queue: Option<QueueOptions>,
}

impl LookUpKind {
    /// Returns the kind of a request as it is sent upstream.
    pub(in crate::gateway) fn of(headers: &HeaderMap, turn: Turn, policies: RoutePolicies) -> Self {
        let (version, accept) = (headers.get(&API_VERSION).cloned(), headers.get(ACCEPT).cloned());
        Self { version, accept, sender: turn.sender, queue: policies.pace.is_on().then(|| turn.queue()) }
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

/// The state of one instance.
#[derive(Debug)]
pub(in crate::gateway) struct InstanceState {
    pub(in crate::gateway) cache: Cache,
    /// Verifications of tokens, if a policy keeps them or kept them before.
    pub(in crate::gateway) verifications: Option<Cache>,
    /// Those of all instances, if this one's requests may be for any: a revocation must end them.
    pub(in crate::gateway) verifications_of_others: Vec<Cache>,
    /// Separate from the real cache, so that a cache policy in shadow mode never serves a response.
    shadow: Cache,
    loaders: Mutex<HashMap<LookUpKind, Loader>>,
    clock: Arc<Clock>,
    /// Reads in flight, for the dry run of coalescing.
    under_way: Arc<Mutex<ReadsInFlight>>,
    look_ups: Mutex<ShadowBatches<LookUpKind, CacheKey>>,
}

impl InstanceState {
    pub(in crate::gateway) fn new(
        cache: Cache,
        verifications: Option<Cache>,
        name: &Arc<str>,
        clock: &Arc<Clock>,
    ) -> Self {
        let options = cache::CacheOptions::new(Arc::clone(name)).memory_bytes(SHADOW_BYTES);
        Self {
            cache,
            verifications,
            verifications_of_others: Vec::new(),
            shadow: Cache::new(options, Arc::clone(clock)),
            loaders: Mutex::default(),
            clock: Arc::clone(clock),
            under_way: Arc::default(),
            look_ups: Mutex::new(ShadowBatches::new(MAX_LOADERS)),
        }
    }

    /// The caches that may hold responses with these tags.
    pub(in crate::gateway) fn caches_of<'a>(&'a self, tags: &[Tag]) -> impl Iterator<Item = &'a Cache> + use<'a> {
        let ends_some = tags.iter().any(Tag::is_of_verifications);
        let ends_all = tags.contains(&Tag::Everything);
        let own = self.verifications.iter().filter(move |_| ends_some || ends_all);
        let others = self.verifications_of_others.iter().filter(move |_| ends_some);
        [&self.cache, &self.shadow].into_iter().chain(own).chain(others)
    }

    /// All caches of the instance.
    pub(in crate::gateway) fn caches(&self) -> impl Iterator<Item = &Cache> {
        [&self.cache, &self.shadow].into_iter().chain(&self.verifications)
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
        // All lookups use one route. Until a reload replaces this state, only the wait for the limit differs.
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
        sender: Sender,
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
            let under_way = InFlight::begin(&self.under_way, (*key, sender));
            shadow.coalesced = under_way.is_shared;
            ahead.under_way = Some(under_way);
        }
        ahead
    }

    /// Adds a lookup to the batch it would share if batching were on. Returns how many lookups are now known to be
    /// batched: 0 for a batch's first, 2 for its second (both), 1 for each further one.
    pub(in crate::gateway) fn dry_run_batch(&self, key: &CacheKey, kind: LookUpKind) -> u32 {
        self.look_ups.lock().look_up(kind, *key, self.clock.now())
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

/// Number of reads in flight per key and sender.
type ReadsInFlight = FxHashMap<(CacheKey, Sender), usize>;

/// A read in flight.
struct InFlight {
    all: Arc<Mutex<ReadsInFlight>>,
    key: (CacheKey, Sender),
    is_shared: bool,
}

impl InFlight {
    fn begin(all: &Arc<Mutex<ReadsInFlight>>, key: (CacheKey, Sender)) -> Self {
        let mut reads = all.lock();
        let is_shared = key.1.may_join().any(|of| reads.contains_key(&(key.0, of)));
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
