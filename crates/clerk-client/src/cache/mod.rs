//! A response cache for the Backend API: memory over Redis, invalidated by age and by webhooks.
//!
//! A cached response does not count against Clerk's rate limit. [`Cache::get_or_fetch`] serves a response from memory,
//! then from Redis, then from a fetch shared by concurrent identical requests. [`Cache`] implements
//! [`Invalidate`](crate::webhook::Invalidate) for webhooks: it invalidates the tags of an event here and in all
//! processes on the same Redis.
//!
//! # Guarantees
//!
//! - **After an invalidation returns `Ok`**, this process serves no response with one of its tags whose fetch began
//!   earlier, and other processes get none from Redis. Requests already waiting for such a fetch receive its response,
//!   as without a cache. It is not stored, and no second request is made.
//! - **Without an `Ok`, Redis may still hold outdated responses.** This process does not use them and retries the
//!   invalidation until it succeeds. Other processes may use them until then. If this process ends first, the event
//!   must be redelivered.
//! - **Other processes invalidate their memory** within milliseconds, through a subscription. When the subscription
//!   breaks, they clear their memory. Until it is restored, memory serves responses only while Redis is unreachable,
//!   and only if stored within [`CacheOptions::disconnected_ttl`] (5 s). A connection that broke without being closed
//!   is detected within about 2 s. The sum of both bounds how long another process can serve an outdated response. If
//!   Redis works but refuses subscriptions, memory serves nothing.
//! - **An `Ok` does not require a published message.** If Redis refuses to publish, it suffices that no process is
//!   subscribed.
//! - **Redis may be unreachable.** Memory and Clerk then serve all requests, and no lookup waits longer than the Redis
//!   timeout. Redis is used again once it is back.
//! - **Only 200 is cached**, and 404 if the policy says so. Errors are shared with the requests waiting at that moment
//!   and not stored.
//!
//! Redis replication is asynchronous: a fail-over may restore an outdated entry until it expires.
//!
//! # Modules
//!
//! - `key`: cache keys. `entry`: responses.
//! - `memory_tier`: the first tier. `redis_tier`: the second tier and messages to other processes; `no_redis` replaces
//!   it without the feature.
//! - `generations`: which entries an invalidation outdates in this process.
//! - `single_flight`: one fetch at a time per key and sender.
//! - `subscription`: invalidations by other processes. `pending_invalidations`: invalidations that Redis has not
//!   accepted yet.
//! - `codec`, `encryption`: entries as bytes, plain or encrypted.
//! - `expiry`: when a stored response expires. `verification`: the same for verifications of tokens. `simulation`: what a cache would save, from recorded requests.
//! - `lookup`: a lookup through all tiers. `keep`: storing what was fetched. `invalidate`: an invalidation. `dry_run`: a lookup that serves nothing.
//! - `stats`: counters.
//!
//! A cache belongs to one Clerk instance. This module uses [`clock`](clerk_quota::clock), [`secret`](crate::secret),
//! `redis`, [`limiter`](crate::limiter) for priorities, and [`webhook`](crate::webhook).

mod builder;
#[cfg(feature = "redis")]
mod codec;
mod dry_run;
#[cfg(feature = "redis")]
mod encryption;
mod entry;
mod expiry;
mod generations;
mod invalidate;
mod keep;
mod key;
mod lookup;
mod memory_tier;
mod pending_invalidations;
#[cfg(feature = "redis")]
mod redis_tier;
#[cfg(not(feature = "redis"))]
#[path = "no_redis.rs"]
mod redis_tier;
pub mod simulation;
mod single_flight;
mod stats;
#[cfg(feature = "redis")]
mod subscription;
mod verification;

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

use crate::limiter::Sender;
#[cfg(feature = "redis")]
use crate::redis::RedisClient;

/// What the responses of a [`Cache`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CacheContent {
    /// Responses to reads. Tags and policy of a request decide how they are stored.
    #[default]
    Reads,
    /// Verifications of API keys, machine tokens and OAuth access tokens. Only a 200 that says `revoked: false` and
    /// `expired: false` is stored, at most until the token's own expiry, and it ends with the tag
    /// [`Verification`](crate::webhook::Tag::Verification) of the ID in its body.
    ///
    /// In Redis, where a lookup cannot know the ID, each revocation ends all of the instance's verifications. Without
    /// [`CacheOptions::encryption`] nothing is stored there, and Redis only tells other processes of revocations. Give
    /// requests the tags `Everything`, `AnyVerification` and `UnknownVerification`, and keys of [`Cache::secret_key`].
    Verifications,
}

