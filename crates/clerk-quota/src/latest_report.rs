//! The remaining quota reported for the latest answered request, and the requests sent since.
//!
//! This holds for every kind of limiter: the quota that was left when that request was counted, less what was sent
//! later and may still count. Estimated windows may not match the limiter's, if it has none or starts them with a
//! request.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;

/// Requests that are tracked individually; further ones count as sent just now.
const MAX_FOLLOWED: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Report {
    started: Moment,
    remaining: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct LatestReport {
    report: Option<Report>,
    /// Starts of the requests that were sent later, in order.
    since: VecDeque<Moment>,
    /// Requests beyond the capacity, and when the last of them was sent.
    overflow: u64,
    overflow_until: Moment,
}

impl LatestReport {
    /// Counts a request that is being sent.
    pub(super) fn begin(&mut self, started: Moment) {
        if self.report.is_none_or(|report| started <= report.started) {
            return;
        }
        if self.since.len() < MAX_FOLLOWED {
            if self.since.back().is_none_or(|newest| *newest <= started) {
                self.since.push_back(started);
                return;
            }
            let place = self.since.partition_point(|at| *at <= started);
            self.since.insert(place, started);
        } else {
            self.overflow += 1;
            self.overflow_until = self.overflow_until.max(started);
        }
    }

    /// Removes a request that was sent at `started` and not counted.
    pub(super) fn refund(&mut self, started: Moment) {
        if let Ok(place) = self.since.binary_search(&started) {
            self.since.remove(place);
        }
    }

    /// Takes in the remaining quota from the response to the request that was sent at `started`.
    pub(super) fn report(&mut self, started: Moment, remaining: u64) {
        let is_newer = self.report.is_none_or(|report| match started.cmp(&report.started) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => remaining <= report.remaining,
            std::cmp::Ordering::Greater => true,
        });
        if is_newer {
            self.report = Some(Report { started, remaining });
            while self.since.pop_front_if(|at| *at <= started).is_some() {}
            if self.overflow_until <= started {
                self.overflow = 0;
            }
        }
    }

    /// Returns the most that may be left: the report less the requests that were sent since and are still
    /// `remembered`.
    pub(super) fn left(&self, now: Moment, remembered: Duration) -> Option<u64> {
        let report = self.report?;
        let begin = now.before(remembered);
        let since = self.since.len() - self.since.partition_point(|at| *at <= begin);
        let overflow = if self.overflow_until > begin { self.overflow } else { 0 };
        Some(report.remaining.saturating_sub(since as u64 + overflow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Moment {
        Moment::from_unix(Duration::from_millis(1_000_000 + millis))
    }

    #[test]
    fn requests_sent_since_the_report_count_for_a_window() {
        let mut latest = LatestReport::default();
        latest.begin(at(0));
        assert_eq!(latest.left(at(0), WINDOW), None);
        latest.report(at(0), 40);
        (1..=3).for_each(|second| latest.begin(at(second * 1_000)));
        assert_eq!(latest.left(at(3_000), WINDOW), Some(37));
        latest.refund(at(2_000));
        assert_eq!(latest.left(at(3_000), WINDOW), Some(38));
        assert_eq!(latest.left(at(11_500), WINDOW), Some(39));
    }

    #[test]
    fn report_of_the_latest_request_wins_in_any_order() {
        let mut latest = LatestReport::default();
        latest.report(at(0), 40);
        (1..=4).for_each(|second| latest.begin(at(second * 1_000)));
        latest.report(at(3_000), 20);
        latest.report(at(2_000), 30);
        assert_eq!(latest.left(at(4_000), WINDOW), Some(19));
        latest.report(at(3_000), 18);
        latest.report(at(3_000), 25);
        assert_eq!(latest.left(at(4_000), WINDOW), Some(17));
    }

    #[test]
    fn tracked_requests_are_bounded() {
        let mut latest = LatestReport::default();
        latest.report(at(0), 10_000);
        (1..=6_000).for_each(|milli| latest.begin(at(milli)));
        assert!(latest.since.len() <= MAX_FOLLOWED);
        assert_eq!(latest.left(at(6_000), WINDOW), Some(4_000));
        latest.report(at(6_000), 5);
        assert_eq!(latest.left(at(6_000), WINDOW), Some(5));
    }
}
