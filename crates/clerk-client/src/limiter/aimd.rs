//! Our share of a budget that others use too.

use std::time::Duration;

use clerk_quota::Moment;

/// What is left of our use after a 429.
const DECREASE_FACTOR: f64 = 0.8;

/// Part of the limit that the ceiling rises by in each window, and below which it is never cut.
const INCREASE_STEP: f64 = 0.05;
const FLOOR: f64 = 0.25;

/// A limit of our own below the server's: cut when a 429 tells that others need room, rising slowly ever after. Several
/// who do that come to equal shares (the additive increase and multiplicative decrease of TCP).
#[derive(Debug, Clone, Copy)]
pub(super) struct AimdLimit {
    requests: f64,
    cut_at: Moment,
    /// The part of a common rise that is ours: processes that share a budget are cut together and rise together.
    part: f64,
}

impl AimdLimit {
    /// What remains after a 429 that came while we had used so much, as one of so many processes.
    pub(super) fn cut(used: u64, processes: u64, limit: Option<u64>, now: Moment) -> Self {
        let part = 1.0 / processes.max(1) as f64;
        let floor = limit.map_or(1.0, |limit| limit as f64 * FLOOR * part).max(1.0);
        Self { requests: (used as f64 * DECREASE_FACTOR).max(floor), cut_at: now, part }
    }

    /// Whether a request that was sent then could have known of the cut.
    pub(super) fn is_known_at(&self, sent: Moment) -> bool {
        sent >= self.cut_at
    }

    /// Requests in each window; `None` once the ceiling reached the limit. Without a limit it is never lifted.
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
    fn a_cut_heals_window_by_window() {
        let ceiling = AimdLimit::cut(50, 1, Some(100), at(0));
        assert_eq!(ceiling.requests(Some(100), at(0), WINDOW), Some(40));
        assert_eq!(ceiling.requests(Some(100), at(20), WINDOW), Some(50));
        assert_eq!(ceiling.requests(Some(100), at(120), WINDOW), None);
    }

    #[test]
    fn processes_that_share_a_budget_rise_as_one() {
        let ceiling = AimdLimit::cut(50, 2, Some(100), at(0));
        assert_eq!(ceiling.requests(Some(100), at(40), WINDOW), Some(50));
    }

    #[test]
    fn a_429_out_of_nothing_does_not_starve() {
        assert_eq!(AimdLimit::cut(0, 1, Some(100), at(0)).requests(Some(100), at(0), WINDOW), Some(25));
        assert_eq!(AimdLimit::cut(0, 1, None, at(0)).requests(None, at(0), WINDOW), Some(1));
    }
}
