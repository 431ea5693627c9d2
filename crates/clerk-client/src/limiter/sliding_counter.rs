//! A model of a server that counts with a sliding counter: the requests in the current window of its grid, plus those
//! of the previous window weighted by the part that lies within the last window. Pure.
//!
//! The grid is aligned to the epoch by the server's clock, which may differ from ours, and a request is counted at some
//! time between its start and its end. So there are two estimates: the most that the server can have counted (to admit
//! requests) and the least (to find what it would have rejected).

use std::collections::VecDeque;
use std::time::Duration;

use clerk_quota::Moment;

/// Assumed maximum difference of the clocks, in time and as a part of a window.
const LARGEST_OFFSET: Duration = Duration::from_secs(1);
const OFFSET_PARTS: u32 = 10;

/// Offsets tried to either side. Estimates also cover all offsets in between, which costs at most 1 % of the limit.
const OFFSET_STEPS: i32 = 8;

/// Moments tried between start and end of a request; and the part of the limit by which an estimate must exceed it, to
/// cover the moments in between.
const FLIGHT_STEPS: i64 = 4;
const SURE_PART: f64 = 0.01;

/// Number of ends stored exactly; further ones are rounded up by at most this part of a window.
const EXACT_ENDS: u32 = 2000;

/// Windows simulated ahead for requests far back in the queue.
const FORESEEN_WINDOWS: u32 = 64;

/// Tolerance for rounding, in requests.
const ROUNDING: f64 = 1e-9;

/// Ends of our requests within the last two windows.
#[derive(Debug, Clone, Default)]
pub(super) struct SlidingCounterModel {
    /// Oldest first.
    ends: VecDeque<EndTotal>,
    /// Number of requests removed because of their age.
    removed: u64,
    /// Until then, some counted requests may have reached the server much earlier than they ended.
    unsure_until: Moment,
    /// One bit for each clock offset at which a sliding counter is ruled out.
    refuted: u32,
}

/// Number of requests that ended until `at`, since the log began.
#[derive(Debug, Clone, Copy)]
struct EndTotal {
    at: Moment,
    total: u64,
}

impl SlidingCounterModel {
    /// A request that the server may have counted has ended.
    pub(super) fn push(&mut self, started: Moment, ended: Moment, window: Duration) {
        if ended.since(started) > longest_flight(window) {
            self.unsure_until = self.unsure_until.max(ended.after(window * 2));
        }
        let is_exact = self.ends.len() < EXACT_ENDS as usize;
        let at = if is_exact { ended } else { ended.rounded_up(window / EXACT_ENDS) };
        if let Some(newest) = self.ends.back_mut().filter(|newest| newest.at == at) {
            newest.total += 1;
            return;
        }
        let place = self.ends.partition_point(|end| end.at < at);
        // Requests end in order of time, so this loop is empty except for requests from before a restart.
        for later in self.ends.range_mut(place..) {
            later.total += 1;
        }
        if self.ends.get(place).is_none_or(|end| end.at != at) {
            let total = self.total_before(place) + 1;
            self.ends.insert(place, EndTotal { at, total });
        }
    }

    /// Removes ends too old for any estimate.
    pub(super) fn settle(&mut self, now: Moment, window: Duration) {
        while let Some(end) = self.ends.front().filter(|end| end.at.after(window * 2) < now) {
            self.removed = end.total;
            self.ends.pop_front();
        }
    }

    /// Whether the server can have counted this many requests, in flight or ended, rounded up. Runs for each response: one
    /// estimate is usually enough, or none.
    pub(super) fn may_reach(&self, requests: u64, in_flight: u64, now: Moment, window: Duration) -> bool {
        let Some(over) = requests.checked_sub(in_flight).filter(|over| *over > 0) else { return true };
        Estimate::largest(self, now, window).any(|estimate| estimate.sum().ceil() >= over as f64)
    }

    /// Requests that ended within the last window.
    pub(super) fn ended_within(&self, now: Moment, window: Duration) -> u64 {
        self.since(now.before(window))
    }

    pub(super) fn is_empty(&self, now: Moment, window: Duration) -> bool {
        self.since(now.before(window * 2)) == 0
    }

