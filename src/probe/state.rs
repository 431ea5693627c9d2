//! Decides whether a due probe runs, and how long to back off after a failure. Pure: time is passed in.

use std::time::Duration;

use clerk_quota::{Moment, ProbeFailure, ProbeSkip};

/// Maximum wait after a 429.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Backoff while Clerk rejects the key: a replaced key is detected anyway, so that few attempts are enough at any
/// interval.
const REFUSED_KEY: BackOff = BackOff { least: Duration::from_secs(15), most: Duration::from_secs(300), spread: 0.1 };
/// Backoff while Clerk is unreachable or failing: detects recovery soon, and spreads the attempts of many exporters.
const OUTAGE: BackOff = BackOff { least: Duration::ZERO, most: Duration::from_secs(60), spread: 0.5 };
/// Minimum wait after a 429, even for a Retry-After of 0, which occurs.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How the wait grows with each failure.
#[derive(Debug, Clone, Copy)]
struct BackOff {
    /// The wait that is doubled each time, if longer than the interval.
    least: Duration,
    most: Duration,
    /// Maximum share of the wait that is subtracted at random.
    spread: f64,
}

/// The outcome of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeOutcome {
    Success,
    /// A 429, with its Retry-After.
    Throttled(Option<Duration>),
    Failure(ProbeFailure),
}

impl ProbeOutcome {
    pub(super) const fn failure(self) -> Option<ProbeFailure> {
        match self {
            Self::Success => None,
            Self::Throttled(_) => Some(ProbeFailure::Throttled),
            Self::Failure(reason) => Some(reason),
        }
    }
}

/// External conditions when a probe is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ProbeContext {
    /// When other traffic last got a response; `None` unless that makes a probe unnecessary (`when: idle`).
    pub observed_at: Option<Moment>,
    /// End of the wait after any 429.
    pub held_until: Option<Moment>,
    /// Whether the key was replaced since the previous probe.
    pub key_changed: bool,
}

/// The probing state of one instance.
#[derive(Debug, Clone)]
pub(super) struct ProbeState {
    interval: Duration,
    failures: u32,
    waiting: Option<(Moment, ProbeSkip)>,
    condition: Option<Option<ProbeFailure>>,
}

impl ProbeState {
    pub(super) const fn new(interval: Duration) -> Self {
        Self { interval, failures: 0, waiting: None, condition: None }
    }

    pub(super) const fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Ends the backoff: its cause no longer applies.
    pub(super) const fn clear_backoff(&mut self) {
        self.failures = 0;
        self.waiting = None;
    }

    /// How long no probe runs, and why; `None` if one may.
    pub(super) fn waiting(&self, now: Moment) -> Option<(Duration, ProbeSkip)> {
        self.waiting.filter(|(until, _)| now < *until).map(|(until, reason)| (until.since(now), reason))
    }

    /// Returns the reason as an error if the due probe should not run.
    pub(super) fn admit(&mut self, now: Moment, around: ProbeContext) -> Result<(), ProbeSkip> {
        if around.key_changed {
            // Clerk's responses were to the old key.
            self.clear_backoff();
        }
        if let Some((until, reason)) = self.waiting
            && now < until
        {
            return Err(reason);
        }
        if around.held_until.is_some_and(|until| now < until) {
            return Err(ProbeSkip::Blocked);
        }
        if around.observed_at.is_some_and(|at| now.since(at) < self.interval) {
            return Err(ProbeSkip::Fresh);
        }
        Ok(())
    }

