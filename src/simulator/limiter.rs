//! The three ways to count requests, as pure functions of the time that is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use super::clock::Epoch;
use super::limits::Quota;
use super::options::LimiterKind;

/// What the limiter says to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether the request may pass. A request that may not consumes nothing.
    pub(super) allowed: bool,
    /// Requests that an untouched budget allows at once.
    pub(super) limit: u32,
    /// Requests that are left after this one.
    pub(super) remaining: u32,
    /// Length of the window.
    pub(super) window: Duration,
    /// Fixed window: time until it ends. Sliding window: until the oldest counted request falls out of it. Token
    /// bucket: until it is full.
    pub(super) reset_after: Duration,
    /// Time until the next request may pass; zero if one may pass now.
    pub(super) retry_after: Duration,
}

/// One budget: a quota and what has been used of it.
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
    /// Times of the counted requests, oldest first; never more than `limit` of them.
    Sliding {
        counted: VecDeque<Epoch>,
    },
    /// `level` counts in units of which one request costs `window` nanoseconds and one nanosecond brings `limit`: whole
    /// numbers, so that nothing is lost to rounding however long it runs.
    Tokens {
        capacity: u32,
        level: u128,
        at: Epoch,
    },
}

impl Meter {
    pub(super) fn new(kind: LimiterKind, quota: Quota, now: Epoch) -> Self {
        let window = quota.window.max(Duration::from_millis(1));
        let used = match kind {
            LimiterKind::FixedWindow => Used::Fixed { start: grid_start(now, window), count: 0 },
            LimiterKind::SlidingWindow => Used::Sliding { counted: VecDeque::new() },
            LimiterKind::TokenBucket { .. } => {
                let capacity = quota.burst.unwrap_or(quota.limit);
                Used::Tokens { capacity, level: u128::from(capacity) * window.as_nanos(), at: now }
            }
        };
        Self { limit: quota.limit, window, used }
    }

    /// Counts one request at `now`, if it may pass. `now` must not run backwards.
    pub(super) fn take(&mut self, now: Epoch) -> Verdict {
        self.settle(now);
        let allowed = match &mut self.used {
            Used::Fixed { count, .. } => {
                let allowed = *count < self.limit;
                *count += u32::from(allowed);
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

    /// Whether the budget is untouched at `now`, so that it can be forgotten.
    pub(super) fn is_untouched(&mut self, now: Epoch) -> bool {
        self.settle(now);
        match &self.used {
            Used::Fixed { count, .. } => *count == 0,
            Used::Sliding { counted } => counted.is_empty(),
            Used::Tokens { capacity, level, .. } => *level == u128::from(*capacity) * self.window.as_nanos(),
        }
    }

    /// Gives back what time has given back since the last call.
    fn settle(&mut self, now: Epoch) {
        match &mut self.used {
            Used::Fixed { start, count } => {
                let current = grid_start(now, self.window);
                if current > *start {
                    *start = current;
                    *count = 0;
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

    /// Time in which a token bucket gains `units`, rounded up to a nanosecond; a window if it never does.
    fn time_for(&self, units: u128) -> Duration {
        match u64::try_from(units.div_ceil(u128::from(self.limit.max(1)))) {
            Ok(nanos) if self.limit > 0 => Duration::from_nanos(nanos),
            _ => self.window,
        }
    }
}

/// Start of the window that holds `now`, on the grid of multiples of `window` since the UNIX epoch.
pub(super) fn grid_start(now: Epoch, window: Duration) -> Epoch {
    let within = now.as_nanos() % window.as_nanos().max(1);
    // The remainder is smaller than `now`, and a `now` beyond u64 nanoseconds is in the year 2554.
    now.saturating_sub(Duration::from_nanos(u64::try_from(within).unwrap_or(u64::MAX)))
}