    /// Records that the server accepted all requests that ended until `now`. Returns whether no sliding counter would
    /// have: for each possible offset of its clock, it would once have counted more than the limit, whenever the
    /// requests reached it.
    pub(super) fn is_refuted(&mut self, limit: u64, now: Moment, window: Duration) -> bool {
        if now < self.unsure_until {
            return false;
        }
        let (largest, early) = (nanos(largest_offset(window)), nanos(longest_flight(window)));
        let half_step = largest / i64::from(2 * OFFSET_STEPS);
        let surely = limit as f64 * (1.0 + SURE_PART) + ROUNDING;
        for step in -OFFSET_STEPS..=OFFSET_STEPS {
            // A request that arrived before its end has the effect of a later window boundary.
            let from = largest * i64::from(step) / i64::from(OFFSET_STEPS) - half_step;
            let tried = (0..=FLIGHT_STEPS).map(|part| from + (early + 2 * half_step) * part / FLIGHT_STEPS);
            let least = tried.map(|phase| Estimate::at(self, now, window, phase).sum()).fold(f64::MAX, f64::min);
            self.refuted |= u32::from(least > surely) << (step + OFFSET_STEPS);
        }
        self.refuted == (1 << (2 * OFFSET_STEPS + 1)) - 1
    }

    /// Starts collecting evidence again.
    pub(super) const fn clear_refuted(&mut self) {
        self.refuted = 0;
    }

    /// When the last of `requests` may leave beside those in flight, if the server certainly accepts it; `None` for
    /// now. The requests before it are assumed to leave as soon as they may.
    pub(super) fn room_at(
        &self,
        requests_and_in_flight: (u64, u64),
        limit: u64,
        now: Moment,
        window: Duration,
    ) -> Option<Moment> {
        self.room_within(requests_and_in_flight, limit, now, window, f64::INFINITY)
    }

    /// The same, but only whether it is `enough` windows away or more: then any moment after that.
    pub(super) fn room_within(
        &self,
        (requests, in_flight): (u64, u64),
        limit: u64,
        now: Moment,
        window: Duration,
        enough: f64,
    ) -> Option<Moment> {
        // No estimate exceeds the sum of all requests that it covers.
        if requests + in_flight + self.since(now.before(window * 2)) <= limit {
            return None;
        }
        let wait = |interval| {
            let waits = Estimate::covering(self, now, window, interval).map(|mut estimate| {
                estimate.current += in_flight as f64;
                estimate.room_after(requests as f64, limit as f64)
            });
            waits.fold(0.0, f64::max)
        };
        let (first, last) = (-OFFSET_STEPS, OFFSET_STEPS);
        let bound = wait((phase(first, window), phase(last, window)));
        // Where the wait is enough at all, it mostly is at the last offsets.
        let at_last = if bound >= enough { wait((phase(last - 1, window), phase(last, window))) } else { 0.0 };
        let windows = if bound > 0.0 { longest_wait(&wait, window, (first, last), at_last, enough) } else { 0.0 };
        // Rounded up, so that a check at that moment finds room.
        (windows > 0.0).then(|| now.after(window.mul_f64(windows) + Duration::from_micros(1)))
    }

    /// Requests that ended at this moment or later.
    fn since(&self, from: Moment) -> u64 {
        if self.ends.front().is_none_or(|oldest| oldest.at >= from) {
            return self.total_before(self.ends.len()) - self.removed;
        }
        let place = self.ends.partition_point(|end| end.at < from);
        self.total_before(self.ends.len()) - self.total_before(place)
    }

    fn total_before(&self, place: usize) -> u64 {
        place.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(self.removed, |end| end.total)
    }
}

/// The largest assumed difference of the clocks.
fn largest_offset(window: Duration) -> Duration {
    LARGEST_OFFSET.min(window / OFFSET_PARTS)
}

/// How long before its end a request may have reached the server, for the least estimate to hold.
fn longest_flight(window: Duration) -> Duration {
    largest_offset(window) / 2
}

