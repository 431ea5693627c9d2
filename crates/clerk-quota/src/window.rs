//! One window of a budget, and the use observed in it.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;

/// Requests of a window that are tracked individually until their responses report the remaining quota.
const MAX_UNREPORTED: usize = 4096;

/// What a response reports about a budget's window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement {
    /// When the response head arrived.
    pub at: Moment,
    /// Remaining requests.
    pub remaining: u64,
    pub limit: Option<u64>,
    /// The end of the server's window, and its precision.
    pub end: Option<(Moment, Duration)>,
    /// The earliest possible end of the window: the request's start plus the least that the rounded reset stands for.
    pub sure_end: Option<Moment>,
    /// Requests of an earlier window that were sent after the answered one and not reported on yet.
    pub unreported: u64,
}

/// The server's latest report and the requests it covers.
#[derive(Debug, Clone, Copy)]
struct Report {
    remaining: u64,
    at: Moment,
    end: Option<(Moment, Duration)>,
    /// The request it answers, counted from the first one of the window.
    ordinal: u64,
    /// Requests of an earlier window that were sent after it.
    unreported: u64,
}

/// A request whose response did not report the remaining quota (yet).
#[derive(Debug, Clone, Copy)]
struct UnreportedRequest {
    ordinal: u64,
    started: Moment,
}

/// Evidence of other clients' use: the server counted more requests than this process may have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Used requests that this process did not send.
    pub others: u64,
    /// Whether Clerk's headers report it, and not only a rejection.
    pub is_named: bool,
    /// Start of the time in which this process' requests were counted.
    pub from: Moment,
    /// End of that time.
    pub to: Moment,
    /// Requests of the fleet's other processes that may be included, once the shared log covers the time.
    pub theirs: Option<u64>,
}

/// One window of a budget.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// Rises with each window.
    pub number: u64,
    pub start: Moment,
    pub end: Moment,
    /// Whether the bounds are an estimate because the server has not named any yet.
    pub is_guess: bool,
    /// Requests that started here and may have been counted.
    pub counted: u64,
    /// Requests that started here.
    begun: u64,
    in_flight: u64,
    /// The most requests that started within any time of one window length, for sliding windows.
    pub most_in_stretch: u64,
    /// Requests per window, as the newest response reported it.
    pub limit: Option<u64>,
    report: Option<Report>,
    /// The earliest possible end, where the server named one.
    sure_end: Option<Moment>,
    least: Option<u64>,
    /// The lowest remaining value that the server reported.
    pub least_reported: Option<u64>,
    /// Requests whose responses reported nothing or are still to come, by ordinal.
    requests: VecDeque<UnreportedRequest>,
    /// Further such requests, beyond the capacity.
    overflow: u64,
    /// Whether a response was a 429.
    pub throttled: bool,
    /// Time of the first and the last request or response, in order of time.
    pub seen: Option<(Moment, Moment)>,
    /// The strongest evidence of other clients' use.
    pub evidence: Option<Evidence>,
}

impl Window {
    pub(super) fn new(number: u64, start: Moment, end: Moment) -> Self {
        Self {
            number,
            start,
            end,
            is_guess: false,
            counted: 0,
            begun: 0,
            in_flight: 0,
            most_in_stretch: 0,
            limit: None,
            report: None,
            sure_end: None,
            least: None,
            least_reported: None,
            requests: VecDeque::new(),
            overflow: 0,
            throttled: false,
            seen: None,
            evidence: None,
        }
    }

    /// Counts a request sent at `started`. Returns its ordinal in this window.
    pub(super) fn begin(&mut self, started: Moment) -> u64 {
        self.counted += 1;
        self.begun += 1;
        self.in_flight += 1;
        if self.requests.len() >= MAX_UNREPORTED {
            let after = self.report.map_or(0, |report| report.ordinal);
            let dropped = self.requests.drain(..MAX_UNREPORTED / 2).filter(|it| it.ordinal > after).count();
            self.overflow += dropped as u64;
        }
        self.requests.push_back(UnreportedRequest { ordinal: self.begun, started });
        self.begun
    }

    /// Removes a request that was not counted.
    pub(super) fn refund(&mut self, ordinal: u64) {
        self.counted = self.counted.saturating_sub(1);
        self.untrack(ordinal);
    }