/// Options of a [`Cache`].
#[derive(Debug)]
#[non_exhaustive]
pub struct CacheOptions {
    /// What the responses are.
    pub content: CacheContent,
    /// Name of the instance, the same in all processes. Caches of different instances share nothing.
    pub instance: Arc<str>,
    /// Capacity of the memory tier in bytes, counting bodies, headers and keys; the process uses somewhat more. A
    /// response larger than a sixteenth of it is stored in Redis only. 0 disables the memory tier.
    pub memory_bytes: u64,
    /// Maximum size of a stored response in bytes, with headers and key.
    pub max_entry_bytes: u64,
    /// Maximum lifetime of an entry in memory while the Redis subscription is down. Unused without Redis.
    pub disconnected_ttl: Duration,
    /// Maximum lifetime of a response fetched less than this after an invalidation of its tags: Clerk's API may lag
    /// behind its webhooks.
    pub read_after_write_grace: Duration,
    /// Redis shared by several processes; without it, responses are stored in memory only.
    #[cfg(feature = "redis")]
    pub redis: Option<RedisClient>,
    /// Encrypts entries in Redis.
    #[cfg(feature = "redis")]
    pub encryption: Option<Encryption>,
}

setters!(CacheOptions {
    content: CacheContent,
    instance: impl Into<Arc<str>>,
    memory_bytes: u64,
    max_entry_bytes: u64,
    disconnected_ttl: Duration,
    read_after_write_grace: Duration,
    #[cfg(feature = "redis")]
    redis: impl Into<Option<RedisClient>>,
    #[cfg(feature = "redis")]
    encryption: impl Into<Option<Encryption>>,
});

impl CacheOptions {
    /// Defaults: 64 MiB of memory, responses up to 256 KiB, both times 5 s, no Redis, no encryption.
    #[must_use]
    pub fn new(instance: impl Into<Arc<str>>) -> Self {
        Self {
            content: CacheContent::Reads,
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

/// Upper bound of every lifetime, whatever the policy says.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long responses may be served. Each duration is capped at 30 days.
///
/// `ttl` and `negative_ttl` vary randomly by up to 10 %, so that entries stored together do not expire together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachePolicy {
    /// Lifetime of a 200. Zero: no lookup and nothing stored; concurrent requests only share a fetch.
    pub ttl: Duration,
    /// Lifetime of a 404. Zero: not stored.
    pub negative_ttl: Duration,
    /// How long after `ttl` a 200 may be served while it is refreshed (RFC 5861, section 3).
    pub stale_while_revalidate: Duration,
    /// How long after `ttl` a 200 may be served if the refresh fails: an error, 429, or 500 and above (RFC 5861,
    /// section 4).
    pub stale_if_error: Duration,
    /// Who sends the request. It joins only fetches that do not queue behind it ([`Sender::may_join`]).
    pub sender: Sender,
}

impl CachePolicy {
    /// Sets [`CachePolicy::ttl`].
    #[must_use]
    pub const fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Sets [`CachePolicy::negative_ttl`].
    #[must_use]
    pub const fn negative_ttl(self, negative_ttl: Duration) -> Self {
        Self { negative_ttl, ..self }
    }

    /// Sets [`CachePolicy::stale_while_revalidate`].
    #[must_use]
    pub const fn stale_while_revalidate(self, stale_while_revalidate: Duration) -> Self {
        Self { stale_while_revalidate, ..self }
    }

    /// Sets [`CachePolicy::stale_if_error`].
    #[must_use]
    pub const fn stale_if_error(self, stale_if_error: Duration) -> Self {
        Self { stale_if_error, ..self }
    }

    /// Sets [`CachePolicy::sender`].
    #[must_use]
    pub fn sender(self, sender: impl Into<Sender>) -> Self {
        Self { sender: sender.into(), ..self }
    }

    /// A policy that serves a 200 for `ttl`, and neither 404s nor stale responses.
    #[must_use]
    pub const fn fresh_for(ttl: Duration) -> Self {
        let zero = Duration::ZERO;
        let sender = Sender::ANY;
        Self { ttl, negative_ttl: zero, stale_while_revalidate: zero, stale_if_error: zero, sender }
    }

    /// A policy that stores nothing: concurrent requests only share a fetch.
    #[must_use]
    pub const fn coalesce_only() -> Self {
        Self::fresh_for(Duration::ZERO)
    }

    const fn keeps(&self) -> bool {
        !self.ttl.is_zero()
    }

    /// Upper bound of an entry's lifetime.
    fn lifetime(&self) -> Duration {
        let stale = self.stale_while_revalidate.max(self.stale_if_error);
        let ttl = self.ttl.max(self.negative_ttl);
        // The jitter.
        ttl.saturating_add(ttl / 10).saturating_add(stale).min(LONGEST)
    }

    /// TTL and both stale periods for a response with this status; `None` if it is not cacheable.
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

/// Where a response came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// Memory of this process.
    Memory {
        /// Time since Clerk sent it.
        age: Duration,
    },
    /// Redis.
    Redis {
        /// Time since Clerk sent it, by the clock of the process that fetched it.
        age: Duration,
    },
    /// Stale: it is being refreshed, or the refresh failed.
    Stale {
        /// Time since Clerk sent it.
        age: Duration,
    },
    /// A fetch started by another request for the same key.
    Coalesced,
    /// A fetch started by this request.
    Fetched,
}

impl Hit {
    /// Returns the age of a cached response, `None` if it was just fetched.
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