/// Returns the longest wait over all intervals between these steps, or `known` if that is longer. Ends early with a wait
/// that is `enough`.
///
/// The wait of a wider interval is never shorter than those within it. So one look at all offsets decides most cases, and
/// few need a look at each.
fn longest_wait(
    wait: &impl Fn((i64, i64)) -> f64,
    window: Duration,
    (from, to): (i32, i32),
    known: f64,
    enough: f64,
) -> f64 {
    if known >= enough {
        return known;
    }
    let bound = wait((phase(from, window), phase(to, window)));
    if bound <= known || to - from <= 1 {
        return bound.max(known);
    }
    let middle = from.midpoint(to);
    let later = longest_wait(wait, window, (middle, to), known, enough);
    longest_wait(wait, window, (from, middle), later, enough)
}

/// The offset at a step.
fn phase(step: i32, window: Duration) -> i64 {
    nanos(largest_offset(window)) * i64::from(step) / i64::from(OFFSET_STEPS)
}

/// Possible positions of the server's grid in nanoseconds: intervals that cover every offset of its clock.
fn phases(window: Duration) -> impl Iterator<Item = (i64, i64)> {
    (-OFFSET_STEPS..OFFSET_STEPS).map(move |step| (phase(step, window), phase(step + 1, window)))
}

/// At most half of the range, which lasts until the year 2116, so that sums fit.
fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX).min(i64::MAX / 2)
}

/// The server's two counters at one moment.
#[derive(Debug, Clone, Copy)]
struct Estimate {
    previous: f64,
    current: f64,
    /// Weight of the previous window: 1 when the current one begins, 0 when it ends.
    weight: f64,
}

impl Estimate {
    /// Estimates, at least one of which bounds the count at any offset of the server's clock, now and later.
    fn largest(model: &SlidingCounterModel, now: Moment, window: Duration) -> impl Iterator<Item = Self> {
        phases(window).flat_map(move |interval| Self::covering(model, now, window, interval))
    }

    /// The same for an interval of offsets, the smallest and the largest.
    ///
    /// The sum is `weight * since(border - window) + (1 - weight) * since(border)`. With a later border, both counts
    /// fall in steps, where it passes the end of a request, and the weight rises. So the counts at the early end of an
    /// interval with the weight at its late end are never too low.
    fn covering(
        model: &SlidingCounterModel,
        now: Moment,
        window: Duration,
        (early, late): (i64, i64),
    ) -> impl Iterator<Item = Self> {
        let length = nanos(window).max(1);
        let latest = Self::at(model, now, window, early);
        let elapsed = (nanos(now.since_epoch()) - early).rem_euclid(length);
        let left = elapsed - (late - early);
        let weight = |elapsed: i64| 1.0 - elapsed as f64 / length as f64;
        // The border may be just ahead: then the window before it has nearly passed.
        let ahead = (left < 0).then(|| {
            let oldest = Self::from_border(model, now.before(window), window);
            Self { weight: weight(left.rem_euclid(length)), ..oldest }
        });
        [Some(Self { weight: weight(left.max(0)), ..latest }), ahead].into_iter().flatten()
    }

    fn from_border(model: &SlidingCounterModel, border: Moment, window: Duration) -> Self {
        let current = model.since(border);
        let previous = model.since(border.before(window)) - current;
        Self { previous: previous as f64, current: current as f64, weight: 1.0 }
    }

    fn at(model: &SlidingCounterModel, now: Moment, window: Duration, phase: i64) -> Self {
        let length = nanos(window).max(1);
        let elapsed = (nanos(now.since_epoch()) - phase).rem_euclid(length);
        let border = now.before(Duration::from_nanos(u64::try_from(elapsed).unwrap_or(0)));
        Self { weight: 1.0 - elapsed as f64 / length as f64, ..Self::from_border(model, border, window) }
    }

    fn sum(&self) -> f64 {
        self.previous * self.weight + self.current
    }

