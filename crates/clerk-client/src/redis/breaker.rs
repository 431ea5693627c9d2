//! A circuit breaker: after some failures in a row it opens for a while, then admits a single operation.
//!
//! Pure: time is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Number of failures in a row that opens the breaker.
pub(super) const TOLERATED: u32 = 5;
/// First time that it stays open. Doubles with each failed probe.
pub(super) const FIRST_REST: Duration = Duration::from_secs(1);
/// Longest time that it stays open.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// How long it stays open next time.
    rest: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Resting {
        until: Instant,
    },
    /// One operation probes whether the server is back.
    Probing,
}

/// Decision about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerAdmission {
    /// Run.
    Granted,
    /// Run and report the result: all other operations wait for it.
    Probe,
    /// Fail at once.
    Denied { left: Duration },
}

/// Change of the server's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    WentDown,
    CameBack,
}

impl Breaker {
    pub(super) const fn new() -> Self {
        Self { state: State::Closed, failures: 0, rest: FIRST_REST }
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    pub(super) fn admit(&mut self, now: Instant) -> BreakerAdmission {
        match self.state {
            State::Closed => BreakerAdmission::Granted,
            State::Resting { until } if until <= now => {
                self.state = State::Probing;
                BreakerAdmission::Probe
            }
            State::Resting { until } => BreakerAdmission::Denied { left: until - now },
            State::Probing => BreakerAdmission::Denied { left: Duration::ZERO },
        }
    }

    pub(super) fn succeeded(&mut self) -> Change {
        let was_down = !self.is_closed();
        *self = Self::new();
        if was_down { Change::CameBack } else { Change::None }
    }

    pub(super) fn failed(&mut self, admission: BreakerAdmission, now: Instant) -> Change {
        self.failures = self.failures.saturating_add(1);
        match (self.state, admission) {
            (State::Closed, _) if self.failures >= TOLERATED => {
                self.trip(now);
                Change::WentDown
            }
            (State::Probing, BreakerAdmission::Probe) => {
                self.trip(now);
                Change::None
            }
            // Started before the breaker opened: no new information.
            _ => Change::None,
        }
    }

    /// The caller dropped the operation: another one may probe.
    pub(super) fn abandoned(&mut self, admission: BreakerAdmission, now: Instant) {
        if self.state == State::Probing && admission == BreakerAdmission::Probe {
            self.state = State::Resting { until: now };
        }
    }

    /// The server was reached otherwise: no need to wait longer.
    pub(super) fn hint(&mut self, now: Instant) {
        if let State::Resting { until } = &mut self.state {
            *until = now.min(*until);
        }
    }

    fn trip(&mut self, now: Instant) {
        self.state = State::Resting { until: now + self.rest };
        self.rest = self.rest.saturating_mul(2).min(LONGEST_REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed_often(breaker: &mut Breaker, now: Instant) -> Change {
        let mut change = Change::None;
        for _ in 0..TOLERATED {
            assert_eq!(change, Change::None);
            let admission = breaker.admit(now);
            assert_eq!(admission, BreakerAdmission::Granted);
            change = breaker.failed(admission, now);
        }
        change
    }

    #[test]
    fn only_failures_in_a_row_open_the_breaker() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..20 {
            let admission = breaker.admit(now);
            assert_eq!(breaker.failed(admission, now), Change::None);
            assert_eq!(breaker.succeeded(), Change::None);
        }
        assert_eq!(failed_often(&mut breaker, now), Change::WentDown);
        assert_eq!(breaker.admit(now), BreakerAdmission::Denied { left: FIRST_REST });
    }

    #[test]
    fn one_probe_is_admitted_after_each_growing_rest() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new();
        failed_often(&mut breaker, now);
        for rest in [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs) {
            assert_eq!(breaker.admit(now), BreakerAdmission::Denied { left: rest });
            now += rest;
            assert_eq!(breaker.admit(now), BreakerAdmission::Probe);
            assert_eq!(breaker.admit(now), BreakerAdmission::Denied { left: Duration::ZERO });
            assert_eq!(breaker.failed(BreakerAdmission::Probe, now), Change::None);
        }
        now += LONGEST_REST;
        assert_eq!(breaker.admit(now), BreakerAdmission::Probe);
        assert_eq!(breaker.succeeded(), Change::CameBack);
        assert_eq!(breaker.admit(now), BreakerAdmission::Granted);
        // The next outage starts with the first rest again.
        breaker.succeeded();
        failed_often(&mut breaker, now);
        assert_eq!(breaker.admit(now), BreakerAdmission::Denied { left: FIRST_REST });
    }

    #[test]
    fn abandoned_probe_admits_another() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new();
        failed_often(&mut breaker, now);
        now += FIRST_REST;
        let probe = breaker.admit(now);
        breaker.abandoned(probe, now);
        assert_eq!(breaker.admit(now), BreakerAdmission::Probe);
    }

    #[test]
    fn late_failure_from_before_the_rest_changes_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        failed_often(&mut breaker, now);
        assert_eq!(breaker.failed(BreakerAdmission::Granted, now), Change::None);
        assert_eq!(breaker.admit(now), BreakerAdmission::Denied { left: FIRST_REST });
        breaker.hint(now);
        assert_eq!(breaker.admit(now), BreakerAdmission::Probe);
    }
}
