//! Forecasts when a budget will be used up.

use std::time::Duration;

use super::Moment;
use super::usage_log::UsageLog;

/// Share of the window that must have passed before its rate is meaningful.
const MIN_ELAPSED_SHARE: f64 = 0.2;
/// Share of the limit that must be used before there is a forecast.
const MIN_USED_SHARE: f64 = 0.5;

/// The state of an open window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    /// When the newest value was observed.
    pub at: Moment,
    /// Start of the window.
    pub start: Moment,
    /// End of the window.
    pub end: Moment,
    /// Requests per window.
    pub limit: u64,
    /// Remaining requests at [`Pace::at`].
    pub remaining: u64,
}

impl Pace {
    /// Returns the time until nothing is left, if that is before the window ends; zero if nothing is left now.
    ///
    /// `None` while less than 20 % of the window has passed or less than 50 % of the limit is used: an early burst
    /// says little about the rest of the window.
    pub(super) fn to_exhaustion(self, now: Moment) -> Option<Duration> {
        let length = self.end.since(self.start).as_secs_f64();
        let elapsed = self.at.since(self.start).as_secs_f64();
        let used = self.limit.saturating_sub(self.remaining);
        if now >= self.end || length <= 0.0 || self.limit == 0 {
            return None;
        }
        if self.remaining == 0 {
            return Some(Duration::ZERO);
        }
        if elapsed < MIN_ELAPSED_SHARE * length || (used as f64) < MIN_USED_SHARE * self.limit as f64 {
            return None;
        }
        let pace = used as f64 / elapsed;
        let wait = Duration::try_from_secs_f64(self.remaining as f64 / pace).ok()?;
        let exhausted_at = self.at.after(wait);
        if exhausted_at > now || exhausted_at >= self.end {
            return (exhausted_at < self.end).then(|| exhausted_at.since(now));
        }
        // The budget should be used up by now but is not: no requests came since, so the rate is lower.
        let slower = used as f64 / now.since(self.start).as_secs_f64();
        let wait = Duration::try_from_secs_f64(self.remaining as f64 / slower).ok()?;
        (now.after(wait) < self.end).then_some(wait)
    }
}

/// Returns the time until the limit is used up, if requests keep starting at the rate of the last fifth of a window.
///
/// `None` if that is not within a window. For counted budgets: a request's quota is released one window after its end.
pub(super) fn sliding_exhaustion(
    log: &UsageLog,
    now: Moment,
    window: Duration,
    limit: u64,
    used: u64,
) -> Option<Duration> {
    if used >= limit {
        return (limit > 0).then_some(Duration::ZERO);
    }
    let look_back = window.mul_f64(MIN_ELAPSED_SHARE);
    let started = log.started(now.before(look_back), now.after(Duration::from_nanos(1)));
    if (used as f64) < MIN_USED_SHARE * limit as f64 || started == 0 {
        return None;
    }
    let pace = started as f64 / look_back.as_secs_f64().max(0.001);
    let (mut left, mut passed) = (limit.saturating_sub(used) as f64, 0.0);
    for (end, requests) in log.ends(now.before(window)) {
        let back = end.after(window).since(now).as_secs_f64();
        if left <= pace * (back - passed) {
            break;
        }
        left = left - pace * (back - passed) + requests as f64;
        passed = back;
    }
    let wait = Duration::try_from_secs_f64(passed + left / pace).ok()?;
    (wait < window).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_unix(Duration::from_secs(1000));

    fn pace(elapsed_seconds: u64, limit: u64, remaining: u64) -> Option<u64> {
        let at = START.after(Duration::from_secs(elapsed_seconds));
        let end = START.after(Duration::from_secs(10));
        Pace { at, start: START, end, limit, remaining }.to_exhaustion(at).map(|wait| wait.as_secs())
    }

    #[test]
    fn forecast_continues_the_rate_of_the_window() {
        // 80 used in 4 s: 20 a second, so 20 left last one second.
        assert_eq!(pace(4, 100, 20), Some(1));
    }

    #[test]
    fn no_forecast_if_the_budget_outlasts_the_window() {
        assert_eq!(pace(5, 100, 50), None);
        assert_eq!(pace(9, 100, 40), None);
    }

    #[test]
    fn no_forecast_early_or_at_low_use() {
        assert_eq!(pace(1, 100, 10), None);
        assert_eq!(pace(2, 100, 49), Some(1));
        assert_eq!(pace(2, 100, 51), None);
    }

    #[test]
    fn used_up_budget_forecasts_zero_until_the_window_ends() {
        assert_eq!(pace(1, 100, 0), Some(0));
        assert_eq!(pace(10, 100, 0), None);
    }

    #[test]
    fn forecast_subtracts_time_since_the_observation() {
        let end = START.after(Duration::from_secs(10));
        let at = START.after(Duration::from_secs(4));
        let pace = Pace { at, start: START, end, limit: 100, remaining: 20 };
        let later = at.after(Duration::from_millis(400));
        assert_eq!(pace.to_exhaustion(later), Some(Duration::from_millis(600)));
        // Without further requests the rate falls: 80 in 7 s, then 80 in 9 s.
        assert_eq!(pace.to_exhaustion(at.after(Duration::from_secs(3))), Some(Duration::from_millis(1_750)));
        assert_eq!(pace.to_exhaustion(at.after(Duration::from_secs(5))), None);
    }

    const WINDOW: Duration = Duration::from_secs(10);

    /// Builds a log of `each_second` requests without duration in each of the last `seconds`.
    fn steady(each_second: u32, seconds: u32) -> UsageLog {
        let mut log = UsageLog::default();
        for request in 0..each_second * seconds {
            let at = START.after(Duration::from_secs(1).mul_f64(f64::from(request) / f64::from(each_second)));
            log.start(at, WINDOW);
            log.end(at, WINDOW);
        }
        log
    }

    #[test]
    fn sliding_forecast_ends_if_starts_exceed_releases() {
        let now = START.after(Duration::from_secs(6));
        // 60 of 80 are used, ten more start each second, and nothing is released within the next four seconds.
        let wait = sliding_exhaustion(&steady(10, 6), now, WINDOW, 80, 60).map(|wait| wait.as_secs_f64());
        assert!(wait.is_some_and(|wait| (1.8..2.1).contains(&wait)), "{wait:?}");
    }

    #[test]
    fn sliding_forecast_is_none_if_releases_keep_up() {
        let now = START.after(Duration::from_secs(20));
        assert_eq!(sliding_exhaustion(&steady(10, 20), now, WINDOW, 110, 100), None);
        assert_eq!(sliding_exhaustion(&steady(10, 6), now, WINDOW, 100, 60), None, "no more requests start");
    }

    #[test]
    fn limit_of_zero_has_no_forecast() {
        assert_eq!(pace(5, 0, 0), None);
    }
}
