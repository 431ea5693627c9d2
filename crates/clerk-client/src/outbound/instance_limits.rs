//! Limiter, retry budget and counters, shared by all requests to one instance.

use std::sync::Arc;

use parking_lot::Mutex;

use super::account::AttemptJournal;
use super::retry::{AttemptOutcome, RetryDecision, RetryPolicy, RetryState, RetryableError, StopReason};
use super::retry_budget::RetryBudget;
use crate::limiter::{self, DistributedLimiter, Limiter};
use clerk_quota::clock::Clock;

/// Limiter, retry budget and counters of one instance. Survives configuration reloads.
#[derive(Debug)]
pub struct InstanceLimits {
    /// The limiter, which decides when requests are sent.
    pub limiter: Arc<Limiter>,
    /// Persists the times of requests, if configured.
    pub journal: Option<Arc<dyn AttemptJournal>>,
    clock: Arc<Clock>,
    retries: Mutex<Retries>,
}

#[derive(Debug)]
struct Retries {
    budget: RetryBudget,
    requests: u64,
    attempts: u64,
    retried: [u64; RetryableError::ALL.len()],
    stopped: [u64; StopReason::ALL.len()],
}

/// Request counters of one instance.
///
/// Probes and other single attempts only count in [`limiter::LimiterStats::in_flight`].
#[derive(Debug, Clone, PartialEq)]
pub struct RequestStats {
    /// Requests, including those that the limiter rejected.
    pub requests: u64,
    /// Attempts. Divided by the admitted requests, this is the amplification.
    pub attempts: u64,
    /// Retries by cause, in the order of [`RetryableError::ALL`].
    pub retried: [u64; RetryableError::ALL.len()],
    /// Requests by the reason why they were not retried further, in the order of [`StopReason::ALL`].
    pub stopped: [u64; StopReason::ALL.len()],
    /// Statistics of the limiter.
    pub pace: limiter::LimiterStats,
}

impl InstanceLimits {
    /// Creates the limits of an instance from its configuration.
    #[must_use]
    pub fn new(options: limiter::LimiterOptions, clock: Arc<Clock>) -> Self {
        Self::with_limiter(Limiter::new(options, Arc::clone(&clock)), clock)
    }

    /// Creates the limits of an instance whose limit several processes share.
    #[must_use]
    pub fn sharing(options: limiter::LimiterOptions, clock: Arc<Clock>, budget: Arc<dyn DistributedLimiter>) -> Self {
        Self::with_limiter(Limiter::sharing(options, Arc::clone(&clock), budget), clock)
    }

    fn with_limiter(limiter: Arc<Limiter>, clock: Arc<Clock>) -> Self {
        let retries = Retries {
            budget: RetryBudget::new(clock.now()),
            requests: 0,
            attempts: 0,
            retried: [0; RetryableError::ALL.len()],
            stopped: [0; StopReason::ALL.len()],
        };
        Self { limiter, journal: None, clock, retries: Mutex::new(retries) }
    }

    /// Returns all counters.
    #[must_use]
    pub fn stats(&self) -> RequestStats {
        let pace = self.limiter.stats();
        let retries = self.retries.lock();
        let Retries { requests, attempts, retried, stopped, .. } = *retries;
        RequestStats { requests, attempts, retried, stopped, pace }
    }

    /// Counts a request.
    pub(super) fn begin(&self) {
        let mut retries = self.retries.lock();
        retries.requests += 1;
        retries.budget.deposit();
    }

    /// Counts an attempt.
    pub(super) fn count_attempt(&self) {
        self.retries.lock().attempts += 1;
    }

    /// Decides what to do after an attempt.
    pub(super) fn decide(&self, policy: &RetryPolicy, standing: RetryState, outcome: AttemptOutcome) -> RetryDecision {
        let mut retries = self.retries.lock();
        let decision = policy.decide(standing, outcome, &mut retries.budget, self.clock.now(), fastrand::f64());
        match decision {
            RetryDecision::Retry { error, .. } => retries.retried[error as usize] += 1,
            RetryDecision::Stop(reason) => retries.stopped[reason as usize] += 1,
        }
        decision
    }
}
