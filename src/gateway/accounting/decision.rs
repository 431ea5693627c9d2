//! What the gateway did with a request.

use std::time::Duration;

/// The outcome of a request. A closed set: it is a label value, and the value of the header
/// `x-clerk-exporter-decision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decision {
    /// Forwarded immediately, and Clerk's response returned.
    Forwarded,
    /// Forwarded after a wait in the limiter's queue.
    Queued,
    /// Sent more than once.
    Retried,
    /// Answered from the cache.
    CacheHit,
    /// Answered from the cache with an expired response, because Clerk was unavailable.
    Stale,
    /// Answered with the response to an identical concurrent request.
    Coalesced,
    /// Answered from a batched request.
    Batched,
    /// Rejected with 429 by the gateway, to stay within the rate limit.
    Shed,
    /// Rejected by the gateway because the request is invalid or its key unknown.
    Rejected,
    /// Clerk sent no complete response.
    Failed,
    /// The client disconnected before the response.
    Abandoned,
}

impl Decision {
    /// All decisions.
    pub const ALL: [Self; 11] = [
        Self::Forwarded,
        Self::Queued,
        Self::Retried,
        Self::CacheHit,
        Self::Stale,
        Self::Coalesced,
        Self::Batched,
        Self::Shed,
        Self::Rejected,
        Self::Failed,
        Self::Abandoned,
    ];

    /// The decision for a request that Clerk responded to.
    #[must_use]
    pub(in crate::gateway) const fn of(attempts: u32, waited: Duration) -> Self {
        match (attempts, waited.is_zero()) {
            (0 | 1, true) => Self::Forwarded,
            (0 | 1, false) => Self::Queued,
            _ => Self::Retried,
        }
    }

    /// The value of the label and the header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Queued => "queued",
            Self::Retried => "retried",
            Self::CacheHit => "cache_hit",
            Self::Stale => "stale",
            Self::Coalesced => "coalesced",
            Self::Batched => "batched",
            Self::Shed => "shed",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }

    /// Position in [`Decision::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The policy that saved an upstream request. A closed set: it is a label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Saving {
    /// The cache.
    Cache,
    /// One request for several identical ones.
    Coalesce,
    /// One list request for several lookups of single resources.
    Batch,
    /// A kept verification, or one request for several identical ones.
    Verify,
}

impl Saving {
    /// All savings.
    pub const ALL: [Self; 4] = [Self::Cache, Self::Coalesce, Self::Batch, Self::Verify];

    /// The value of the label `by`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Coalesce => "coalesce",
            Self::Batch => "batch",
            Self::Verify => "verify",
        }
    }
}
