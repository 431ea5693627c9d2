//! When a window's budget will be used up at the pace of this window.

use std::time::Duration;

use super::Moment;
use super::usage_log::UsageLog;

/// Share of the window that must have passed before its pace means something.
const MIN_ELAPSED_SHARE: f64 = 0.2;
/// Share of the limit that must have been used before a forecast is worth a number.
const MIN_USED_SHARE: f64 = 0.5;

/// What is known of a window that is still open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    /// When the newest value was observed.
    pub at: Moment,
    /// When the window began.
    pub start: Moment,
    /// When the window ends.
    pub end: Moment,
    /// Requests per window.
    pub limit: u64,
    /// Requests left at [`Pace::at`].
    pub remaining: u64,
}

impl Pace {
    /// Time from `now` until nothing is left, if that is before the window ends; zero when nothing is left already.
    ///
    /// `None` while less than 20 % of the window has passed or less than 50 % of the limit is used: an early burst
    /// says little of the rest of the window.
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
        // It should be used up by now, and nobody says so: since nobody asks any more, the pace has slowed down.
        let slower = used as f64 / now.since(self.start).as_secs_f64();
        let wait = Duration::try_from_secs_f64(self.remaining as f64 / slower).ok()?;
        (now.after(wait) < self.end).then_some(wait)
    }
}

/// When as many requests as the limit will be in use, if they go on being started as in the last fifth of a window and come
/// back as they were used; none if that is not within a window.
///
/// This is for budgets that are counted: what is used comes back a window after its end, whenever that is.
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
    fn the_window_s_pace_goes_on() {
        // 80 used in 4 s: 20 a second, so 20 left last one second.
        assert_eq!(pace(4, 100, 20), Some(1));
    }

    #[test]
    fn silent_when_the_budget_outlasts_the_window() {
        assert_eq!(pace(5, 100, 50), None);
        assert_eq!(pace(9, 100, 40), None);
    }

    #[test]
    fn silent_while_little_time_has_passed_or_little_is_used() {
        assert_eq!(pace(1, 100, 10), None);
        assert_eq!(pace(2, 100, 49), Some(1));
        assert_eq!(pace(2, 100, 51), None);
    }

    #[test]
    fn nothing_left_is_zero_seconds_until_the_window_ends() {
        assert_eq!(pace(1, 100, 0), Some(0));
        assert_eq!(pace(10, 100, 0), None);
    }

    #[test]
    fn time_since_the_observation_is_taken_off() {
        let end = START.after(Duration::from_secs(10));
        let at = START.after(Duration::from_secs(4));
        let pace = Pace { at, start: START, end, limit: 100, remaining: 20 };
        let later = at.after(Duration::from_millis(400));
        assert_eq!(pace.to_exhaustion(later), Some(Duration::from_millis(600)));
        // When nothing more came, the pace has slowed down: 80 in 7 s and in 9 s.
        assert_eq!(pace.to_exhaustion(at.after(Duration::from_secs(3))), Some(Duration::from_millis(1_750)));
        assert_eq!(pace.to_exhaustion(at.after(Duration::from_secs(5))), None);
    }

    const WINDOW: Duration = Duration::from_secs(10);

    /// A log of requests that each take no time, `each_second` of them in each of the last `seconds`.
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
    fn what_is_counted_is_used_up_when_more_is_started_than_comes_back() {
        let now = START.after(Duration::from_secs(6));
        // 60 of 80 are used, ten more a second, and nothing comes back before four seconds have passed.
        let wait = sliding_exhaustion(&steady(10, 6), now, WINDOW, 80, 60).map(|wait| wait.as_secs_f64());
        assert!(wait.is_some_and(|wait| (1.8..2.1).contains(&wait)), "{wait:?}");
    }

    #[test]
    fn what_comes_back_as_fast_as_it_is_used_lasts() {
        let now = START.after(Duration::from_secs(20));
        assert_eq!(sliding_exhaustion(&steady(10, 20), now, WINDOW, 110, 100), None);
        assert_eq!(sliding_exhaustion(&steady(10, 6), now, WINDOW, 100, 60), None, "nothing is started any more");
    }

    #[test]
    fn a_limit_of_zero_has_no_pace() {
        assert_eq!(pace(5, 0, 0), None);
    }
}
