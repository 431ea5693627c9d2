//! The ledger as the telemetry source sees it.

use std::fmt;

use clerk_quota::{Moment, Observation, RequestStart};

/// A request of which another process reported the whole exchange.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReportedRequest {
    /// The request; its time is when it was sent.
    pub start: RequestStart,
    /// When it ended.
    pub ended: Moment,
    /// How it ended.
    pub end: ReportedEnd,
    /// How many requests it stands for: 1, or more if the application reports only a sample.
    pub weight: f64,
}

/// How a reported request ended. Clerk may have counted both kinds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReportedEnd {
    /// A response arrived.
    Answered(Observation),
    /// No response arrived, or none was reported.
    Unanswered,
}

/// A report that the ledger may still take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReportId(pub u64);

/// What the ledger did with a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// It waits until its window closes, and can be cancelled until then.
    Pending(ReportId),
    /// It came after its window closed: only totals count it.
    Late,
    /// It lies in the future: only totals count it.
    Future,
    /// It was dropped, because too many wait.
    Dropped,
}

/// Takes the reported requests of one instance.
pub trait Reports: fmt::Debug + Send + Sync {
    /// Counts a request at `now`, the time of its arrival here.
    fn report(&self, now: Moment, request: &ReportedRequest) -> Reported;

    /// Takes a report back. Returns false if it is too late for that.
    fn cancel(&self, id: ReportId) -> bool;
}
