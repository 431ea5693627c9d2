//! What we ourselves used of a budget lately.

use std::collections::VecDeque;
use std::time::Duration;

use clerk_quota::Moment;

/// Ends that are kept exactly. Further ones are taken as later by up to this part of a window, so that however many
/// requests there are, at most about twice as many entries hold them. Fewer requests, as under any of Clerk's own limits,
/// come back each at its own time: rounded ones would come back in step, in all processes at once.
const SLOTS: u32 = 2000;

/// Requests in flight, and when the answered ones were over.
///
/// The server counted a request some time between its start and its answer. A request is therefore taken as used from its
/// start until a window after its answer: whatever the network did to the order of requests, and wherever the server's
/// windows lie, no stretch as long as a window then holds more than was let go.
#[derive(Debug, Clone, Default)]
pub(super) struct WindowLog {
    in_flight: u64,
    /// Oldest first.
    over: VecDeque<Ends>,
    /// Requests in `over`.
    over_count: u64,
}

/// Requests that were over at one time.
#[derive(Debug, Clone, Copy)]
struct Ends {
    at: Moment,
    requests: u64,
}

impl WindowLog {
    /// A request leaves.
    pub(super) const fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A request that the server may have counted is over, for our books at `at`.
    pub(super) fn spend(&mut self, at: Moment, window: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.over_count += 1;
        // A place that comes back a little later harms nobody; one that comes back too early does.
        let at = if self.over.len() < SLOTS as usize { at } else { at.rounded_up(window / SLOTS) };
        let place = self.over.partition_point(|ends| ends.at < at);
        match self.over.get_mut(place) {
            Some(ends) if ends.at == at => ends.requests += 1,
            _ => self.over.insert(place, Ends { at, requests: 1 }),
        }
    }

    /// A request that the server surely did not count is over.
    pub(super) const fn refund(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Forgets what lies a whole window back; says how many that were.
    pub(super) fn settle(&mut self, now: Moment, window: Duration) -> u64 {
        let mut returned = 0;
        while let Some(ends) = self.over.front().filter(|ends| ends.at.after(window) <= now) {
            returned += ends.requests;
            self.over.pop_front();
        }
        self.over_count -= returned;
        returned
    }

    pub(super) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Requests that may stand in the server's books, in flight or over.
    pub(super) const fn used(&self) -> u64 {
        self.in_flight + self.over_count
    }

    /// When so many (at least 1) will have been returned, at the earliest: those that are over a window after that, those
    /// in flight a window from now, and then those who take their places another window later.
    pub(super) fn returned_at(&self, count: u64, now: Moment, window: Duration) -> Moment {
        let places = self.used().max(1);
        let (rounds, place) = (count.saturating_sub(1) / places, count.saturating_sub(1) % places);
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX).saturating_add(1);
        self.end_of(place).unwrap_or(now).after(window.saturating_mul(rounds))
    }

    /// When the request at this place, from 0, was over; `None` if it is in flight.
    fn end_of(&self, place: u64) -> Option<Moment> {
        let behind = self.over_count.checked_sub(place.checked_add(1)?)?;
        let mut passed = 0;
        // From the end that is nearer.
        let ends = if place < behind {
            self.over.iter().find(|ends| {
                passed += ends.requests;
                passed > place
            })
        } else {
            self.over.iter().rev().find(|ends| {
                passed += ends.requests;
                passed > behind
            })
        };
        ends.map(|ends| ends.at)
    }

    pub(super) const fn is_empty(&self) -> bool {
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
        let mut log = WindowLog::default();
        log.begin();
        assert_eq!(log.settle(at(100), WINDOW), 0);
        assert_eq!((log.used(), log.in_flight()), (1, 1));
        log.spend(at(101), WINDOW);
        assert_eq!((log.settle(at(110), WINDOW), log.used()), (0, 1));
        assert_eq!((log.settle(at(111), WINDOW), log.used()), (1, 0));
        log.begin();
        log.refund();
        assert!(log.is_empty());
    }

    #[test]
    fn places_come_back_in_the_order_of_their_ends_and_then_again() {
        let mut log = WindowLog::default();
        (0..3).for_each(|_| log.begin());
        log.spend(at(105), WINDOW);
        log.spend(at(103), WINDOW);
        let returned = |count| log.returned_at(count, at(106), WINDOW);
        assert_eq!([1, 2, 3].map(returned), [at(113), at(115), at(116)]);
        assert_eq!([4, 5, 7].map(returned), [at(123), at(125), at(133)]);
    }

    #[test]
    fn few_requests_come_back_each_at_its_own_time() {
        let mut log = WindowLog::default();
        let end = |request: u64| Moment::from_unix(Duration::from_nanos(100_000_000_000 + request * 1_000_001));
        for request in 0..1000 {
            log.begin();
            log.spend(end(request), WINDOW);
        }
        for request in 0..1000 {
            assert_eq!(log.returned_at(request + 1, at(0), WINDOW), end(request).after(WINDOW));
        }
    }

    #[test]
    fn requests_that_end_close_together_come_back_together_and_never_too_early() {
        let mut log = WindowLog::default();
        let end = |request: u64| Moment::from_unix(Duration::from_micros(100_000_000 + request * 50));
        for request in 0..100_000 {
            log.begin();
            // In no order.
            log.spend(end(request * 7919 % 100_000), WINDOW);
        }
        assert_eq!(log.used(), 100_000);
        assert!(log.over.len() <= 2 * SLOTS as usize, "{}", log.over.len());
        for place in [0, 1, 500, 99_999] {
            let at = log.returned_at(place + 1, at(0), WINDOW);
            assert!((end(place).after(WINDOW)..=end(place).after(WINDOW + WINDOW / SLOTS)).contains(&at), "{place}");
        }
        let half = end(50_000).after(WINDOW);
        let returned = log.settle(half, WINDOW);
        assert!((49_000..=50_001).contains(&returned), "{returned}");
        assert_eq!(log.used(), 100_000 - returned);
    }
}
