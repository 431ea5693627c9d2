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

    /// When so many (at least 1) will have been returned, at the earliest: those that are over a window after that, those
    /// in flight a window from now, and then those who take their places another window later.
    pub(super) fn returned_at(&self, count: u64, now: Moment, window: Duration) -> Moment {
        let places = self.used().max(1);
        let (rounds, place) = (count.saturating_sub(1) / places, count.saturating_sub(1) % places);
        let over = usize::try_from(place).ok().and_then(|place| self.over.get(place));
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX).saturating_add(1);
        over.copied().unwrap_or(now).after(window.saturating_mul(rounds))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(seconds))
    }

    #[test]
    fn a_request_is_used_from_its_start_until_a_window_after_its_end() {
        let mut log = Log::default();
        log.begin();
        assert_eq!(log.settle(at(100), WINDOW), 0);
        assert_eq!((log.used(), log.in_flight()), (1, 1));
        log.spend(at(101));
        assert_eq!((log.settle(at(110), WINDOW), log.used()), (0, 1));
        assert_eq!((log.settle(at(111), WINDOW), log.used()), (1, 0));
        log.begin();
        log.give_back();
        assert!(log.is_empty());
    }

    #[test]
    fn places_come_back_in_the_order_of_their_ends_and_then_again() {
        let mut log = Log::default();
        (0..3).for_each(|_| log.begin());
        log.spend(at(105));
        log.spend(at(103));
        let returned = |count| log.returned_at(count, at(106), WINDOW);
        assert_eq!([1, 2, 3].map(returned), [at(113), at(115), at(116)]);
        assert_eq!([4, 5, 7].map(returned), [at(123), at(125), at(133)]);
    }
}