    /// Windows until there is room for `requests`, if those before the last leave as soon as they may.
    fn room_after(mut self, mut requests: f64, limit: f64) -> f64 {
        let mut windows = 0.0;
        for _ in 0..FORESEEN_WINDOWS {
            let free = limit - self.sum();
            if free >= requests - ROUNDING {
                return windows;
            }
            // What this window has room for once all of the previous one has returned. It is whole, while sums that the
            // weight is part of are not: a rounding error must not cost a request.
            let sent = (limit - self.current).max(0.0);
            if sent >= requests {
                return windows + (requests - free) / self.previous;
            }
            requests -= sent;
            windows += self.weight;
            self = Self { previous: self.current + sent, current: 0.0, weight: 1.0 };
        }
        windows + requests / limit.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    /// On a grid with the epoch at 0.
    fn at(millis: u64) -> Moment {
        Moment::from_unix(Duration::from_millis(1_000_000 + millis))
    }

    fn model(ends: &[(u64, u64)]) -> SlidingCounterModel {
        let mut model = SlidingCounterModel::default();
        for (end, requests) in ends {
            (0..*requests).for_each(|_| model.push(at(*end), at(*end), WINDOW));
        }
        model
    }

    fn room_at(model: &SlidingCounterModel, requests: u64, now: u64) -> Option<u64> {
        let room = model.room_at((requests, 0), 100, at(now), WINDOW)?;
        u64::try_from(room.since(at(0)).as_millis()).ok()
    }

    #[test]
    fn burst_returns_evenly_after_the_latest_border() {
        let model = model(&[(5_000, 100)]);
        // The border is at 11 s at the latest; from then on, ten return each second.
        assert_eq!(room_at(&model, 1, 6_000), Some(11_100));
        assert_eq!(room_at(&model, 40, 6_000), Some(15_000));
        assert_eq!(room_at(&model, 40, 15_001), None);
        assert_eq!(room_at(&model, 41, 15_001), Some(15_100));
    }

    #[test]
    fn offset_between_two_tried_ones_is_covered() {
        // By a clock that is 60 ms late, 100 lie at the very start of the previous window, and 50.6 of them still
        // count.
        let model = model(&[(60, 100)]);
        assert!(model.may_reach(51, 0, at(15_000), WINDOW) && !model.may_reach(53, 0, at(15_000), WINDOW));
        assert_eq!(room_at(&model, 48, 15_000), None);
        assert!(room_at(&model, 50, 15_000).is_some());
    }

    #[test]
    fn border_just_ahead_is_covered() {
        // By a clock that is 60 ms late, the border is at 10.060 s: until then the previous window counts in full.
        let model = model(&[(61, 50), (9_000, 50)]);
        assert!(room_at(&model, 1, 10_050).is_some());
    }

    #[test]
    fn requests_far_back_wait_for_several_windows() {
        let model = model(&[(5_000, 100)]);
        let waits: Vec<_> = [100, 200, 1_000].map(|behind| room_at(&model, behind, 6_000).unwrap()).into();
        assert!(waits.is_sorted(), "{waits:?}");
        assert!((100_000..125_000).contains(&waits[2]), "{waits:?}");
    }

    #[test]
    fn may_reach_agrees_with_the_highest_estimate() {
        let model = model(&[(1, 20), (4_000, 30), (9_500, 20), (13_000, 10)]);
        for now in (13_000..35_000).step_by(50) {
            let highest = Estimate::largest(&model, at(now), WINDOW).map(|it| it.sum()).fold(0.0, f64::max);
            assert!(highest <= model.since(at(now).before(WINDOW * 2)) as f64, "{now}");
            for (requests, in_flight) in [(0, 0), (1, 0), (40, 0), (60, 7), (81, 3)] {
                let is_reached = highest.ceil() + in_flight as f64 >= requests as f64;
                assert_eq!(model.may_reach(requests, in_flight, at(now), WINDOW), is_reached, "{now} {requests}");
            }
        }
    }

    #[test]
    fn requests_in_flight_count_in_full() {
        let model = SlidingCounterModel::default();
        assert_eq!(model.room_at((1, 99), 100, at(0), WINDOW), None);
        assert!(model.room_at((1, 100), 100, at(0), WINDOW).is_some_and(|at_| at_ > at(9_000)));
        assert!(model.may_reach(3, 3, at(0), WINDOW) && !model.may_reach(4, 3, at(0), WINDOW));
    }

    #[test]
    fn only_what_no_clock_offset_explains_refutes_a_counter() {
        // 100 in the middle of a window, and more in the middle of the next one: there half of the 100 count, give or
        // take a tenth or two.
        let refuted = |more: u64| model(&[(5_000, 100), (15_000, more)]).is_refuted(100, at(15_000), WINDOW);
        assert_eq!([50, 60, 70].map(refuted), [false, false, true]);
        let mut late = model(&[(5_000, 100), (15_000, 70)]);
        late.push(at(14_000), at(15_000), WINDOW);
        assert!(!late.is_refuted(100, at(15_000), WINDOW), "it may have arrived long before");
    }

    #[test]
    fn evidence_adds_up_over_windows() {
        // With a late border the first 100 weigh too much in the second window, with an early one in the third.
        let mut counter = model(&[(5_000, 100), (15_000, 55)]);
        assert!(!counter.is_refuted(100, at(15_000), WINDOW));
        let some = counter.refuted;
        assert!(some > 0);
        (0..60).for_each(|_| counter.push(at(25_000), at(25_000), WINDOW));
        assert!(!counter.is_refuted(100, at(25_000), WINDOW));
        (0..30).for_each(|_| counter.push(at(25_000), at(25_000), WINDOW));
        assert!(counter.is_refuted(100, at(25_000), WINDOW));
        counter.clear_refuted();
        assert_eq!(counter.refuted, 0);
    }

    #[test]
    fn order_of_ends_is_irrelevant_and_old_ones_are_removed() {
        let ends = |order: &[u64]| {
            let mut model = SlidingCounterModel::default();
            order.iter().for_each(|end| model.push(at(*end), at(*end), WINDOW));
            model
        };
        let (sorted, mixed) = (ends(&[1, 1, 500, 700, 9_000]), ends(&[700, 1, 9_000, 500, 1]));
        for from in [0, 1, 2, 600, 9_000, 9_001] {
            assert_eq!(sorted.since(at(from)), mixed.since(at(from)), "{from}");
        }
        let mut model = mixed;
        model.settle(at(20_600), WINDOW);
        assert_eq!((model.since(at(0)), model.since(at(701)), model.ends.len()), (2, 1, 2));
        model.settle(at(60_000), WINDOW);
        assert!(model.is_empty(at(60_000), WINDOW));
    }

    #[test]
    fn many_requests_need_few_entries() {
        let mut model = SlidingCounterModel::default();
        for request in 0..100_000 {
            let end = Moment::from_unix(Duration::from_micros(1_000_000_000 + request * 100));
            model.push(end, end, WINDOW);
        }
        assert!(model.ends.len() <= 2 * EXACT_ENDS as usize, "{}", model.ends.len());
        assert_eq!(model.since(at(0)), 100_000);
    }

    /// By a look at each interval of offsets.
    fn longest_of_all(model: &SlidingCounterModel, (requests, in_flight): (u64, u64), now: u64) -> Option<Moment> {
        let waits = Estimate::largest(model, at(now), WINDOW).map(|mut estimate| {
            estimate.current += in_flight as f64;
            estimate.room_after(requests as f64, 100.0)
        });
        let windows = waits.fold(0.0, f64::max);
        (windows > 0.0).then(|| at(now).after(WINDOW.mul_f64(windows) + Duration::from_micros(1)))
    }

    #[test]
    fn rounding_costs_no_request_of_a_later_window() {
        let model = model(&[(9_000, 5), (9_375, 57), (19_375, 15)]);
        let room = model.room_at((100, 0), 100, at(28_569), WINDOW);
        assert_eq!(room, longest_of_all(&model, (100, 0), 28_569));
        assert_eq!(room, Some(at(31_000).after(Duration::from_micros(1))));
    }

    proptest! {
        #[test]
        fn wait_is_the_longest_of_all_intervals(
            ends in prop::collection::vec((0_u64..20_000, 1_u64..30), 0..12),
            requests in 1_u64..150,
            in_flight in 0_u64..20,
            now in 19_000_u64..32_000,
        ) {
            let mut ends = ends;
            ends.sort_unstable();
            let model = model(&ends);
            let expected = longest_of_all(&model, (requests, in_flight), now);
            let room = model.room_at((requests, in_flight), 100, at(now), WINDOW);
            // What needs no estimate has room now.
            let is_sure = requests + in_flight + model.since(at(now).before(WINDOW * 2)) <= 100;
            prop_assert_eq!(room, expected.filter(|_| !is_sure));
            let soon = |room: Option<Moment>| room.map(|room| room.min(at(now).after(WINDOW / 64)));
            prop_assert_eq!(soon(model.room_within((requests, in_flight), 100, at(now), WINDOW, 1.0 / 64.0)), soon(room));
        }
    }
}
