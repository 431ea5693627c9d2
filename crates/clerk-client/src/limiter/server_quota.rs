//! The server's last statement about a bucket, and the use since.

use std::time::Duration;

use clerk_quota::Moment;

/// The server's newest remaining quota.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerQuota {
    /// Time of the statement.
    pub(super) at: Moment,
    /// Remaining requests by the statement.
    remaining: u64,
    /// When the server will have returned quota: the end of its window, or a moment of a sliding one.
    pub(super) until: Moment,
    /// Requests not contained in `remaining`: those in flight at the time, and all since.
    consumed: u64,
    /// Requests in our log that the server had already returned.
    returned_early: u64,
    /// Requests that left our log since.
    returned: u64,
    /// Our requests that the server counted in its window, by its responses.
    counted_ours: u64,
    /// Whether other clients use the window too: more is missing than we used.
    has_other_users: bool,
}

/// Quota headers of a response, with the state of our log at that time.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuotaStatement {
    pub(super) at: Moment,
    pub(super) remaining: u64,
    pub(super) limit: Option<u64>,
    pub(super) reset: Option<Duration>,
    /// Whether the response belongs to one of our requests and was counted.
    pub(super) counted: bool,
    /// Requests in flight without this one, and ended requests including it.
    pub(super) in_flight: u64,
    pub(super) over: u64,
}

impl ServerQuota {
    /// Merges a statement not older than the previous one. `window` is the bucket's.
    pub(super) fn merge(before: Option<Self>, statement: QuotaStatement, rolling: bool, window: Duration) -> Self {
        let QuotaStatement { at, mut remaining, limit, reset, counted, in_flight, over } = statement;
        let mut until = at.after(reset.unwrap_or(window));
        let mut counted_ours = u64::from(counted);
        if let Some(before) = before.filter(|before| !rolling && at < before.until)
            && until < before.until.after(window / 2)
        {
            // Within a fixed window no quota returns: the lowest value is the newest, in whatever order responses
            // arrive. Resets are often rounded up, so the earliest is the most accurate.
            remaining = remaining.min(before.remaining);
            until = until.min(before.until).max(at);
            counted_ours += before.counted_ours;
        }
        let returned_early = limit.map_or(0, |limit| (over + remaining).saturating_sub(limit));
        let has_other_users = limit.is_none_or(|limit| limit > remaining + counted_ours);
        Self { at, remaining, until, consumed: in_flight, returned_early, returned: 0, counted_ours, has_other_users }
    }

    /// Whether other clients use the window too. If not, our own log is more accurate than resets in whole seconds.
    pub(super) const fn has_other_users(&self) -> bool {
        self.has_other_users
    }

    /// Our own use explains the missing quota.
    pub(super) const fn set_all_ours(&mut self) {
        self.has_other_users = false;
    }

    /// A request leaves.
    pub(super) const fn consume(&mut self) {
        self.consumed += 1;
    }

    /// A consumed request was not counted.
    pub(super) const fn refund(&mut self) {
        self.consumed = self.consumed.saturating_sub(1);
    }

    /// `count` requests left our log.
    pub(super) const fn add_returned(&mut self, count: u64) {
        self.returned += count;
    }

    /// Requests that may leave. A sliding window returns quota after a window, a fixed one does not.
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

    fn statement(seconds: u64, remaining: u64, reset: u64, over: u64) -> QuotaStatement {
        let reset = Some(Duration::from_secs(reset));
        QuotaStatement { at: at(seconds), remaining, limit: Some(100), reset, counted: true, in_flight: 2, over }
    }

    #[test]
    fn in_flight_requests_reduce_the_remaining_quota() {
        let mut quota = ServerQuota::merge(None, statement(100, 50, 5, 1), false, WINDOW);
        assert_eq!(quota.available(false), 48);
        quota.consume();
        assert_eq!(quota.available(false), 47);
        quota.refund();
        assert_eq!(quota.available(false), 48);
    }

    #[test]
    fn reordered_responses_of_a_fixed_window_keep_the_minimum() {
        let quota = ServerQuota::merge(None, statement(100, 50, 5, 1), false, WINDOW);
        let late = ServerQuota::merge(Some(quota), statement(101, 53, 5, 2), false, WINDOW);
        assert_eq!((late.available(false), late.until), (48, at(105)));
        let next = ServerQuota::merge(Some(late), statement(106, 99, 10, 1), false, WINDOW);
        assert_eq!((next.available(false), next.until), (97, at(116)));
    }

    #[test]
    fn sliding_window_returns_quota_once() {
        // 60 in our log and 50 of 100 remaining: the server has returned 10 that our log still contains.
        let mut quota = ServerQuota::merge(None, statement(100, 50, 5, 60), true, WINDOW);
        quota.add_returned(15);
        assert_eq!((quota.available(false), quota.available(true)), (48, 53));
    }

    #[test]
    fn missing_quota_reveals_other_clients() {
        let alone = ServerQuota::merge(None, statement(100, 99, 5, 1), false, WINDOW);
        let still = ServerQuota::merge(Some(alone), statement(101, 98, 4, 2), false, WINDOW);
        let shared = ServerQuota::merge(Some(still), statement(102, 90, 3, 3), false, WINDOW);
        assert_eq!([alone, still, shared].map(|quota| quota.has_other_users()), [false, false, true]);
    }
}
