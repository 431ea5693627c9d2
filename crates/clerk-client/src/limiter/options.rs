//! Options of the limiter.

use super::sender::Rank;
use clerk_quota::{Environment, Limit};

/// Default limit of concurrent requests to Clerk.
pub const MAX_IN_FLIGHT: usize = 1024;

/// Options of a [`Limiter`](super::Limiter).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LimiterOptions {
    /// Limit of the instance's default bucket until the server sends one.
    pub limit: Option<Limit>,
    /// Selects the documented limit if none is configured.
    pub environment: Environment,
    /// Share of the limit that low-priority requests leave unused, 0 to 0.5.
    pub reserve: f64,
    /// Maximum number of concurrent requests to Clerk, over all buckets; at least 1. It bounds connections, not the
    /// rate. As many responses again may be held back by slow readers.
    pub max_in_flight: usize,
    /// Maximum number of queued requests, over all buckets. Each caller with a share has as many places of its own.
    pub max_queue: usize,
}

setters!(LimiterOptions {
    limit: impl Into<Option<Limit>>,
    environment: Environment,
    reserve: f64,
    max_in_flight: usize,
    max_queue: usize,
});

impl Default for LimiterOptions {
    /// Defaults: no limit, unknown environment, a reserve of 0.1, 1024 in flight, 1000 queued.
    /// With that reserve, low-priority requests alone never leave less than 10 % of the limit.
    fn default() -> Self {
        Self {
            limit: None,
            environment: Environment::Unknown,
            reserve: 0.1,
            max_in_flight: MAX_IN_FLIGHT,
            max_queue: 1000,
        }
    }
}

impl LimiterOptions {
    /// A guaranteed request does not leave the reserve: guarantees and reserve together are at most the limit.
    pub(super) const fn reserve_of(&self, rank: Rank) -> f64 {
        match rank {
            Rank::Guaranteed | Rank::High => 0.0,
            Rank::Low => self.reserve,
        }
    }
}
