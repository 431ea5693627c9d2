//! What the server last said of a budget, and what happened since.

use std::time::Duration;

use clerk_quota::Moment;

/// The server's newest word on how much is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerQuota {
    /// When it was said.
    pub(super) at: Moment,
    /// Requests that were left.
    remaining: u64,
    /// When the server will have given something back: the end of its window, or a moment of a sliding one.
    pub(super) until: Moment,
    /// Requests that may have come, or will come, off the remaining: those in flight then, and all since.
    consumed: u64,
    /// Requests of our log that the server had given back already.
    returned_early: u64,
    /// Requests of our log that went since.
    returned: u64,
    /// Requests of ours that the server counted in its window, as far as answers told.
    counted_ours: u64,
    /// Whether others use the window too: its use is more than ours.
    has_other_users: bool,
}

/// What an answer says, beside our log at that time.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuotaStatement {
    pub(super) at: Moment,
    pub(super) remaining: u64,
    pub(super) limit: Option<u64>,
    pub(super) reset: Option<Duration>,
    /// Whether it is the answer to a request of ours that was counted.
    pub(super) counted: bool,
    /// Requests in flight, without the answered one, and requests over, with it.
    pub(super) in_flight: u64,
    pub(super) over: u64,
}

impl ServerQuota {
    /// Takes in a statement that is not older than the word before. `window` is the budget's.
    pub(super) fn merge(before: Option<Self>, statement: QuotaStatement, rolling: bool, window: Duration) -> Self {
        let QuotaStatement { at, mut remaining, limit, reset, counted, in_flight, over } = statement;
        let mut until = at.after(reset.unwrap_or(window));
        let mut counted_ours = u64::from(counted);
        if let Some(before) = before.filter(|before| !rolling && at < before.until)
            && until < before.until.after(window / 2)
        {
            // Within a fixed window nothing comes back: the fewest is the newest, whatever order answers come in. Resets
            // are often rounded up, so that the earliest is the truest.
            remaining = remaining.min(before.remaining);
            until = until.min(before.until).max(at);
            counted_ours += before.counted_ours;
        }
        let returned_early = limit.map_or(0, |limit| (over + remaining).saturating_sub(limit));
        let has_other_users = limit.is_none_or(|limit| limit > remaining + counted_ours);
        Self { at, remaining, until, consumed: in_flight, returned_early, returned: 0, counted_ours, has_other_users }
    }

    /// Whether others use the window too. If not, our own log knows better than resets in whole seconds.
    pub(super) const fn has_other_users(&self) -> bool {
        self.has_other_users
    }

    /// What is missing is explained by our own use.
    pub(super) const fn set_all_ours(&mut self) {
        self.has_other_users = false;
    }

    /// A request leaves.
    pub(super) const fn consume(&mut self) {
        self.consumed += 1;
    }

    /// A request that was drawn was not counted.
    pub(super) const fn refund(&mut self) {
        self.consumed = self.consumed.saturating_sub(1);
    }

    /// So many requests of our log are a window old.
    pub(super) const fn add_returned(&mut self, count: u64) {
        self.returned += count;
    }

    /// Requests that may leave. Where windows slide, what is a window old has come back; in a fixed one nothing has.
    pub(super) fn available(&self, rolling: bool) -> u64 {
        let back = if rolling { self.returned.saturating_sub(self.returned_early) } else { 0 };
        (self.remaining + back).saturating_sub(self.consumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(seconds))
    }

    fn said(seconds: u64, remaining: u64, reset: u64, over: u64) -> QuotaStatement {
        let reset = Some(Duration::from_secs(reset));
        QuotaStatement { at: at(seconds), remaining, limit: Some(100), reset, counted: true, in_flight: 2, over }
    }

    #[test]
    fn what_is_in_flight_comes_off_what_remains() {
        let mut quota = ServerQuota::merge(None, said(100, 50, 5, 1), false, WINDOW);
        assert_eq!(quota.available(false), 48);
        quota.consume();
        assert_eq!(quota.available(false), 47);
        quota.refund();
        assert_eq!(quota.available(false), 48);
    }

    #[test]
    fn answers_of_one_fixed_window_that_overtake_each_other_do_no_harm() {
        let quota = ServerQuota::merge(None, said(100, 50, 5, 1), false, WINDOW);
        let late = ServerQuota::merge(Some(quota), said(101, 53, 5, 2), false, WINDOW);
        assert_eq!((late.available(false), late.until), (48, at(105)));
        let next = ServerQuota::merge(Some(late), said(106, 99, 10, 1), false, WINDOW);
        assert_eq!((next.available(false), next.until), (97, at(116)));
    }

    #[test]
    fn only_a_sliding_window_gives_back_and_nothing_twice() {
        // 60 in our log and 50 left of 100: the server has given back 10 that we still keep.
        let mut quota = ServerQuota::merge(None, said(100, 50, 5, 60), true, WINDOW);
        quota.add_returned(15);
        assert_eq!((quota.available(false), quota.available(true)), (48, 53));
    }

    #[test]
    fn others_are_seen_by_what_is_missing() {
        let alone = ServerQuota::merge(None, said(100, 99, 5, 1), false, WINDOW);
        let still = ServerQuota::merge(Some(alone), said(101, 98, 4, 2), false, WINDOW);
        let shared = ServerQuota::merge(Some(still), said(102, 90, 3, 3), false, WINDOW);
        assert_eq!([alone, still, shared].map(|quota| quota.has_other_users()), [false, false, true]);
    }
}
