//! How the server is doing, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{RedisClientError, RefusalClass};

/// Whether the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisState {
    /// Nobody has asked it yet.
    Untried,
    /// It answered last time, or has not failed often enough to be called down.
    Up,
    /// It failed repeatedly. It is asked again now and then.
    Down,
}

/// State and counters of a [`RedisClient`](super::RedisClient), for metrics. Counters begin at 0 and only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisStats {
    /// Whether the server answers.
    pub state: RedisState,
    /// Operations that were asked for.
    pub operations: u64,
    /// Operations that were done.
    pub succeeded: u64,
    /// Operations that failed because there was no working connection, those that were not tried included.
    pub unavailable: u64,
    /// Operations that were not answered in time.
    pub timeouts: u64,
    /// Operations that the server refused.
    pub refused: u64,
    /// Whether the server refuses something now, in the order of [`RefusalClass::ALL`]: subscriptions included.
    pub refuses: [bool; RefusalClass::ALL.len()],
    /// Connections that were opened, those of subscriptions not included.
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
