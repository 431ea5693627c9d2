//! Answers of the Backend API, kept in memory over Redis until they age or a webhook makes them old.
//!
//! A request that Clerk need not answer again does not count against the rate limit. [`Cache::get_or_fetch`] gives an
//! answer from memory, else from Redis, else from a fetch that all who ask for the same share. [`Cache`] is the sink of
//! webhooks ([`Invalidate`](crate::webhook::Invalidate)): it forgets what an event names, here and in all processes on
//! the same Redis.
//!
//! # What is promised
//!
//! - **Who asks this process after an invalidation has returned `Ok` gets no answer that has one of its tags and whose
//!   fetch began before, nor does one who asks another process from Redis.** Who asked before gets what was fetched,
//!   as without a cache: it is kept nowhere, and no request is made twice for it.
//! - **Without an `Ok`, Redis may still hold old answers.** This process does not use them, and tells Redis again until it
//!   was told; other processes may use them until then. If this one ends before, deliver again.
//! - **Other processes drop it from their memory as soon as they hear of it**, within milliseconds, over a subscription.
//!   When that breaks, all of their memory is dropped, and as long as it is down, memory answers only where Redis cannot be
//!   reached, with what is [`CacheOptions::disconnected_ttl`] (5 s) old at most. That a connection broke without being closed
//!   is noticed within about 2 s. Both together bound how long another process can give an old answer. Where Redis answers and
//!   refuses subscriptions, memory answers nothing, from the start.
//! - **An `Ok` does not need a message.** If Redis refuses to publish it, it is enough that no process is subscribed.
//! - **Redis may be away.** Then there are memory and Clerk, and no look-up waits longer than the store's timeout. When it
//!   is back, it is used again.
//! - **Only 200 is kept**, and 404 if the policy says so. Errors and failures are shared by those who wait for them at
//!   that moment and forgotten.
//!
//! Redis replicates after it has answered: a fail-over may bring an old answer back until its time is over.
//!
//! # The parts
//!
//! - `key`: which requests have the same answer. `entry`: an answer.
//! - `memory_tier`: the first level. `redis_tier`: the second one, and the messages to other processes; `no_redis` stands
//!   for it where the feature is off.
//! - `generations`: what an invalidation makes old in this process.
//! - `single_flight`: one fetch at a time for each key.
//! - `subscription`: what other processes invalidate. `pending_invalidations`: what Redis could not be told to forget.
//! - `codec`, `encryption`: answers as bytes, and as bytes that only we can read.
//! - `lookup`: the way through all of that. `invalidate`: that of an invalidation. `dry_run`: a look-up without giving
//!   anything.
//! - `stats`: what became of look-ups.
//!
//! A cache belongs to one instance of Clerk. This room uses [`clock`](clerk_quota::clock) with its moments,
//! [`secret`](crate::secret), `redis`, [`limiter`](crate::limiter) with its priorities, and
//! [`webhook`](crate::webhook).

mod builder;
#[cfg(feature = "redis")]
mod codec;
mod dry_run;
#[cfg(feature = "redis")]
mod encryption;
mod entry;
mod generations;
mod invalidate;
mod key;
mod lookup;
mod memory_tier;
mod pending_invalidations;
#[cfg(feature = "redis")]
mod redis_tier;
#[cfg(not(feature = "redis"))]
#[path = "no_redis.rs"]
mod redis_tier;
mod single_flight;
mod stats;
#[cfg(feature = "redis")]
mod subscription;

use std::sync::Arc;
use std::time::Duration;

pub use builder::CacheBuilder;
pub use dry_run::DryRun;
#[cfg(feature = "redis")]
pub use encryption::{Encryption, EncryptionError};
pub use entry::CachedResponse;
use http::StatusCode;
pub use key::{CacheKey, CacheKeyParts};
pub use lookup::Cache;
pub use stats::{CacheStats, TierStats};

use crate::limiter::Priority;
#[cfg(feature = "redis")]
use crate::redis::RedisClient;

