//! How the server counts, as far as known. Pure.
//!
//! Our own log allows at most the limit in any period of one window. That is safe for all kinds that count each
//! request: fixed windows on a grid or from their first request, a sliding log, a token bucket. A sliding counter
//! estimates: it rejects some of what the log allows and allows other requests. As long as the server may be one,
//! requests beyond the safe rate of either leave one at a time. The response decides: a 429 that no other kind would
//! have sent, or a success that a sliding counter would have rejected.

use std::time::Duration;

use clerk_quota::Moment;

/// Number of windows without exploring, after contrary evidence or an unexplained 429: other clients use the instance.
const CALM_WINDOWS: u32 = 32;
const LONGEST_CALM: Duration = Duration::from_secs(3600);

/// How the server counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CountingKind {
    /// Unknown: only what is safe for every kind leaves at once.
    #[default]
    Unknown,
    /// Counts each request: fixed windows, a sliding log or a token bucket.
    Exact,
    /// A sliding counter, which weighs the count of the previous window.
    SlidingCounter,
}

/// What is known of an instance, for all of its buckets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counting {
    pub(super) kind: CountingKind,
    /// No exploring until then.
    calm_until: Moment,
}

impl Counting {
    /// Whether a request may explore: leave alone beyond the safe rate of a sliding counter.
    pub(super) fn may_explore(&self, now: Moment) -> bool {
        self.kind == CountingKind::Unknown && now >= self.calm_until
    }

    /// Whether a sliding counter may explain why less remains than was used.
    pub(super) fn may_be_counter(&self, now: Moment) -> bool {
        self.kind == CountingKind::SlidingCounter || self.may_explore(now)
    }

    /// The same with a kind found by other processes.
    pub(super) const fn with_kind(self, kind: CountingKind) -> Self {
        Self { kind, ..self }
    }

    /// A request that explored was rejected.
    pub(super) const fn recognise_counter(&mut self) {
        self.kind = CountingKind::SlidingCounter;
    }

    /// A sliding counter would have rejected a request that succeeded.
    pub(super) const fn rule_out_counter(&mut self) {
        self.kind = CountingKind::Exact;
    }

    /// Reacts to a 429 that no kind still possible explains: other clients use the instance, or the kind is wrong.
    pub(super) fn doubt(&mut self, now: Moment, window: Duration) {
        let calm = window.saturating_mul(CALM_WINDOWS).min(LONGEST_CALM);
        self.kind = CountingKind::Unknown;
        // Only changed when half over: each change is copied to every bucket.
        if self.calm_until < now.after(calm / 2) {
            self.calm_until = now.after(calm);
        }
    }
}
