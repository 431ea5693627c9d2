//! Requests that the ledger learns of only after they ended, from traces or logs.

use super::budget::AttemptEnd;
use super::{Moment, Observation, RequestStart};

/// A request that another program sent and reported after it ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReportedRequest {
    /// When and by whom it was sent, on this program's clock.
    pub start: RequestStart,
    /// When it ended; not before its start.
    pub ended: Moment,
    /// How it ended.
    pub end: ReportedEnd,
    /// Requests that this one stands for: 1 unless the reports are a sample.
    pub weight: f64,
}

/// How a reported request ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReportedEnd {
    /// A response arrived.
    Answered(Observation),
    /// No response arrived: Clerk may have counted the request.
    Unanswered,
}

impl ReportedEnd {
    pub(super) const fn as_attempt_end(&self) -> AttemptEnd<'_> {
        match self {
            Self::Answered(observation) => AttemptEnd::Answered(observation),
            Self::Unanswered => AttemptEnd::Unanswered,
        }
    }

    pub(super) const fn without_entity(self) -> Self {
        match self {
            Self::Answered(observation) => Self::Answered(Observation { entity: None, ..observation }),
            Self::Unanswered => self,
        }
    }

    pub(super) const fn observation(&self) -> Option<&Observation> {
        match self {
            Self::Answered(observation) => Some(observation),
            Self::Unanswered => None,
        }
    }
}

/// What the ledger did with a reported request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// It waits until the lateness is over, and is then counted in order.
    Pending(ReportId),
    /// It started before the windows that are still open. It is counted, but in no window.
    Late,
    /// It ended in the future. It is counted, but in no window.
    Future,
    /// Too many requests wait. It is counted, but in no window.
    Overflow,
}

/// A pending report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReportId {
    pub(super) started: Moment,
    pub(super) ended: Moment,
    pub(super) number: u64,
}
