//! Setting up the cache of a client.

#[cfg(feature = "redis")]
use std::sync::Arc;
use std::time::Duration;

use super::{Cache, CacheOptions, CachePolicy};
#[cfg(feature = "redis")]
use super::{Encryption, RedisClient};
#[cfg(feature = "redis")]
use crate::redis::RedisConfigError;

/// How long a response is fresh by default.
const TTL: Duration = Duration::from_secs(60);

impl Cache {
    /// A cache that takes up to this many bytes of memory, for [`ClerkBuilder::cache`](crate::ClerkBuilder::cache).
    ///
    /// By default a response is fresh for 60 s, and stale responses and 404s are not served.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use clerk_client::{Cache, Clerk};
    ///
    /// # fn main() -> Result<(), clerk_client::Error> {
    /// let cache = Cache::memory(64 << 20).ttl(Duration::from_secs(300)).stale_if_error(Duration::from_secs(3600));
    /// let clerk = Clerk::builder().secret_key("sk_test_4bMbJyWZ2vnLx0aQ").cache(cache).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn memory(max_bytes: u64) -> CacheBuilder {
        CacheBuilder {
            options: CacheOptions { memory_bytes: max_bytes, ..CacheOptions::new("default") },
            policy: CachePolicy::fresh_for(TTL),
            #[cfg(feature = "redis")]
            redis_error: None,
        }
    }
}

/// The configuration of a client's cache, made by [`Cache::memory`].
#[derive(Debug)]
#[must_use = "give it to `ClerkBuilder::cache`"]
pub struct CacheBuilder {
    pub(crate) options: CacheOptions,
    pub(crate) policy: CachePolicy,
    #[cfg(feature = "redis")]
    pub(crate) redis_error: Option<RedisConfigError>,
}

impl CacheBuilder {
    /// Adds Redis as a second tier that several processes share: a URL or a [`RedisClient`]. An invalid URL fails
    /// [`ClerkBuilder::build`](crate::ClerkBuilder::build).
    ///
    /// `instance` names the Clerk instance: the same in all its processes, another one for each other instance.
    /// Invalidations reach all processes with the same name.
    ///
    /// ```
    /// use clerk_client::{Cache, Clerk};
    ///
    /// # fn main() -> Result<(), clerk_client::Error> {
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    /// # let _entered = runtime.enter();
    /// let cache = Cache::memory(64 << 20).redis("redis://127.0.0.1/", "production");
    /// let clerk = Clerk::builder().secret_key("sk_live_4bMbJyWZ2vnLx0aQ").cache(cache).build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    pub fn redis<R>(mut self, server: R, instance: impl Into<Arc<str>>) -> Self
    where
        R: TryInto<RedisClient>,
        R::Error: Into<RedisConfigError>,
    {
        self.options.instance = instance.into();
        match server.try_into() {
            Ok(client) => self.options.redis = Some(client),
            Err(error) => self.redis_error = Some(error.into()),
        }
        self
    }

    /// Encrypts what is stored in Redis.
    #[cfg(feature = "redis")]
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.options.encryption = Some(encryption);
        self
    }

    /// Sets how long a response is fresh. Default: 60 s.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.policy.ttl = ttl;
        self
    }

    /// Sets how long a 404 is fresh. Default: 0, 404s are not stored.
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.policy.negative_ttl = ttl;
        self
    }

    /// Sets how long after its TTL a response may be served while it is fetched again (RFC 5861, section 3). Default: 0.
    pub const fn stale_while_revalidate(mut self, duration: Duration) -> Self {
        self.policy.stale_while_revalidate = duration;
        self
    }

    /// Sets how long after its TTL a response may be served when Clerk responds with 429 or 5xx, or not at all (RFC 5861,
    /// section 4). Default: 0.
    pub const fn stale_if_error(mut self, duration: Duration) -> Self {
        self.policy.stale_if_error = duration;
        self
    }

    /// Sets the size in bytes above which a response is not stored. Default: 256 KiB.
    pub const fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.options.max_entry_bytes = bytes;
        self
    }
}
