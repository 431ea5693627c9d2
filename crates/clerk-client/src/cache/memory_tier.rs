//! The memory tier.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::CacheKey;
use super::entry::CachedResponse;
use super::generations::{Generations, Snapshot};
use clerk_quota::Moment;

/// An entry larger than this fraction of the capacity is not stored: it would evict all others.
const LARGEST_PART: u64 = 16;
/// Number of shards, each with its own lock. A shard has to hold the largest entry easily.
const SHARDS: usize = 4;
/// Typical weight of an entry in bytes, for the initial table size.
const USUAL_WEIGHT: u64 = 2048;

/// Expiry times of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) fresh_until: Moment,
    /// May be served until then while it is refreshed.
    pub(super) stale_until: Moment,
    /// May be served until then if the refresh fails.
    pub(super) stale_if_error_until: Moment,
}

impl Times {
    pub(super) fn new(fresh_until: Moment, stale: Duration, stale_if_error: Duration) -> Self {
        Self {
            fresh_until,
            stale_until: fresh_until.after(stale),
            stale_if_error_until: fresh_until.after(stale_if_error),
        }
    }

    /// Caps all times at `at`.
    pub(super) fn capped(self, at: Moment) -> Self {
        Self {
            fresh_until: self.fresh_until.min(at),
            stale_until: self.stale_until.min(at),
            stale_if_error_until: self.stale_if_error_until.min(at),
        }
    }

    /// When the entry expires for every purpose.
    pub(super) fn end(&self) -> Moment {
        self.fresh_until.max(self.stale_until).max(self.stale_if_error_until)
    }
}

/// An entry in memory.
#[derive(Debug)]
pub(super) struct MemoryTier {
    pub(super) answer: CachedResponse,
    pub(super) times: Times,
    pub(super) generations: Snapshot,
    weight: u64,
}

impl MemoryTier {
    pub(super) fn new(answer: &CachedResponse, times: Times, generations: Snapshot) -> Self {
        Self { answer: answer.compact(), times, generations, weight: answer.weight() }
    }
}

#[derive(Debug, Clone, Copy)]
struct ByWeight;

impl Weighter<CacheKey, Arc<MemoryTier>> for ByWeight {
    fn weight(&self, _: &CacheKey, entry: &Arc<MemoryTier>) -> u64 {
        entry.weight
    }
}

pub(super) struct Memory {
    entries: Cache<CacheKey, Arc<MemoryTier>, ByWeight>,
    largest: u64,
}

impl Memory {
    /// Creates a tier with a capacity in bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / USUAL_WEIGHT).unwrap_or(usize::MAX).clamp(16, 1 << 16);
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .weight_capacity(bytes)
            .estimated_items_capacity(items)
            .build()
            .expect("both capacities are given");
        let entries = Cache::with_options(
            options,
            ByWeight,
            DefaultHashBuilder::default(),
            quick_cache::sync::DefaultLifecycle::default(),
        );
        Self { entries, largest: bytes / LARGEST_PART }
    }

    /// Whether an entry of this weight can be stored.
    pub(super) fn has_room_for(&self, weight: u64) -> bool {
        weight <= self.largest
    }

    /// Returns the entry if it is current and unexpired; removes it otherwise.
    pub(super) fn get(&self, key: &CacheKey, generations: &Generations, now: Moment) -> Option<Arc<MemoryTier>> {
        let entry = self.entries.get(key)?;
        if now < entry.times.end() && generations.is_current(&entry.generations) {
            return Some(entry);
        }
        self.entries.remove_if(key, |other| Arc::ptr_eq(other, &entry));
        None
    }

    pub(super) fn insert(&self, key: CacheKey, entry: MemoryTier) {
        self.entries.insert(key, Arc::new(entry));
    }

    pub(super) fn remove(&self, key: &CacheKey) {
        self.entries.remove(key);
    }

    #[cfg(feature = "redis")]
    pub(super) fn clear(&self) {
        self.entries.clear();
    }

    /// Number of entries and their weight. Outdated entries count until they are looked up or evicted.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.entries.len() as u64, self.entries.weight())
    }
}
