//! Accounting of attempts: every request that may have reached Clerk has an [`AttemptGuard`].
//!
//! The guard updates the ledger, which includes the per-caller view, and the limiter: once when the request is sent and
//! once when it ends. A guard dropped without a result (caller gone, connection broken, task cancelled) counts its
//! request, because Clerk may have counted it.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, StatusCode};

use super::Outbound;
use super::attempt_log::{AttemptAnswer, AttemptEntry};
use crate::limiter::Permit;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Handle;
use clerk_quota::{Attempt, AttemptEnd, Bucket, Entity, Moment, Observation, RequestStart};

/// Clerk's own id of a request.
const CLERK_TRACE_ID: HeaderName = HeaderName::from_static("x-clerk-trace-id");

/// Persists the times of requests across restarts. Called before each send; must not block.
pub trait AttemptJournal: fmt::Debug + Send + Sync + 'static {
    /// Records that a request counted in this bucket is about to be sent.
    fn sent(&self, bucket: Bucket, entity: Option<Entity>, at: Moment);
}

/// A request in flight. Dropping it ends the request; without a recorded result, Clerk may have counted it.
#[derive(Debug)]
#[must_use = "dropping it ends the request"]
pub struct AttemptGuard {
    permit: Permit,
    ledger: Handle,
    clock: Arc<Clock>,
    /// `None` once the result is recorded.
    attempt: Option<Attempt>,
    /// `None` without a log, and once the end is logged.
    entry: Option<Box<dyn AttemptEntry>>,
}

impl AttemptGuard {
    /// Records that a request is about to be sent.
    pub(super) fn begin(
        outbound: &Outbound,
        request: &RequestStart,
        permit: Permit,
        entry: Option<Box<dyn AttemptEntry>>,
    ) -> Self {
        let attempt = outbound.ledger.lock().begin(request);
        if attempt.bucket.is_limited()
            && let Some(journal) = &outbound.limits.journal
        {
            journal.sent(attempt.bucket, attempt.entity, request.at);
        }
        let (ledger, clock) = (Arc::clone(&outbound.ledger), Arc::clone(&outbound.clock));
        Self { permit, ledger, clock, attempt: Some(attempt), entry }
    }

    /// Records the response's head.
    pub(super) fn answered(&mut self, observation: &Observation, headers: &HeaderMap) {
        let Some(attempt) = self.attempt.take() else { return };
        if let Some(entry) = self.entry.take() {
            let clerk_trace_id = headers.get(CLERK_TRACE_ID).and_then(|id| id.to_str().ok());
            let status = StatusCode::from_u16(observation.status).ok();
            entry.end(observation.at, status.map(|status| AttemptAnswer { status, clerk_trace_id }));
        }
        let counted = self.ledger.lock().end(attempt, observation.at, AttemptEnd::Answered(observation));
        if counted == attempt.bucket {
            self.permit.answered(observation);
        } else {
            // The response shows that Clerk counted the request in another bucket.
            self.permit.learn(&Observation { bucket: counted, ..*observation });
            self.permit.unsent();
        }
    }

    /// Releases the slot while the reader is not reading the response.
    pub(super) fn hold(&mut self) {
        self.permit.hold();
    }

    /// Takes the slot again when more of the response is read.
    pub(super) fn resume(&mut self) {
        self.permit.resume();
    }

    /// Records that the request certainly never left, or that the server certainly did not process it.
    pub(super) fn unsent(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.ledger.lock().end(attempt, self.clock.now(), AttemptEnd::NotSent);
        }
        self.entry = None;
        self.permit.unsent();
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            let now = self.clock.now();
            self.ledger.lock().end(attempt, now, AttemptEnd::Unanswered);
            if let Some(entry) = self.entry.take() {
                entry.end(now, None);
            }
        }
    }
}
