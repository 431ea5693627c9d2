//! Permission to send one request.

use std::sync::Arc;
use std::time::Duration;

use super::Limiter;
use super::bucket_limiter::Ending;
use super::distributed::Lease;
use super::queue::Grant;
use clerk_quota::Observation;

/// Permission to send one request. The request is in flight until the permit is dropped.
///
/// If it is dropped without an outcome, Clerk may have counted the request.
#[derive(Debug)]
#[must_use = "dropping it ends the request"]
pub struct Permit {
    limiter: Arc<Limiter>,
    grant: Grant,
    waited: Duration,
    ended: bool,
    /// Whether its slot is released while the reader of the response is slow.
    is_held: bool,
    /// Entry in the distributed log, and how long it stays there after its end.
    lease: Option<(Lease, Duration)>,
}

impl Permit {
    pub(super) const fn new(limiter: Arc<Limiter>, grant: Grant) -> Self {
        Self { limiter, grant, waited: Duration::ZERO, ended: false, is_held: false, lease: None }
    }

    pub(super) const fn set_waited(&mut self, waited: Duration) {
        self.waited = waited;
    }

    pub(super) fn set_lease(&mut self, lease: Lease, window: Duration) {
        self.lease = Some((lease, window));
    }

    pub(super) const fn grant(&self) -> Grant {
        self.grant
    }

    pub(super) const fn set_grant(&mut self, grant: Grant) {
        self.grant = grant;
    }

    pub(super) const fn set_explores(&mut self, explores: bool) {
        self.grant.set_explores(explores);
    }

    /// Returns the time spent in the queue; zero if it was admitted at once.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// Reports the head of the response.
    pub fn answered(&mut self, observation: &Observation) {
        self.end(Ending::Answered(observation));
    }

    /// Reports a response that belongs to another bucket than the permit's.
    pub fn learn(&self, observation: &Observation) {
        self.limiter.observe(observation);
    }

    /// Reports that the request was not sent.
    pub fn unsent(&mut self) {
        self.end(Ending::Unsent);
    }

    /// Releases the slot while the reader of the response is slow.
    ///
    /// Does nothing if too many responses are held already.
    pub fn hold(&mut self) {
        if self.is_held {
            return;
        }
        let mut state = self.limiter.state.lock();
        if let Some(to_wake) = state.queue.hold(|| self.limiter.clock.now()) {
            self.is_held = true;
            state.notify(&to_wake);
        }
    }

    /// Takes the slot again: the reader continues, and more data must come from Clerk.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.is_held) {
            self.limiter.state.lock().queue.resume();
        }
    }

    fn end(&mut self, ending: Ending<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(lease) = self.lease.take() {
            self.limiter.report_end(self.grant.key(), lease, ending);
        }
        let mut state = self.limiter.state.lock();
        let now = self.limiter.clock.now();
        state.queue.end(self.grant, ending, now);
        let to_wake = state.queue.dispatch(now);
        state.notify(&to_wake);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(Ending::Lost);
        let mut state = self.limiter.state.lock();
        if self.is_held {
            state.queue.resume();
        }
        let to_wake = state.queue.release(|| self.limiter.clock.now());
        state.notify(&to_wake);
    }
}
