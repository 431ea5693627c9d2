//! The one account of what was spent: every request that may have reached Clerk passes through an [`AttemptGuard`].
//!
//! Ledger, limiter, counters and the view of who spends the quota learn of a request here and nowhere else: when it is sent,
//! and once how it ended. A guard that is dropped without a word (its caller gave up, its connection broke, its task was
//! cancelled) counts its request, since Clerk may have counted it. So nothing can be spent without being counted.

use std::fmt;
use std::sync::Arc;

use super::Outbound;
use crate::limiter::Permit;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Handle;
use clerk_quota::{Attempt, AttemptEnd, Bucket, Entity, Moment, Observation, RequestStart};

/// What keeps, beyond the end of this process, when requests were sent. Called before each of them is sent, and must not
/// wait.
pub trait AttemptJournal: fmt::Debug + Send + Sync + 'static {
    /// A request of this budget is about to be sent.
    fn sent(&self, bucket: Bucket, entity: Option<Entity>, at: Moment);
}

/// A request that is sent and may be counted by Clerk. Dropped, it no longer is in flight; where nothing was said of its end,
/// Clerk may have counted it.
#[derive(Debug)]
#[must_use = "dropping it ends the request"]
pub struct AttemptGuard {
    permit: Permit,
    ledger: Handle,
    clock: Arc<Clock>,
    /// None once its end is told.
    attempt: Option<Attempt>,
}

impl AttemptGuard {
    /// A request is about to be sent.
    pub(super) fn begin(outbound: &Outbound, request: &RequestStart, permit: Permit) -> Self {
        let attempt = outbound.ledger.lock().begin(request);
        if attempt.bucket.is_limited()
            && let Some(journal) = &outbound.limits.journal
        {
            journal.sent(attempt.bucket, attempt.entity, request.at);
        }
        let (ledger, clock) = (Arc::clone(&outbound.ledger), Arc::clone(&outbound.clock));
        Self { permit, ledger, clock, attempt: Some(attempt) }
    }

    /// The head of the response came.
    pub(super) fn answered(&mut self, observation: &Observation) {
        let Some(attempt) = self.attempt.take() else { return };
        let counted = self.ledger.lock().end(attempt, observation.at, AttemptEnd::Answered(observation));
        if counted == attempt.bucket {
            self.permit.answered(observation);
        } else {
            // Its response tells of another budget, which it was counted in.
            self.permit.learn(&Observation { bucket: counted, ..*observation });
            self.permit.unsent();
        }
    }

    /// The response is held up by whoever reads it: others may have its place meanwhile.
    pub(super) fn hold(&mut self) {
        self.permit.hold();
    }

    /// More of the response is asked for.
    pub(super) fn resume(&mut self) {
        self.permit.resume();
    }

    /// The request surely never left this machine, or was surely not looked at.
    pub(super) fn unsent(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.ledger.lock().end(attempt, self.clock.now(), AttemptEnd::NotSent);
        }
        self.permit.unsent();
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.ledger.lock().end(attempt, self.clock.now(), AttemptEnd::Unanswered);
        }
    }
}
