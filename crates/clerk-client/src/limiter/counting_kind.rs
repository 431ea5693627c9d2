//! How the server counts, as far as that is known, and what is learnt of it. Pure.
//!
//! Our own log, in which no stretch as long as a window holds more than the limit, is safe for every kind that counts
//! each request: fixed windows on a grid or from their first request, a sliding log, a token bucket. A sliding counter
//! estimates, and refuses some of what that log lets go; in return it allows other things. As long as it may be one,
//! what exceeds the safe rate of either goes one at a time. The answer decides: a 429 to what all other kinds would have
//! let pass, or a success that a sliding counter would not have given.

use std::time::Duration;

use clerk_quota::Moment;

/// After evidence against what was known, or a 429 that nothing explains, others use the instance: nothing is tried for
/// so many windows.
const CALM_WINDOWS: u32 = 32;
const LONGEST_CALM: Duration = Duration::from_secs(3600);

/// How the server counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CountingKind {
    /// Not known yet: only what is safe for every kind leaves at once.
    #[default]
    Unknown,
    /// Each request counts: fixed windows, a sliding log or a token bucket.
    Exact,
    /// A sliding counter, which weighs the count of the window before.
    SlidingCounter,
}

/// What is known of a whole instance, for all of its budgets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counting {
    pub(super) kind: CountingKind,
    /// Until then, nothing is tried to learn more.
    calm_until: Moment,
}

impl Counting {
    /// Whether a request may go beyond what a sliding counter surely allows, alone, to see what comes of it.
    pub(super) fn may_explore(&self, now: Moment) -> bool {
        self.kind == CountingKind::Unknown && now >= self.calm_until
    }

    /// Whether a sliding counter may be why less remains than we used.
    pub(super) fn may_be_counter(&self, now: Moment) -> bool {
        self.kind == CountingKind::SlidingCounter || self.may_explore(now)
    }

    /// The same with a kind that other processes found out.
    pub(super) const fn with_kind(self, kind: CountingKind) -> Self {
        Self { kind, ..self }
    }

    /// What went alone beyond a sliding counter's safe rate was refused.
    pub(super) const fn recognise_counter(&mut self) {
        self.kind = CountingKind::SlidingCounter;
    }

    /// A sliding counter would have refused what passed.
    pub(super) const fn rule_out_counter(&mut self) {
        self.kind = CountingKind::Exact;
    }

    /// A 429 came to what every kind that is still thinkable would have let pass: others use the instance, or it does
    /// not count as was thought.
    pub(super) fn doubt(&mut self, now: Moment, window: Duration) {
        let calm = window.saturating_mul(CALM_WINDOWS).min(LONGEST_CALM);
        self.kind = CountingKind::Unknown;
        // Seldom enough to tell every budget.
        if self.calm_until < now.after(calm / 2) {
            self.calm_until = now.after(calm);
        }
    }
}
