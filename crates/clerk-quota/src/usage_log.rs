//! The starts and ends of a budget's requests: the count of what may be used of it.
//!
//! Clerk does not document how it counts. A request may be counted when it arrives, at some moment between its start
//! and its end, and for one window from then on. It therefore uses quota **from its start until one window after its
//! end**, which is never too low, whatever the limiter. A request that ended without a response may still be on its
//! way and counts [a second](LATE_ARRIVAL) longer.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;

/// How long after its end a request without a response may still arrive at Clerk.
///
/// Its caller gave up or its connection broke while it was on its way. It counts as if it had ended that much later.
pub const LATE_ARRIVAL: Duration = Duration::from_secs(1);

/// Slots per window. Requests in one slot count until the last of them expires.
const PARTS: u32 = 512;
/// Windows that are remembered: enough for a look-back over two windows from the start of a slow request.
const WINDOWS: u32 = 4;

/// Returns the requests that count, for a window of which only `weight` still applies, rounded up.
pub(super) fn weighed(requests: u64, weight: Duration, window: Duration) -> u64 {
    let part = (u128::from(requests) * weight.as_nanos()).div_ceil(window.as_nanos().max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// The starts and ends of a budget's requests over the last windows.
#[derive(Debug, Clone, Default)]
pub struct UsageLog {
    in_flight: u64,
    starts: Slots,
    ends: Slots,
    /// Ends without a response.
    late: Slots,
}

impl UsageLog {
    /// Records a request sent at `at`. `window` is the length of the budget's windows, here and below.
    pub fn start(&mut self, at: Moment, window: Duration) {
        self.in_flight += 1;
        self.starts.add(at, window);
    }

    /// Records the end at `at` of a request that may have been counted.
    pub fn end(&mut self, at: Moment, window: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.ends.add(at, window);
    }

    /// Records the end at `at` of a request without a response, which may still be counted [later](LATE_ARRIVAL).
    pub fn end_unanswered(&mut self, at: Moment, window: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.late.add(at, window);
    }

    /// Removes a request that started at `started` and was not counted: it was rejected or not sent.
    pub fn refund(&mut self, started: Moment) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.starts.remove(started);
    }

    /// Adds a request from before a restart that ended, or is assumed to have ended, at `ended`.
    pub fn restore(&mut self, started: Moment, ended: Moment, window: Duration) {
        self.starts.add(started, window);
        self.ends.add(ended, window);
    }

    /// Returns the requests that were in flight at any time in the `stretch` that ends at `now`.
    #[must_use]
    pub fn used(&self, now: Moment, stretch: Duration) -> u64 {
        let from = now.before(stretch);
        self.in_flight + self.ends.after(from) + self.late.after(from.before(LATE_ARRIVAL))
    }

    /// The same as [`UsageLog::used`] without [`LATE_ARRIVAL`], which matches a log that is shared with other
    /// processes.
    #[must_use]
    pub fn told(&self, now: Moment, stretch: Duration) -> u64 {
        let from = now.before(stretch);
        self.in_flight + self.ends.after(from) + self.late.after(from)
    }

    /// Returns what a sliding counter may count at `now`, whose current window of its grid began at `start`.
    ///
    /// It counts all of that window, and of the previous one the share that `weight` is of a window.
    #[must_use]
    pub fn used_by_counter(&self, now: Moment, window: Duration, start: Moment, weight: Duration) -> u64 {
        let present = self.used(now, now.since(start));
        let both = self.used(now, now.since(start).saturating_add(window));
        let before = both.saturating_sub(present);
        present + weighed(before, weight, window)
    }

    /// Returns the requests that started from `from` on and before `to`.
    #[must_use]
    pub fn started(&self, from: Moment, to: Moment) -> u64 {
        self.starts.between(from, to)
    }

    /// Returns the ends after `after`, oldest first, as the last end of a slot and its number of requests.
    pub fn ends(&self, after: Moment) -> impl Iterator<Item = (Moment, u64)> {
        let late = self.late.counts().map(|(last, requests)| (last.after(LATE_ARRIVAL), requests));
        let ends = self.ends.counts();
        let mut ends: Vec<_> = ends.chain(late).filter(|(end, _)| *end > after).collect();
        ends.sort_unstable();
        ends.into_iter()
    }

    /// Returns whether no request uses quota at `now`.
    #[must_use]
    pub fn is_over(&self, now: Moment, window: Duration) -> bool {
        self.used(now, window) == 0
    }
}

/// Requests by time, in order. Running sums, since each request that ends reads them and a busy budget has thousands of
/// slots.
#[derive(Debug, Clone, Default)]
struct Slots {
    /// No two overlap.
    slots: VecDeque<Slot>,
    /// Requests of removed slots.
    dropped: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    first: Moment,
    last: Moment,
    /// Requests of this slot and of all earlier ones.
    total: u64,
}

impl Slot {
    /// Returns whether it counts a request at `at` that is not before it. A slot covers at least a `part` of a window.
    fn takes(&self, at: Moment, part: Duration) -> bool {
        at.since(self.first) < part || at <= self.last
    }

    fn count(&mut self, at: Moment) {
        self.last = self.last.max(at);
        self.total += 1;
    }
}

impl Slots {
    fn add(&mut self, at: Moment, window: Duration) {
        let part = window / PARTS;
        match self.slots.back_mut() {
            // Almost always: requests are almost in the order of time.
            Some(newest) if newest.first <= at && newest.takes(at, part) => newest.count(at),
            _ => self.add_to_any(at, part),
        }
        let newest = self.slots.back().map_or(at, |slot| slot.last);
        while let Some(slot) =
            self.slots.front().filter(|slot| slot.last.after(window.saturating_mul(WINDOWS)) < newest)
        {
            self.dropped = slot.total;
            self.slots.pop_front();
        }
    }

    fn add_to_any(&mut self, at: Moment, part: Duration) {
        let place = self.begun_by(at);
        let slot = place.checked_sub(1).and_then(|before| self.slots.get_mut(before));
        let later = if let Some(slot) = slot.filter(|slot| slot.takes(at, part)) {
            slot.count(at);
            place
        } else {
            let total = self.total_before(place) + 1;
            self.slots.insert(place, Slot { first: at, last: at, total });
            place + 1
        };
        self.slots.range_mut(later..).for_each(|slot| slot.total += 1);
    }

    fn remove(&mut self, at: Moment) {
        let place = self.begun_by(at);
        let Some(before) = place.checked_sub(1) else { return };
        if self.total_before(place) > self.total_before(before) {
            self.slots.range_mut(before..).for_each(|slot| slot.total -= 1);
        }
    }

    /// Returns the number of slots that began by `at`. Almost always all: requests come in the order of time.
    fn begun_by(&self, at: Moment) -> usize {
        if self.slots.back().is_some_and(|newest| newest.first <= at) {
            return self.slots.len();
        }
        self.slots.partition_point(|slot| slot.first <= at)
    }

    fn after(&self, moment: Moment) -> u64 {
        self.total_before(self.slots.len()) - self.total_before(self.slots.partition_point(|slot| slot.last <= moment))
    }

    /// Returns the requests of slots that overlap the time.
    fn between(&self, from: Moment, to: Moment) -> u64 {
        let begin = self.slots.partition_point(|slot| slot.last < from);
        let is_to_the_end = self.slots.back().is_some_and(|newest| newest.first < to);
        let end = if is_to_the_end { self.slots.len() } else { self.slots.partition_point(|slot| slot.first < to) };
        self.total_before(end).saturating_sub(self.total_before(begin))
    }

    /// The last moment of each slot, and its requests.
    fn counts(&self) -> impl Iterator<Item = (Moment, u64)> {
        self.slots.iter().scan(self.dropped, |before, slot| {
            let requests = slot.total - std::mem::replace(before, slot.total);
            Some((slot.last, requests))
        })
    }

    fn total_before(&self, place: usize) -> u64 {
        place.checked_sub(1).and_then(|before| self.slots.get(before)).map_or(self.dropped, |slot| slot.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Moment {
        Moment::from_unix(Duration::from_millis(1_000_000_000 + millis))
    }

    #[test]
    fn request_uses_quota_until_a_window_after_its_end() {
        let mut log = UsageLog::default();
        log.start(at(0), WINDOW);
        assert_eq!(log.used(at(60_000), WINDOW), 1, "it is in flight");
        log.end(at(60_000), WINDOW);
        assert_eq!(log.used(at(69_999), WINDOW), 1);
        assert_eq!(log.used(at(70_000), WINDOW), 0);
    }

    #[test]
    fn request_without_response_counts_a_second_longer() {
        let mut log = UsageLog::default();
        log.start(at(0), WINDOW);
        log.end_unanswered(at(30), WINDOW);
        assert_eq!((log.used(at(11_029), WINDOW), log.told(at(10_029), WINDOW)), (1, 1));
        assert_eq!((log.used(at(11_030), WINDOW), log.told(at(10_030), WINDOW)), (0, 0));
        assert!(log.ends(at(0)).eq([(at(1_030), 1)]));
    }

    #[test]
    fn refund_removes_a_request_that_was_not_counted() {
        let mut log = UsageLog::default();
        log.start(at(0), WINDOW);
        log.start(at(5), WINDOW);
        log.refund(at(5));
        assert_eq!((log.used(at(10), WINDOW), log.started(at(0), at(10))), (1, 1));
    }

    /// Slots that are summed each time, as `(first, last, requests)`.
    #[derive(Default)]
    struct Plain(Vec<(Moment, Moment, u64)>);

    impl Plain {
        fn find(&mut self, at: Moment) -> Option<&mut (Moment, Moment, u64)> {
            self.0.iter_mut().rfind(|(first, ..)| *first <= at)
        }

        fn add(&mut self, at: Moment) {
            match self.find(at) {
                Some((first, last, requests)) if at.since(*first) < WINDOW / PARTS || at <= *last => {
                    *last = at.max(*last);
                    *requests += 1;
                }
                _ => self.0.push((at, at, 1)),
            }
            self.0.sort_unstable();
            let newest = self.0.last().map_or(at, |(_, last, _)| *last);
            self.0.retain(|(_, last, _)| last.after(WINDOW * WINDOWS) >= newest);
        }

        fn sum(&self, fits: impl Fn(Moment, Moment) -> bool) -> u64 {
            self.0.iter().filter(|(first, last, _)| fits(*first, *last)).map(|(.., requests)| requests).sum()
        }
    }

    proptest! {
        #[test]
        fn sums_equal_those_of_all_slots(
            steps in proptest::collection::vec((0_u64..60_000, 0_u8..4), 1..300),
            queries in proptest::collection::vec((0_u64..60_000, 0_u64..60_000), 1..20),
        ) {
            let (mut slots, mut plain) = (Slots::default(), Plain::default());
            for (millis, step) in steps {
                if step == 0 {
                    slots.remove(at(millis));
                    if let Some((.., requests)) = plain.find(at(millis)) {
                        *requests = requests.saturating_sub(1);
                    }
                } else {
                    slots.add(at(millis), WINDOW);
                    plain.add(at(millis));
                }
            }
            for (from, to) in queries.into_iter().map(|(from, to)| (at(from), at(to))) {
                prop_assert_eq!(slots.after(from), plain.sum(|_, last| last > from));
                prop_assert_eq!(slots.between(from, to), plain.sum(|first, last| last >= from && first < to));
            }
            prop_assert!(slots.counts().eq(plain.0.iter().map(|(_, last, requests)| (*last, *requests))));
        }

        /// Compares with a list of every request, in any order of ends.
        #[test]
        fn use_is_never_below_the_exact_count_and_hardly_above(
            requests in proptest::collection::vec((0_u64..30_000, 0_u64..9_000), 1..200),
            asked in 0_u64..50_000,
        ) {
            let mut events: Vec<(u64, bool)> =
                requests.iter().flat_map(|(start, took)| [(*start, true), (start + took, false)]).collect();
            events.sort_by_key(|(time, starts)| (*time, !starts));
            let mut log = UsageLog::default();
            for (time, starts) in events.iter().filter(|(time, _)| *time <= asked) {
                if *starts { log.start(at(*time), WINDOW) } else { log.end(at(*time), WINDOW) }
            }
            let used = |from: u64| requests.iter().filter(|(start, took)| {
                let end = start + took;
                *start <= asked && (end > asked || end + 10_000 > from)
            }).count() as u64;
            let found = log.used(at(asked), WINDOW);
            prop_assert!(found >= used(asked), "{found} of {}", used(asked));
            prop_assert!(found <= used(asked.saturating_sub(20)), "{found} of {}", used(asked));
        }
    }
}
