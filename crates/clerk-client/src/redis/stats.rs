//! State and counters of the client.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{RedisClientError, RefusalClass};

/// Whether the server responds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisState {
    /// No operation so far.
    Untried,
    /// The last operation succeeded, or too few have failed in a row.
    Up,
    /// Several operations failed in a row. The server is tried again from time to time.
    Down,
}

/// State and counters of a [`RedisClient`](super::RedisClient), for metrics. Counters start at 0 and only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisStats {
    /// Whether the server responds.
    pub state: RedisState,
    /// Operations requested.
    pub operations: u64,
    /// Operations that succeeded.
    pub succeeded: u64,
    /// Operations that failed for lack of a working connection, including those not attempted.
    pub unavailable: u64,
    /// Operations without a response in time.
    pub timeouts: u64,
    /// Operations refused by the server.
    pub refused: u64,
    /// Which operations the server refuses now, in the order of [`RefusalClass::ALL`]; includes subscriptions.
    pub refuses: [bool; RefusalClass::ALL.len()],
    /// Connections opened, without those of subscriptions.
    pub connections: u64,
}

/// The counters behind [`RedisStats`].
#[derive(Debug, Default)]
pub(super) struct RedisCounters {
    pub(super) operations: AtomicU64,
    pub(super) succeeded: AtomicU64,
    unavailable: AtomicU64,
    timeouts: AtomicU64,
    refused: AtomicU64,
}

impl RedisCounters {
    pub(super) fn failed(&self, error: &RedisClientError) {
        let counter = match error {
            RedisClientError::Unavailable { .. } | RedisClientError::Resting { .. } => &self.unavailable,
            RedisClientError::Timeout { .. } => &self.timeouts,
            RedisClientError::Refused(_) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn health(
        &self,
        is_down: bool,
        refuses: [bool; RefusalClass::ALL.len()],
        connections: u64,
    ) -> RedisStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = match (is_down, count(&self.operations)) {
            (true, _) => RedisState::Down,
            (false, 0) => RedisState::Untried,
            (false, _) => RedisState::Up,
        };
        RedisStats {
            state,
            operations: count(&self.operations),
            succeeded: count(&self.succeeded),
            unavailable: count(&self.unavailable),
            timeouts: count(&self.timeouts),
            refused: count(&self.refused),
            refuses,
            connections,
        }
    }
}
