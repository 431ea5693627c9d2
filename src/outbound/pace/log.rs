//! What we ourselves used of a budget lately.

use std::collections::VecDeque;
use std::time::Duration;

use crate::quota::Moment;

/// Requests in flight, and when the answered ones were over.
///
/// The server counted a request some time between its start and its answer. A request is therefore taken as used from its
/// start until a window after its answer: whatever the network did to the order of requests, and wherever the server's
/// windows lie, no stretch as long as a window then holds more than was let go.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    in_flight: u64,
    /// Oldest first.
    over: VecDeque<Moment>,
}

impl Log {
    /// A request leaves.
    pub(super) const fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A request that the server may have counted is over, for our books at `at`.
    pub(super) fn spend(&mut self, at: Moment) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let place = self.over.partition_point(|other| *other <= at);
        self.over.insert(place, at);
    }

    /// A request that the server surely did not count is over.
    pub(super) const fn give_back(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Forgets what lies a whole window back; says how many that were.
    pub(super) fn settle(&mut self, now: Moment, window: Duration) -> u64 {
        let mut returned = 0;
        while self.over.front().is_some_and(|at| at.after(window) <= now) {
            self.over.pop_front();
            returned += 1;
        }
        returned
    }

    pub(super) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Requests that may stand in the server's books, in flight or over.
    pub(super) fn used(&self) -> u64 {
        self.in_flight + self.over.len() as u64
    }

    /// When so many (at least 1) will have been returned, if nothing more leaves: at the earliest, where some are still in flight.
    pub(super) fn returned_at(&self, count: u64, now: Moment, window: Duration) -> Moment {
        let place = usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX);
        self.over.get(place).copied().unwrap_or(now).after(window)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used() == 0
    }
}
