//! The five limiters, as pure functions of the time passed in.

use std::collections::VecDeque;
use std::time::Duration;

use super::clock::Epoch;
use super::limits::{LONGEST_WINDOW, Quota, SHORTEST_WINDOW};
use super::options::LimiterKind;

/// The limiter's decision on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether the request is admitted. A rejected request consumes nothing.
    pub(super) allowed: bool,
    /// Requests that an unused budget allows at once.
    pub(super) limit: u32,
    /// Remaining requests after this one.
    pub(super) remaining: u32,
    /// Length of the window.
    pub(super) window: Duration,
    /// Fixed window and sliding counter: time until the current window ends. Sliding window: until the oldest counted
    /// request leaves it. Token bucket: until it is full.
    pub(super) reset_after: Duration,
    /// Time until the next request is admitted; zero if one is admitted now.
    pub(super) retry_after: Duration,
}

/// One budget: a quota and its use.
#[derive(Debug)]
pub(super) struct Meter {
    limit: u32,
    window: Duration,
    used: Used,
}

#[derive(Debug)]
enum Used {
    Fixed {
        start: Epoch,
        count: u32,
    },
    FixedFromFirst {
        /// When the first request of the current window was counted; `None` between windows.
        start: Option<Epoch>,
        count: u32,
    },
    /// Counts of the current window of the grid and of the previous one.
    SlidingCounter {
        start: Epoch,
        previous: u32,
        current: u32,
    },
    /// Times of the counted requests, oldest first; at most `limit`.
    Sliding {
        counted: VecDeque<Epoch>,
    },
    /// In the units of `level`, a request costs `window` nanoseconds and each nanosecond adds `limit`. Integers avoid
    /// rounding errors, however long it runs.
    Tokens {
        capacity: u32,
        level: u128,
        at: Epoch,
    },
}

impl Meter {
    pub(super) fn new(kind: LimiterKind, quota: Quota, now: Epoch) -> Self {
        let window = quota.window.clamp(SHORTEST_WINDOW, LONGEST_WINDOW);
        let used = match kind {
            LimiterKind::FixedWindow => Used::Fixed { start: grid_start(now, window), count: 0 },
            LimiterKind::FixedFromFirst => Used::FixedFromFirst { start: None, count: 0 },
            LimiterKind::SlidingCounter => {
                Used::SlidingCounter { start: grid_start(now, window), previous: 0, current: 0 }
            }
            LimiterKind::SlidingWindow => Used::Sliding { counted: VecDeque::new() },
            LimiterKind::TokenBucket { .. } => {
                let capacity = quota.burst.unwrap_or(quota.limit);
                Used::Tokens { capacity, level: u128::from(capacity) * window.as_nanos(), at: now }
            }
        };
        Self { limit: quota.limit, window, used }
    }

    /// Counts one request at `now` if it is admitted. `now` must not run backwards.
    pub(super) fn take(&mut self, now: Epoch) -> Verdict {
        self.expire(now);
        let allowed = match &mut self.used {
            Used::Fixed { count, .. } => {
                let allowed = *count < self.limit;
                *count += u32::from(allowed);
                allowed
            }
            Used::FixedFromFirst { start, count } => {
                let allowed = *count < self.limit;
                if allowed {
                    start.get_or_insert(now);
                    *count += 1;
                }
                allowed
            }
            Used::SlidingCounter { start, previous, current } => {
                let weight = weight(*start, self.window, now);
                let allowed = counter_room(self.limit, self.window, *previous, *current, weight) > 0;
                *current += u32::from(allowed);
                allowed
            }
            Used::Sliding { counted } => {
                let allowed = counted.len() < self.limit as usize;
                if allowed {
                    counted.push_back(now);
                }
                allowed
            }
            Used::Tokens { level, .. } => {
                let cost = self.window.as_nanos();
                let allowed = *level >= cost;
                if allowed {
                    *level -= cost;
                }
                allowed
            }
        };
        self.verdict(allowed, now)
    }