    /// Ends a request whose response reported nothing.
    pub(super) fn end_unstated(&mut self) {
        self.least = self.least_left();
    }

    /// Ends a request of this window.
    pub(super) const fn end_request(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Returns whether nothing was observed and nothing is in flight.
    pub(super) const fn is_unobserved(&self) -> bool {
        self.seen.is_none() && self.in_flight == 0
    }

    /// Stops tracking a request whose outcome is known.
    fn untrack(&mut self, ordinal: u64) {
        // Usually the oldest one is answered first.
        if self.requests.pop_front_if(|oldest| oldest.ordinal == ordinal).is_some() {
            return;
        }
        if let Ok(place) = self.requests.binary_search_by_key(&ordinal, |it| it.ordinal) {
            self.requests.remove(place);
        }
    }

    /// Takes in the report in the response to a request; ordinal 0 is a request of an earlier window.
    pub(super) fn report(&mut self, statement: &Statement, ordinal: u64) {
        if let Some(limit) = statement.limit {
            if self.limit.is_some_and(|known| known != limit) {
                // The values belong to another limit.
                self.report = None;
                self.least = None;
                self.least_reported = None;
                self.evidence = None;
            }
            self.limit = Some(limit);
        }
        self.least = Some(self.least.map_or(statement.remaining, |least| least.min(statement.remaining)));
        self.least_reported = self.least_reported.into_iter().chain([statement.remaining]).min();
        self.untrack(ordinal);
        let Statement { at, remaining, end, sure_end, unreported, .. } = *statement;
        self.sure_end = self.sure_end.max(sure_end);
        let new = Report { remaining, at, end, ordinal, unreported };
        let is_newer = match self.report {
            // Remaining quota only falls within a fixed window, so the lowest value is the newest in any order of
            // arrival.
            Some(report) if report.is_of_window(statement) => new.remaining <= report.remaining,
            Some(report) => statement.at >= report.at,
            None => true,
        };
        if is_newer {
            self.report = Some(new);
            self.overflow = 0;
        }
    }

    /// Returns the remaining requests: the server's report less the requests sent since.
    pub(super) fn left(&self) -> Option<u64> {
        self.report.map(|report| self.left_after(report))
    }

    /// Returns the lowest remaining value, by the server's reports less the requests sent since.
    ///
    /// The server's end is known to about a second. Requests sent around it may belong to the next window, so they do
    /// not make this one fuller.
    pub(super) fn least_left(&self) -> Option<u64> {
        let left = self.report.map(|report| {
            let since = self.requests.iter().rev().take_while(|it| it.ordinal > report.ordinal);
            let since = since.filter(|it| self.sure_end.is_none_or(|end| it.started < end)).count();
            report.remaining.saturating_sub(since as u64 + self.overflow + report.unreported)
        });
        self.least.into_iter().chain(left).min()
    }

    /// Records that something was observed at this time.
    pub(super) fn see(&mut self, at: Moment) {
        let (first, last) = self.seen.unwrap_or((at, at));
        self.seen = Some((first.min(at), last.max(at)));
    }

    /// Adds evidence that others use the budget; the strongest is kept.
    pub(super) fn add_evidence(&mut self, evidence: Evidence) {
        if self.evidence.is_none_or(|known| known.others < evidence.others) {
            self.evidence = Some(evidence);
        }
    }

    fn left_after(&self, report: Report) -> u64 {
        report.remaining.saturating_sub(self.unreported_after(report.ordinal) + report.unreported)
    }

    /// Returns the requests that were sent after this ordinal and not reported on.
    pub(super) fn unreported_after(&self, ordinal: u64) -> u64 {
        let since = self.requests.len() - self.requests.partition_point(|it| it.ordinal <= ordinal);
        since as u64 + self.overflow
    }
}

impl Report {
    /// Returns whether the statement is about the same server window, as far as the ends tell.
    fn is_of_window(&self, statement: &Statement) -> bool {
        match (self.end, statement.end) {
            (Some((ours, coarse)), Some((theirs, resolution))) => ours.distance(theirs) <= coarse.max(resolution),
            _ => true,
        }
    }
}