/// How to keep the answers of one instance.
#[derive(Debug)]
pub struct CacheOptions {
    /// The instance, by a name that all processes have for it. Caches of different instances share nothing.
    pub instance: Arc<str>,
    /// Room in memory, in bytes of answers with their headers and keys. The process takes somewhat more. An answer larger
    /// than a sixteenth of it is kept in Redis only. 0: nothing is kept in memory.
    pub memory_bytes: u64,
    /// Larger answers are not kept at all, in bytes with headers and key.
    pub max_entry_bytes: u64,
    /// How long an answer lives in memory at most while other processes cannot be heard. Without a Redis there are none
    /// to be heard.
    pub disconnected_ttl: Duration,
    /// How long an answer lives at most whose fetch began less than this after an invalidation of its tags: what Clerk
    /// answers may lag behind what it reports.
    pub read_after_write_grace: Duration,
    /// The Redis that processes share; without one, answers are kept in memory alone.
    #[cfg(feature = "redis")]
    pub redis: Option<RedisClient>,
    /// Seals what stands in Redis.
    #[cfg(feature = "redis")]
    pub encryption: Option<Encryption>,
}

impl CacheOptions {
    /// 64 MiB of memory, answers up to 256 KiB, 5 s unheard, 5 s to settle, not sealed.
    #[must_use]
    pub fn new(instance: impl Into<Arc<str>>) -> Self {
        Self {
            instance: instance.into(),
            memory_bytes: 64 << 20,
            max_entry_bytes: 256 << 10,
            disconnected_ttl: Duration::from_secs(5),
            read_after_write_grace: Duration::from_secs(5),
            #[cfg(feature = "redis")]
            redis: None,
            #[cfg(feature = "redis")]
            encryption: None,
        }
    }
}

/// No answer is of use for longer, whatever is asked for.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long an answer may be given: each time 30 days at most.
///
/// Times of freshness differ by up to 10 % from answer to answer, so that those that came together do not end together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachePolicy {
    /// How long a 200 is fresh. Zero: nothing is kept or looked up, and requests only share a fetch.
    pub ttl: Duration,
    /// How long a 404 is fresh. Zero: it is not kept.
    pub negative_ttl: Duration,
    /// How long after that a 200 may still be given while it is fetched anew (RFC 5861, section 3).
    pub stale_while_revalidate: Duration,
    /// How long after that a 200 may still be given when fetching it anew fails: an error, 429, or 500 and above (RFC
    /// 5861, section 4).
    pub stale_if_error: Duration,
    /// Whose fetch it may wait for: fetches are shared with requests of no higher priority than the one that began them.
    pub priority: Priority,
}

impl CachePolicy {
    /// A 200 is fresh so long, nothing else is kept, nothing stale is given.
    #[must_use]
    pub const fn fresh_for(ttl: Duration) -> Self {
        let zero = Duration::ZERO;
        let priority = Priority::High;
        Self { ttl, negative_ttl: zero, stale_while_revalidate: zero, stale_if_error: zero, priority }
    }

    /// Nothing is kept: requests only share a fetch.
    #[must_use]
    pub const fn coalesce_only() -> Self {
        Self::fresh_for(Duration::ZERO)
    }

    const fn keeps(&self) -> bool {
        !self.ttl.is_zero()
    }

    /// The longest that an answer may be of use.
    fn lifetime(&self) -> Duration {
        let stale = self.stale_while_revalidate.max(self.stale_if_error);
        let ttl = self.ttl.max(self.negative_ttl);
        // And the jitter.
        ttl.saturating_add(ttl / 10).saturating_add(stale).min(LONGEST)
    }

    /// Freshness and both times of staleness of an answer with this status; `None` if it is not kept.
    fn of(&self, status: StatusCode) -> Option<(Duration, Duration, Duration)> {
        match status {
            StatusCode::OK => Some((self.ttl, self.stale_while_revalidate, self.stale_if_error)),
            StatusCode::NOT_FOUND => Some((self.negative_ttl, Duration::ZERO, Duration::ZERO)),
            _ => None,
        }
        .filter(|(ttl, ..)| self.keeps() && !ttl.is_zero())
        .map(|(ttl, stale, stale_if_error)| (ttl.min(LONGEST), stale.min(LONGEST), stale_if_error.min(LONGEST)))
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// From the memory of this process.
    Memory {
        /// Since Clerk gave it.
        age: Duration,
    },
    /// From Redis.
    Redis {
        /// Since Clerk gave it, by the clock of the process that fetched it.
        age: Duration,
    },
    /// No longer fresh: it is being fetched anew, or that failed.
    Stale {
        /// Since Clerk gave it.
        age: Duration,
    },
    /// From the fetch of somebody who asked for the same.
    Coalesced,
    /// From a fetch of its own.
    Fetched,
}

impl Hit {
    /// How old the answer is, unless it was just fetched.
    #[must_use]
    pub const fn age(self) -> Option<Duration> {
        match self {
            Self::Memory { age } | Self::Redis { age } | Self::Stale { age } => Some(age),
            Self::Coalesced | Self::Fetched => None,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
