//! Shares of callers: a part of the limit that is guaranteed to a caller, a part that it may not exceed, and pauses.
//!
//! Shares are of the instance's bucket. What a caller does not use of its guarantee is lent to others.

use std::sync::Arc;

use clerk_quota::{CallerId, Moment};

/// Products such as 0.29 * 100 lie just below the whole number that was meant.
const ROUNDING: f64 = 1e-9;

/// The share of one caller in the limit of the instance's bucket.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CallerShare {
    /// The caller, as in this process.
    pub caller: CallerId,
    /// Its name, the same in all processes that share the limits.
    pub name: Arc<str>,
    /// Guaranteed part of the limit, 0 to 1. The guarantees of all callers and the reserve add up to at most 1.
    pub min_share: f64,
    /// Largest part of the limit, 0 to 1. Of any limit at least one request; with 1 there is no cap.
    pub max_share: f64,
    /// Until then, no request of it is sent.
    pub paused_until: Option<Moment>,
    /// Whether the cap is for all requests: those that would not wait for the limit must, too. The sender of a request
    /// has to look ([`CallerRules::always_waits`]).
    pub always_waits: bool,
}

setters!(CallerShare {
    min_share: f64,
    max_share: f64,
    paused_until: impl Into<Option<Moment>>,
    always_waits: bool,
});

/// What the share of a caller means for its requests before they reach the limiter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallerRules {
    /// Whether the caller has a share, so that its requests may not wait for those of others, nor others for them.
    pub has_share: bool,
    /// [`CallerShare::always_waits`].
    pub always_waits: bool,
}

impl CallerShare {
    /// A caller without guarantee, cap or pause.
    #[must_use]
    pub const fn new(caller: CallerId, name: Arc<str>) -> Self {
        Self { caller, name, min_share: 0.0, max_share: 1.0, paused_until: None, always_waits: false }
    }

    /// Requests of a limit that are guaranteed, rounded down.
    #[must_use]
    pub fn guarantee(&self, limit: u64) -> u64 {
        part_of(limit, self.min_share)
    }

    /// Requests of a limit that the caller may not exceed, rounded down, at least one; `None` if it may use them all.
    #[must_use]
    pub fn cap(&self, limit: u64) -> Option<u64> {
        (self.max_share < 1.0).then(|| part_of(limit, self.max_share).max(1))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and `as` saturates")]
fn part_of(limit: u64, share: f64) -> u64 {
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    ((limit as f64 * share + ROUNDING) as u64).min(limit)
}

/// A caller's share in requests, and its use by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallerUsage {
    /// The caller.
    pub caller: CallerId,
    /// Guaranteed requests per window of the instance's bucket. `None` without a guarantee, or if no limit is known.
    pub guarantee: Option<u64>,
    /// Largest number of requests in any period of one window: 0 while paused. `None` without a cap, or if no limit is
    /// known.
    pub cap: Option<u64>,
    /// Requests that this process counts for the caller now.
    pub used: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(min: f64, max: f64) -> CallerShare {
        CallerShare::new(CallerId(2), Arc::from("import")).min_share(min).max_share(max)
    }

    #[test]
    fn shares_are_rounded_down_to_whole_requests() {
        let requests = |min, max, limit| (share(min, max).guarantee(limit), share(min, max).cap(limit));
        assert_eq!(requests(0.29, 0.57, 100), (29, Some(57)));
        assert_eq!(requests(0.299, 0.999, 100), (29, Some(99)));
        assert_eq!(requests(0.0, 1.0, 100), (0, None));
        assert_eq!(requests(1.0, 1.0, u64::MAX).1, None);
        assert_eq!(requests(0.2, 0.2, 3), (0, Some(1)), "a cap leaves one request");
        assert_eq!(requests(f64::NAN, -1.0, 100), (0, Some(1)));
    }
}