    /// Returns whether the budget is unused at `now`, so that it can be dropped.
    pub(super) fn is_untouched(&mut self, now: Epoch) -> bool {
        self.expire(now);
        match &self.used {
            Used::Fixed { count, .. } | Used::FixedFromFirst { count, .. } => *count == 0,
            Used::SlidingCounter { previous, current, .. } => *previous == 0 && *current == 0,
            Used::Sliding { counted } => counted.is_empty(),
            Used::Tokens { capacity, level, .. } => *level == u128::from(*capacity) * self.window.as_nanos(),
        }
    }

    /// Frees the quota of requests that have expired since the last call.
    fn expire(&mut self, now: Epoch) {
        match &mut self.used {
            Used::Fixed { start, count } => {
                let current = grid_start(now, self.window);
                if current > *start {
                    *start = current;
                    *count = 0;
                }
            }
            Used::FixedFromFirst { start, count } => {
                if start.is_some_and(|start| start + self.window <= now) {
                    *start = None;
                    *count = 0;
                }
            }
            Used::SlidingCounter { start, previous, current } => {
                let grid = grid_start(now, self.window);
                if grid > *start {
                    *previous = if grid == *start + self.window { *current } else { 0 };
                    *current = 0;
                    *start = grid;
                }
            }
            Used::Sliding { counted } => {
                while counted.front().is_some_and(|oldest| *oldest + self.window <= now) {
                    counted.pop_front();
                }
            }
            Used::Tokens { capacity, level, at } => {
                let refill = now.saturating_sub(*at).as_nanos() * u128::from(self.limit);
                *level = (*level + refill).min(u128::from(*capacity) * self.window.as_nanos());
                *at = (*at).max(now);
            }
        }
    }

    fn verdict(&self, allowed: bool, now: Epoch) -> Verdict {
        let (limit, remaining, reset_after, until_one) = match &self.used {
            Used::Fixed { start, count } => {
                let reset = (*start + self.window).saturating_sub(now);
                (self.limit, self.limit - count, reset, reset)
            }
            Used::FixedFromFirst { start, count } => {
                let reset = start.map_or(self.window, |start| (start + self.window).saturating_sub(now));
                (self.limit, self.limit - count, reset, reset)
            }
            Used::SlidingCounter { start, previous, current } => {
                let weight = weight(*start, self.window, now);
                let remaining = counter_room(self.limit, self.window, *previous, *current, weight);
                let next_at = self.counter_room_at(*start, *previous, *current);
                let reset = (*start + self.window).saturating_sub(now);
                (self.limit, remaining, reset, next_at.map_or(self.window, |at| at.saturating_sub(now)))
            }
            Used::Sliding { counted } => {
                let reset = counted.front().map_or(self.window, |oldest| (*oldest + self.window).saturating_sub(now));
                let used = u32::try_from(counted.len()).unwrap_or(u32::MAX);
                (self.limit, self.limit - used, reset, reset)
            }
            Used::Tokens { capacity, level, .. } => {
                let cost = self.window.as_nanos();
                let remaining = u32::try_from(level / cost).unwrap_or(u32::MAX);
                let full = u128::from(*capacity) * cost;
                (*capacity, remaining, self.time_for(full - level), self.time_for(cost.saturating_sub(*level)))
            }
        };
        let retry_after = if remaining > 0 { Duration::ZERO } else { until_one };
        Verdict { allowed, limit, remaining, window: self.window, reset_after, retry_after }
    }

    /// Returns when a full sliding counter admits the next request, if none is counted until then.
    ///
    /// `None` with a limit of 0.
    fn counter_room_at(&self, start: Epoch, previous: u32, current: u32) -> Option<Epoch> {
        // The largest overlap with the previous window, in nanoseconds, that leaves room for `current` and one
        // request.
        let overlap = |previous: u32, current: u32| {
            let free = u128::from(self.limit.checked_sub(current)?.checked_sub(1)?);
            let nanos = free * self.window.as_nanos() / u128::from(previous.max(1));
            Some(self.window.saturating_sub(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))))
        };
        match overlap(previous, current) {
            Some(elapsed) => Some(start + elapsed),
            // The current window is full: its weight falls once it is the previous one.
            None => Some(start + self.window + overlap(current, 0)?),
        }
    }

    /// Returns the time in which a token bucket gains `units`, rounded up to a nanosecond; a window if it never does.
    fn time_for(&self, units: u128) -> Duration {
        match u64::try_from(units.div_ceil(u128::from(self.limit.max(1)))) {
            Ok(nanos) if self.limit > 0 => Duration::from_nanos(nanos),
            _ => self.window,
        }
    }
}

