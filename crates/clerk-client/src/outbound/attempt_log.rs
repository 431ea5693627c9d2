//! Takes note of attempts, such as for an access log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, StatusCode};

use clerk_quota::{Moment, RequestStart};

/// Takes note of the attempts of an [`Outbound`](super::Outbound). Called for each one; must not block.
pub trait AttemptLog: fmt::Debug + Send + Sync + 'static {
    /// An attempt is about to be sent.
    fn begin(self: Arc<Self>, attempt: &AttemptStart<'_>) -> Box<dyn AttemptEntry>;
}

/// An attempt in flight. It is dropped without a call if the request certainly never reached Clerk.
pub trait AttemptEntry: fmt::Debug + Send + Sync {
    /// The head of the response arrived at `at`, or it is certain by then that none will.
    fn end(self: Box<Self>, at: Moment, answer: Option<AttemptAnswer<'_>>);
}

/// What the head of a response says.
#[derive(Debug, Clone, Copy)]
pub struct AttemptAnswer<'a> {
    /// The status.
    pub status: StatusCode,
    /// Clerk's own id of the request, from `x-clerk-trace-id`.
    pub clerk_trace_id: Option<&'a str>,
}

/// An attempt that is about to be sent.
#[derive(Debug, Clone, Copy)]
pub struct AttemptStart<'a> {
    /// What the ledger counts it as.
    pub request: &'a RequestStart,
    /// Its number among the attempts of its request, from 1. An immediate resend on a new connection has the number of
    /// the attempt that it repeats.
    pub number: u32,
    /// How long it waited in the limiter's queue.
    pub waited: Duration,
    /// Extensions of a forwarded request's head; `None` for a request of this library, such as a batch.
    pub extensions: Option<&'a Extensions>,
    /// The lookups that share a request of this library, each with what its caller gave.
    pub members: &'a [Extensions],
}

/// The lookups that share a request.
#[derive(Debug, Clone, Default)]
pub struct RequestMembers(Option<Arc<[Extensions]>>);

impl RequestMembers {
    /// Most members that are kept: as many as OpenTelemetry keeps links of a span.
    pub(crate) const MOST: usize = 128;

    pub(crate) fn as_slice(&self) -> &[Extensions] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<Vec<Extensions>> for RequestMembers {
    fn from(members: Vec<Extensions>) -> Self {
        Self((!members.is_empty()).then(|| members.into()))
    }
}

/// The same members, not equal ones: extensions cannot be compared.
impl PartialEq for RequestMembers {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for RequestMembers {}
