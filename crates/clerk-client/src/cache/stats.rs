//! Counters for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one tier. They start at 0 and only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Lookups that found a fresh response.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// Failed operations; always 0 for memory.
    pub errors: u64,
    /// Responses stored.
    pub stored: u64,
}

/// Counters of a [`Cache`](super::Cache), and its size. Counters start at 0 and only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// The memory tier.
    pub memory: TierStats,
    /// The Redis tier, looked up only after a miss in memory.
    pub redis: TierStats,
    /// Dry-run lookups: hits and misses of both tiers together.
    pub shadow: TierStats,
    /// Stale responses served.
    pub stale: u64,
    /// Requests served by another request's fetch.
    pub coalesced: u64,
    /// Fetches that returned a response.
    pub fetched: u64,
    /// Requests served by a fetch that was invalidated while in flight. Its response is not stored.
    pub detached: u64,
    /// Responses not stored because of an invalidation.
    pub outdated: u64,
    /// Responses too large to store.
    pub dropped: u64,
    /// Invalidations made by this process.
    pub invalidations: u64,
    /// Invalidations received from other processes.
    pub heard: u64,
    /// Times that memory was cleared because invalidations may have been missed.
    pub disconnects: u64,
    /// Fetches in flight.
    pub in_flight: u64,
    /// Entries in memory.
    pub entries: u64,
    /// Size of the entries in memory in bytes, with keys and headers.
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct TierCounters {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) errors: Counter,
    pub(super) stored: Counter,
}

impl TierCounters {
    fn stats(&self) -> TierStats {
        TierStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            errors: self.errors.get(),
            stored: self.stored.get(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct CacheCounters {
    pub(super) memory: TierCounters,
    pub(super) redis: TierCounters,
    pub(super) shadow: TierCounters,
    pub(super) stale: Counter,
    pub(super) coalesced: Counter,
    pub(super) fetched: Counter,
    pub(super) detached: Counter,
    pub(super) outdated: Counter,
    pub(super) dropped: Counter,
    pub(super) invalidations: Counter,
    pub(super) heard: Counter,
    pub(super) disconnects: Counter,
}

impl CacheCounters {
    /// All counters; the sizes are 0.
    pub(super) fn stats(&self) -> CacheStats {
        CacheStats {
            memory: self.memory.stats(),
            redis: self.redis.stats(),
            shadow: self.shadow.stats(),
            stale: self.stale.get(),
            coalesced: self.coalesced.get(),
            fetched: self.fetched.get(),
            detached: self.detached.get(),
            outdated: self.outdated.get(),
            dropped: self.dropped.get(),
            invalidations: self.invalidations.get(),
            heard: self.heard.get(),
            disconnects: self.disconnects.get(),
            in_flight: 0,
            entries: 0,
            bytes: 0,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
