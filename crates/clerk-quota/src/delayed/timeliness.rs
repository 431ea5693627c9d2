//! Whether reports arrive in time for their windows.

use std::collections::VecDeque;

use crate::Moment;

/// Length of the look-back.
const LOOK_BACK_SECONDS: u64 = 60;

/// Windows are unreliable while more than one report in this many missed its window.
const TOLERATED_ONE_IN: u64 = 100;

/// Counts the reports of the last minute, and those that missed their window.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeliness {
    /// `(second, reports, of these untimely)`, in rising order.
    seconds: VecDeque<(u64, u64, u64)>,
    reports: u64,
    untimely: u64,
}

impl Timeliness {
    /// Records a report that arrived at `now`. Calls are in order of time.
    pub(super) fn record(&mut self, now: Moment, is_timely: bool) {
        self.forget(now);
        let second = now.since_epoch().as_secs();
        let untimely = u64::from(!is_timely);
        match self.seconds.back_mut() {
            Some((newest, reports, missed)) if *newest >= second => {
                *reports += 1;
                *missed += untimely;
            }
            _ => self.seconds.push_back((second, 1, untimely)),
        }
        self.reports += 1;
        self.untimely += untimely;
    }

    /// Returns whether so many reports of the last minute missed their window that the windows say nothing.
    pub(super) fn is_unreliable(&mut self, now: Moment) -> bool {
        self.forget(now);
        self.untimely * TOLERATED_ONE_IN > self.reports
    }

    fn forget(&mut self, now: Moment) {
        let now = now.since_epoch().as_secs();
        while let Some((_, reports, untimely)) = self.seconds.pop_front_if(|it| it.0 + LOOK_BACK_SECONDS <= now) {
            self.reports -= reports;
            self.untimely -= untimely;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(seconds))
    }

    #[test]
    fn more_than_one_percent_of_a_minute_is_unreliable() {
        let mut timeliness = Timeliness::default();
        for report in 0..100 {
            timeliness.record(at(1000), report > 0);
        }
        assert!(!timeliness.is_unreliable(at(1000)), "exactly 1 %");
        timeliness.record(at(1010), false);
        assert!(timeliness.is_unreliable(at(1010)), "2 of 101");
        assert!(timeliness.is_unreliable(at(1069)), "the later one alone");
        assert!(!timeliness.is_unreliable(at(1070)), "a minute later");
    }
}