/// Returns the part of the last `window`, in nanoseconds, before the grid window that started at `start`.
fn weight(start: Epoch, window: Duration, now: Epoch) -> u128 {
    (start + window).saturating_sub(now).as_nanos()
}

/// Returns the requests that a sliding counter admits if its previous window weighs `weight` nanoseconds.
fn counter_room(limit: u32, window: Duration, previous: u32, current: u32, weight: u128) -> u32 {
    let window = window.as_nanos();
    let used = u128::from(previous) * weight + u128::from(current) * window;
    u32::try_from((u128::from(limit) * window).saturating_sub(used) / window).unwrap_or(u32::MAX)
}

/// Returns the start of the window that contains `now`, on the grid of multiples of `window` since the UNIX epoch.
pub(super) fn grid_start(now: Epoch, window: Duration) -> Epoch {
    let within = now.as_nanos() % window.as_nanos().max(1);
    // The remainder is smaller than `now`, and a `now` beyond u64 nanoseconds is in the year 2554.
    now.saturating_sub(Duration::from_nanos(u64::try_from(within).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);
    const TOKENS: LimiterKind = LimiterKind::TokenBucket { burst: None };
    const KINDS: [LimiterKind; 5] = [
        LimiterKind::FixedWindow,
        LimiterKind::FixedFromFirst,
        LimiterKind::SlidingWindow,
        LimiterKind::SlidingCounter,
        TOKENS,
    ];

    fn at(millis: u64) -> Epoch {
        Duration::from_millis(1_795_608_000_000 + millis)
    }

    fn take_many(meter: &mut Meter, count: u32, now: Epoch) -> Verdict {
        for _ in 1..count {
            assert!(meter.take(now).allowed);
        }
        meter.take(now)
    }

    #[test]
    fn fixed_window_lies_on_the_epoch_grid() {
        let mut meter = Meter::new(LimiterKind::FixedWindow, Quota::new(3, TEN), at(8_500));
        let last = take_many(&mut meter, 3, at(8_500));
        assert!(last.allowed);
        assert_eq!((last.remaining, last.reset_after), (0, Duration::from_millis(1_500)));
        let refused = meter.take(at(9_999));
        assert!(!refused.allowed);
        assert_eq!(refused.retry_after, Duration::from_millis(1));
        let next = meter.take(at(10_000));
        assert!(next.allowed);
        assert_eq!((next.remaining, next.reset_after), (2, TEN));
    }

    #[test]
    fn sliding_window_frees_a_slot_when_the_oldest_expires() {
        let mut meter = Meter::new(LimiterKind::SlidingWindow, Quota::new(2, TEN), at(0));
        meter.take(at(1_000));
        assert_eq!(meter.take(at(4_000)).reset_after, Duration::from_secs(7));
        let refused = meter.take(at(10_500));
        assert!(!refused.allowed);
        assert_eq!(refused.retry_after, Duration::from_millis(500));
        assert!(meter.take(at(11_000)).allowed);
        assert_eq!(meter.take(at(11_000)).retry_after, Duration::from_secs(3));
    }

    #[test]
    fn fixed_from_first_window_starts_with_its_first_request() {
        let mut meter = Meter::new(LimiterKind::FixedFromFirst, Quota::new(2, TEN), at(0));
        assert_eq!(meter.take(at(8_500)).reset_after, TEN);
        assert_eq!(meter.take(at(12_000)).reset_after, Duration::from_millis(6_500));
        let refused = meter.take(at(18_000));
        assert!(!refused.allowed);
        assert_eq!(refused.retry_after, Duration::from_millis(500));
        let next = meter.take(at(30_000));
        assert_eq!((next.remaining, next.reset_after), (1, TEN));
    }

    #[test]
    fn sliding_counter_weighs_the_previous_window() {
        let mut meter = Meter::new(LimiterKind::SlidingCounter, Quota::new(10, TEN), at(0));
        assert_eq!(take_many(&mut meter, 10, at(9_000)).remaining, 0);
        let refused = meter.take(at(9_500));
        assert!(!refused.allowed);
        // One second after the boundary, nine of the ten requests of the previous window count.
        assert_eq!(
            (refused.retry_after, refused.reset_after),
            (Duration::from_millis(1_500), Duration::from_millis(500))
        );
        assert!(!meter.take(at(10_999)).allowed);
        let next = meter.take(at(15_000));
        assert_eq!((next.allowed, next.remaining, next.retry_after), (true, 4, Duration::ZERO));
        assert!(take_many(&mut meter, 4, at(15_000)).allowed);
        assert_eq!(meter.take(at(15_000)).retry_after, Duration::from_secs(1));
        assert_eq!(meter.take(at(40_000)).remaining, 9);
    }

    #[test]
    fn token_bucket_starts_full_and_refills_evenly() {
        let quota = Quota::new(20, TEN).with_burst(40);
        let mut meter = Meter::new(TOKENS, quota, at(0));
        let last = take_many(&mut meter, 40, at(0));
        assert!(last.allowed);
        assert_eq!((last.limit, last.remaining, last.reset_after), (40, 0, Duration::from_secs(20)));
        assert_eq!(meter.take(at(0)).retry_after, Duration::from_millis(500));
        assert!(!meter.take(at(499)).allowed);
        assert!(meter.take(at(500)).allowed);
        assert_eq!(meter.take(at(3_600_000)).remaining, 39, "never more than its capacity");
    }

    #[test]
    fn limit_of_zero_rejects_with_a_retry_after() {
        for kind in KINDS {
            let mut meter = Meter::new(kind, Quota::new(0, TEN), at(0));
            for second in 0..100 {
                let verdict = meter.take(at(second * 1_000));
                assert!(!verdict.allowed, "{kind}");
                assert!(!verdict.retry_after.is_zero() && verdict.retry_after <= TEN, "{kind}");
            }
        }
    }

    #[test]
    fn zero_and_maximum_windows_do_not_panic() {
        for kind in KINDS {
            for window in [Duration::ZERO, Duration::MAX] {
                let mut meter = Meter::new(kind, Quota::new(1, window).with_burst(u32::MAX), at(0));
                assert!(meter.take(at(0)).allowed, "{kind}");
                meter.take(at(1));
            }
        }
    }

    /// Gaps between requests: often none, sometimes long.
    fn gaps() -> impl Strategy<Value = Vec<u64>> {
        let gap = prop_oneof![4 => Just(0_u64), 4 => 1_u64..300, 1 => 5_000_u64..25_000];
        proptest::collection::vec(gap, 1..400)
    }

    fn times(gaps: &[u64]) -> Vec<Epoch> {
        let mut millis = 0;
        gaps.iter()
            .map(|gap| {
                millis += gap;
                at(millis)
            })
            .collect()
    }

    fn run(kind: LimiterKind, quota: Quota, times: &[Epoch]) -> Vec<Verdict> {
        let mut meter = Meter::new(kind, quota, times[0]);
        times.iter().map(|now| meter.take(*now)).collect()
    }

    fn kinds() -> impl Strategy<Value = LimiterKind> {
        proptest::sample::select(&KINDS)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn fixed_window_rejects_only_above_its_limit(gaps in gaps(), limit in 1_u32..30) {
            let times = times(&gaps);
            let verdicts = run(LimiterKind::FixedWindow, Quota::new(limit, TEN), &times);
            for (place, verdict) in verdicts.iter().enumerate() {
                let window = times[place].as_secs() / 10;
                let before = (0..place).filter(|p| times[*p].as_secs() / 10 == window && verdicts[*p].allowed).count();
                prop_assert_eq!(verdict.allowed, before < limit as usize);
                let left = limit as usize - before - usize::from(verdict.allowed);
                prop_assert_eq!(verdict.remaining as usize, left);
            }
        }

        #[test]
        fn sliding_window_rejects_only_above_its_limit(gaps in gaps(), limit in 1_u32..30) {
            let times = times(&gaps);
            let verdicts = run(LimiterKind::SlidingWindow, Quota::new(limit, TEN), &times);
            for (place, verdict) in verdicts.iter().enumerate() {
                let before =
                    (0..place).filter(|p| times[*p] + TEN > times[place] && verdicts[*p].allowed).count();
                prop_assert_eq!(verdict.allowed, before < limit as usize);
                let left = limit as usize - before - usize::from(verdict.allowed);
                prop_assert_eq!(verdict.remaining as usize, left);
            }
        }

        #[test]
        fn fixed_from_first_window_rejects_only_above_its_limit(gaps in gaps(), limit in 1_u32..30) {
            let times = times(&gaps);
            let verdicts = run(LimiterKind::FixedFromFirst, Quota::new(limit, TEN), &times);
            let mut first = times[0];
            let mut used = 0;
            for (now, verdict) in times.iter().zip(verdicts) {
                if *now >= first + TEN {
                    (first, used) = (*now, 0);
                }
                prop_assert_eq!(verdict.allowed, used < limit);
                used += u32::from(verdict.allowed);
                prop_assert_eq!(verdict.remaining, limit - used);
            }
        }

        #[test]
        fn sliding_counter_rejects_only_above_its_estimate(gaps in gaps(), limit in 1_u32..30) {
            let times = times(&gaps);
            let verdicts = run(LimiterKind::SlidingCounter, Quota::new(limit, TEN), &times);
            for (place, verdict) in verdicts.iter().enumerate() {
                let window = times[place].as_secs() / 10;
                let count = |window: u64| {
                    let within = (0..place).filter(|p| times[*p].as_secs() / 10 == window && verdicts[*p].allowed);
                    within.count() as u64
                };
                // In whole milliseconds, like the times: estimate * 10 000.
                let elapsed = u64::try_from(times[place].as_millis()).unwrap() % 10_000;
                let free = (u64::from(limit) * 10_000)
                    .saturating_sub(count(window - 1) * (10_000 - elapsed) + count(window) * 10_000);
                prop_assert_eq!(verdict.allowed, free >= 10_000);
                prop_assert_eq!(u64::from(verdict.remaining), (free / 10_000).saturating_sub(u64::from(verdict.allowed)));
            }
        }

        #[test]
        fn token_bucket_admits_at_most_burst_plus_refill(
            gaps in gaps(), limit in 1_u32..30, burst in 1_u32..60,
        ) {
            let times = times(&gaps);
            let verdicts = run(TOKENS, Quota::new(limit, TEN).with_burst(burst), &times);
            for from in 0..times.len() {
                let mut allowed = 0_u128;
                for to in from..times.len() {
                    allowed += u128::from(verdicts[to].allowed);
                    let flowed = (times[to] - times[from]).as_nanos() * u128::from(limit);
                    prop_assert!(allowed * TEN.as_nanos() <= u128::from(burst) * TEN.as_nanos() + flowed);
                }
            }
        }

        #[test]
        fn retry_after_is_the_exact_time_of_admission(
            kind in kinds(), gaps in gaps(), limit in 1_u32..30,
        ) {
            let times = times(&gaps);
            let quota = Quota::new(limit, TEN);
            let mut meter = Meter::new(kind, quota, times[0]);
            for now in &times {
                let verdict = meter.take(*now);
                prop_assert_eq!(verdict.retry_after.is_zero(), verdict.remaining > 0);
                prop_assert!(verdict.remaining <= verdict.limit);
                if !verdict.allowed {
                    let wait = verdict.retry_after;
                    prop_assert!(!meter.take(*now + wait - Duration::from_nanos(1)).allowed);
                    prop_assert!(meter.take(*now + wait).allowed);
                    break;
                }
            }
        }
    }
}