    /// Records the outcome of a probe. `random`, between 0 and 1, is the jitter of the wait. Returns whether the
    /// condition of the instance changed and should be logged.
    pub(super) fn finished(&mut self, now: Moment, outcome: ProbeOutcome, random: f64) -> bool {
        self.waiting = match outcome {
            ProbeOutcome::Success => None,
            ProbeOutcome::Throttled(wait) => {
                let wait = wait.unwrap_or(self.interval).clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER);
                Some((now.after(wait), ProbeSkip::Blocked))
            }
            ProbeOutcome::Failure(reason) => {
                let back_off = if reason == ProbeFailure::Key { REFUSED_KEY } else { OUTAGE };
                Some((now.after(self.wait(back_off, random)), ProbeSkip::Backoff))
            }
        };
        self.failures = match outcome {
            ProbeOutcome::Failure(_) => self.failures.saturating_add(1),
            ProbeOutcome::Success | ProbeOutcome::Throttled(_) => 0,
        };
        let condition = Some(outcome.failure());
        std::mem::replace(&mut self.condition, condition) != condition
    }

    /// Doubles the wait for each failure, less random jitter. After the first failure there is no wait: the next tick
    /// is soon enough.
    fn wait(&self, back_off: BackOff, random: f64) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        let longest = back_off.most.max(self.interval);
        let step = self.interval.max(back_off.least);
        let wait = step.saturating_mul(2_u32.saturating_pow(self.failures.min(16))).min(longest);
        wait.mul_f64(1.0 - random.clamp(0.0, 1.0) * back_off.spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);
    const NO_CONTEXT: ProbeContext = ProbeContext { observed_at: None, held_until: None, key_changed: false };

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1_000_000 + seconds))
    }

    /// Ticks at every interval for an hour; returns the times of the probes made.
    fn probes(outcome: ProbeOutcome, random: f64) -> Vec<u64> {
        let mut policy = ProbeState::new(INTERVAL);
        let mut made = Vec::new();
        for seconds in (0..3600).step_by(15) {
            if policy.admit(at(seconds), NO_CONTEXT).is_ok() {
                made.push(seconds);
                policy.finished(at(seconds), outcome, random);
            }
        }
        made
    }

    #[test]
    fn success_probes_at_every_tick() {
        assert_eq!(probes(ProbeOutcome::Success, 0.5).len(), 240);
    }

    #[test]
    fn rejected_key_is_retried_every_five_minutes_at_most() {
        let made = probes(ProbeOutcome::Failure(ProbeFailure::Key), 0.0);
        assert_eq!(made[..6], [0, 15, 45, 105, 225, 465]);
        assert!(made.windows(2).skip(5).all(|pair| pair[1] - pair[0] == 300), "{made:?}");
    }

    #[test]
    fn rejected_key_backoff_is_independent_of_short_intervals() {
        let mut policy = ProbeState::new(Duration::from_secs(1));
        let made = (0..3600).filter(|second| {
            let admitted = policy.admit(at(*second), NO_CONTEXT).is_ok();
            if admitted {
                policy.finished(at(*second), ProbeOutcome::Failure(ProbeFailure::Key), 1.0);
            }
            admitted
        });
        assert!(made.count() < 20);
    }

    #[test]
    fn outage_is_probed_once_a_minute_with_jitter() {
        let slow = probes(ProbeOutcome::Failure(ProbeFailure::Connect), 0.0);
        assert!(slow.windows(2).skip(3).all(|pair| pair[1] - pair[0] == 60), "{slow:?}");
        assert_ne!(slow, probes(ProbeOutcome::Failure(ProbeFailure::Connect), 1.0));
    }

    #[test]
    fn retry_after_is_clamped_to_one_second_and_five_minutes() {
        for (asked, first) in [(Some(0), 1), (Some(9), 9), (Some(31_536_000), 300), (None, 15)] {
            let mut policy = ProbeState::new(INTERVAL);
            policy.finished(at(0), ProbeOutcome::Throttled(asked.map(Duration::from_secs)), 0.5);
            assert_eq!(policy.admit(at(first - 1), NO_CONTEXT), Err(ProbeSkip::Blocked), "{asked:?}");
            assert_eq!(policy.admit(at(first), NO_CONTEXT), Ok(()), "{asked:?}");
        }
    }

    #[test]
    fn a_new_key_ends_the_wait() {
        let mut policy = ProbeState::new(INTERVAL);
        for _ in 0..5 {
            policy.finished(at(0), ProbeOutcome::Failure(ProbeFailure::Key), 0.0);
        }
        assert_eq!(policy.admit(at(15), NO_CONTEXT), Err(ProbeSkip::Backoff));
        assert_eq!(policy.admit(at(15), ProbeContext { key_changed: true, ..NO_CONTEXT }), Ok(()));
    }

    #[test]
    fn fresh_traffic_or_other_429_skips_the_probe() {
        let mut policy = ProbeState::new(INTERVAL);
        let fresh = ProbeContext { observed_at: Some(at(0)), ..NO_CONTEXT };
        assert_eq!(policy.admit(at(14), fresh), Err(ProbeSkip::Fresh));
        assert_eq!(policy.admit(at(15), fresh), Ok(()));
        let held = ProbeContext { held_until: Some(at(9)), ..NO_CONTEXT };
        assert_eq!(policy.admit(at(8), held), Err(ProbeSkip::Blocked));
        assert_eq!(policy.admit(at(9), held), Ok(()));
    }

    #[test]
    fn only_a_changed_condition_is_logged() {
        let mut policy = ProbeState::new(INTERVAL);
        let key = ProbeOutcome::Failure(ProbeFailure::Key);
        let told = [
            ProbeOutcome::Success,
            ProbeOutcome::Success,
            key,
            key,
            key,
            ProbeOutcome::Success,
            ProbeOutcome::Throttled(None),
        ]
        .map(|outcome| policy.finished(at(0), outcome, 0.0));
        assert_eq!(told, [true, false, true, false, false, true, true]);
    }
}
