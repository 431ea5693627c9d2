//! What the gateway did with a request, as words.

use std::time::Duration;

/// What became of a request. A closed set: it is a label, and the value of the header `x-clerk-exporter-decision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decision {
    /// Handed on at once, and the answer handed back.
    Forwarded,
    /// Handed on after a wait for the rate limit.
    Queued,
    /// Sent more than once.
    Retried,
    /// Answered from the cache.
    CacheHit,
    /// Answered from the cache with what is past its time, since Clerk could not be asked.
    Stale,
    /// Answered with the answer to another one like it.
    Coalesced,
    /// Answered with a part of the answer to a larger one.
    Batched,
    /// Answered 429 by the gateway, to stay within the rate limit.
    Shed,
    /// Refused by the gateway for what it is: no valid request, or an unknown key.
    Rejected,
    /// No complete answer came from Clerk.
    Failed,
    /// The client went away before there was an answer.
    Abandoned,
}

impl Decision {
    /// All of them.
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

    /// Of a request that Clerk answered.
    #[must_use]
    pub(in crate::gateway) const fn of(attempts: u32, waited: Duration) -> Self {
        match (attempts, waited.is_zero()) {
            (0 | 1, true) => Self::Forwarded,
            (0 | 1, false) => Self::Queued,
            _ => Self::Retried,
        }
    }

    /// The value of the label and of the header.
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

/// What spared Clerk a request. A closed set: it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Saving {
    /// The cache.
    Cache,
    /// One request for several that ask the same.
    Coalesce,
    /// One request for several that ask for one resource each.
    Batch,
}

impl Saving {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cache, Self::Coalesce, Self::Batch];

    /// The value of the label `by`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Coalesce => "coalesce",
            Self::Batch => "batch",
        }
    }
}
