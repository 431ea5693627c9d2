//! What became of look-ups, as plain numbers for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one level. They begin at 0 and only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Look-ups that found an answer that was good.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Operations that failed. In memory none can.
    pub errors: u64,
    /// Answers that were kept.
    pub stored: u64,
}

/// Counters of a [`Cache`](super::Cache), and its size. Counters begin at 0 and only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// In this process.
    pub memory: TierStats,
    /// In Redis. Asked only after a miss in memory.
    pub redis: TierStats,
    /// Look-ups that would have been, had they not been shadows: hits and misses of both levels together.
    pub shadow: TierStats,
    /// Stale answers that were given.
    pub stale: u64,
    /// Requests that waited for the fetch of another one and got its answer.
    pub coalesced: u64,
    /// Fetches that ended in an answer.
    pub fetched: u64,
    /// Requests that got the answer to a fetch that an invalidation overtook. It is not kept.
    pub detached: u64,
    /// Answers that were not kept because an invalidation came before them.
    pub outdated: u64,
    /// Answers that were too large to be kept.
    pub dropped: u64,
    /// Invalidations that were asked for here.
    pub invalidations: u64,
    /// Invalidations that other processes told.
    pub heard: u64,
    /// Times that memory was dropped because messages of other processes may have been missed.
    pub disconnects: u64,
    /// Fetches under way now.
    pub in_flight: u64,
    /// Answers in memory now.
    pub entries: u64,
    /// Their size in bytes, with keys and headers.
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

/// The counters behind [`CacheStats`].
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
    /// The numbers, apart from sizes.
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
