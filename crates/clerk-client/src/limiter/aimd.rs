//! This process' share of a bucket that other clients use too.

use std::time::Duration;

use clerk_quota::Moment;

/// Part of the use that remains after a 429.
const DECREASE_FACTOR: f64 = 0.8;

/// Part of the limit that is added per window, and the minimum after a cut.
const INCREASE_STEP: f64 = 0.05;
const FLOOR: f64 = 0.25;

/// A limit below the server's: cut after a 429 caused by other clients, then rising slowly. Several clients that do
/// this converge to equal shares (additive increase, multiplicative decrease, as in TCP).
#[derive(Debug, Clone, Copy)]
pub(super) struct AimdLimit {
    requests: f64,
    cut_at: Moment,
    /// This process' part of the increase: processes that share a bucket are cut together and rise together.
    part: f64,
}

impl AimdLimit {
    /// The limit after a 429, for one of `processes` that had used `used` requests in the window.
    pub(super) fn cut(used: u64, processes: u64, limit: Option<u64>, now: Moment) -> Self {
        let part = 1.0 / processes.max(1) as f64;
        let floor = limit.map_or(1.0, |limit| limit as f64 * FLOOR * part).max(1.0);
        Self { requests: (used as f64 * DECREASE_FACTOR).max(floor), cut_at: now, part }
    }

    /// Whether a request sent then could already respect the cut.
    pub(super) fn is_known_at(&self, sent: Moment) -> bool {
        sent >= self.cut_at
    }

    /// Requests per window; `None` once the server's limit is reached. Without a known limit it never ends.
    pub(super) fn requests(&self, limit: Option<u64>, now: Moment, window: Duration) -> Option<u64> {
        let windows = now.since(self.cut_at).as_secs_f64() / window.as_secs_f64().max(0.001);
        let rise = limit.map_or(self.requests, |limit| limit as f64) * INCREASE_STEP;
        let now = self.requests + rise.max(1.0) * self.part * windows;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and `as` saturates")]
        let whole = now as u64;
        (limit.is_none_or(|limit| whole < limit)).then_some(whole)
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
    fn cut_limit_rises_each_window() {
        let limit = AimdLimit::cut(50, 1, Some(100), at(0));
        assert_eq!(limit.requests(Some(100), at(0), WINDOW), Some(40));
        assert_eq!(limit.requests(Some(100), at(20), WINDOW), Some(50));
        assert_eq!(limit.requests(Some(100), at(120), WINDOW), None);
    }

    #[test]
    fn processes_sharing_a_bucket_rise_together() {
        let limit = AimdLimit::cut(50, 2, Some(100), at(0));
        assert_eq!(limit.requests(Some(100), at(40), WINDOW), Some(50));
    }

    #[test]
    fn cut_without_use_leaves_a_minimum() {
        assert_eq!(AimdLimit::cut(0, 1, Some(100), at(0)).requests(Some(100), at(0), WINDOW), Some(25));
        assert_eq!(AimdLimit::cut(0, 1, None, at(0)).requests(None, at(0), WINDOW), Some(1));
    }
}
