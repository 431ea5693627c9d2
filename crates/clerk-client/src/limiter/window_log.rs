//! This process' recent use of a bucket.

use std::collections::VecDeque;
use std::time::Duration;

use clerk_quota::Moment;

/// Number of ends stored exactly. Further ends are rounded up by at most this part of a window, so that any number of
/// requests needs at most about twice as many entries. Fewer requests, as under any of Clerk's own limits, return each
/// at its own time: if rounded, they would return in step in all processes.
const SLOTS: u32 = 2000;

/// Requests in flight, and the ends of answered ones.
///
/// The server counts a request between its start and its response. So a request is used from its start until one window
/// after its response: however the network reorders requests and wherever the server's windows lie, no period of one
/// window contains more than was allowed.
#[derive(Debug, Clone, Default)]
pub(super) struct WindowLog {
    in_flight: u64,
    /// Oldest first.
    over: VecDeque<Ends>,
    /// Number of requests that left `over` because of their age.
    returned: u64,
}

/// Number of requests that ended until `at`, since the log began: a running sum, so that a place in a long queue is found
/// without passing all before it.
#[derive(Debug, Clone, Copy)]
struct Ends {
    at: Moment,
    total: u64,
}

impl WindowLog {
    /// A request leaves.
    pub(super) const fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A request that the server may have counted ended at `at`.
    pub(super) fn spend(&mut self, at: Moment, window: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        // Returning quota a little late is harmless, too early is not.
        let at = if self.over.len() < SLOTS as usize { at } else { at.rounded_up(window / SLOTS) };
        let place = match self.over.back() {
            Some(newest) if newest.at < at => self.over.len(),
            _ => self.over.partition_point(|end| end.at < at),
        };
        // Few: requests end almost in the order in which they return.
        self.over.range_mut(place..).for_each(|later| later.total += 1);
        if self.over.get(place).is_none_or(|end| end.at != at) {
            let before = place.checked_sub(1).and_then(|before| self.over.get(before));
            let total = before.map_or(self.returned, |end| end.total) + 1;
            self.over.insert(place, Ends { at, total });
        }
    }

    /// A request that the server did not count ended.
    pub(super) const fn refund(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Removes requests that ended a window ago. Returns their number.
    pub(super) fn settle(&mut self, now: Moment, window: Duration) -> u64 {
        let before = self.returned;
        while let Some(end) = self.over.pop_front_if(|end| end.at.after(window) <= now) {
            self.returned = end.total;
        }
        self.returned - before
    }

    pub(super) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Requests that the server may have counted, in flight or ended.
    pub(super) fn used(&self) -> u64 {
        self.in_flight + self.over_count()
    }

    /// The earliest time at which `count` (at least 1) requests will have returned: ended ones after their window,
    /// those in flight a window from now, then their successors after another window.
    pub(super) fn returned_at(&self, count: u64, now: Moment, window: Duration) -> Moment {
        let places = self.used().max(1);
        let (rounds, place) = (count.saturating_sub(1) / places, count.saturating_sub(1) % places);
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX).saturating_add(1);
        self.end_of(place).unwrap_or(now).after(window.saturating_mul(rounds))
    }

    /// When the request at this position, from 0, ended; `None` if it is in flight.
    fn end_of(&self, place: u64) -> Option<Moment> {
        let total = self.returned.checked_add(place)?;
        let place = self.over.partition_point(|end| end.total <= total);
        self.over.get(place).map(|end| end.at)
    }

    fn over_count(&self) -> u64 {
        self.over.back().map_or(0, |newest| newest.total - self.returned)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(seconds))
    }

    #[test]
    fn request_is_used_until_a_window_after_its_end() {
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
    fn quota_returns_in_the_order_of_ends() {
        let mut log = WindowLog::default();
        (0..3).for_each(|_| log.begin());
        log.spend(at(105), WINDOW);
        log.spend(at(103), WINDOW);
        let returned = |count| log.returned_at(count, at(106), WINDOW);
        assert_eq!([1, 2, 3].map(returned), [at(113), at(115), at(116)]);
        assert_eq!([4, 5, 7].map(returned), [at(123), at(125), at(133)]);
    }

    #[test]
    fn few_requests_return_each_at_its_own_time() {
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

    proptest! {
        #[test]
        fn places_are_those_of_a_sorted_list(steps in prop::collection::vec((0_u64..40, 0_u64..30), 1..80)) {
            let (mut log, mut ends, mut now) = (WindowLog::default(), Vec::new(), 1000);
            for (end, passed) in steps {
                log.begin();
                log.spend(at(now + end), WINDOW);
                ends.push(now + end);
                now += passed / 10;
                let before = ends.len();
                ends.retain(|end| end + 10 > now);
                ends.sort_unstable();
                prop_assert_eq!(log.settle(at(now), WINDOW), (before - ends.len()) as u64);
                prop_assert_eq!(log.used(), ends.len() as u64);
                for (place, end) in (0..).zip(&ends) {
                    prop_assert_eq!(log.returned_at(place + 1, at(now), WINDOW), at(*end + 10));
                }
            }
        }
    }

    #[test]
    fn many_ends_are_grouped_and_never_return_early() {
        let mut log = WindowLog::default();
        let end = |request: u64| Moment::from_unix(Duration::from_micros(100_000_000 + request * 50));
        for request in 0..100_000 {
            log.begin();
            // Unordered.
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
