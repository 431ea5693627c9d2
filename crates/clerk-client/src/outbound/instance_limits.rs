//! What all requests to one instance share, and what it counted.

use std::sync::Arc;

use parking_lot::Mutex;

use super::account::AttemptJournal;
use super::retry::{AttemptOutcome, RetryDecision, RetryPolicy, RetryState, RetryableError, StopReason};
use super::retry_budget::RetryBudget;
use crate::limiter::{self, DistributedLimiter, Limiter};
use clerk_quota::clock::Clock;

/// Pacer, retry budget and counters of one instance. Outlives a reload of the configuration.
#[derive(Debug)]
pub struct InstanceLimits {
    /// Decides when requests leave.
    pub limiter: Arc<Limiter>,
    /// Where it is written when requests are sent, if that is to outlive the process.
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

/// What was sent so far and how it stands. Probes and other single attempts are not in it, but for
/// [`limiter::LimiterStats::in_flight`].
#[derive(Debug, Clone, PartialEq)]
pub struct RequestStats {
    /// Requests that were asked for, whether or not they were let go.
    pub requests: u64,
    /// Attempts that were made of them. Divided by the requests that were let go, this is the amplification.
    pub attempts: u64,
    /// Attempts beyond the first, by what made them necessary, in the order of [`RetryableError::ALL`].
    pub retried: [u64; RetryableError::ALL.len()],
    /// Ends of requests, by why they were not sent again, in the order of [`StopReason::ALL`].
    pub stopped: [u64; StopReason::ALL.len()],
    /// Waiting for the rate limit.
    pub pace: limiter::LimiterStats,
}

impl InstanceLimits {
    /// The flow of an instance of which nothing is known but what is configured.
    #[must_use]
    pub fn new(options: limiter::LimiterOptions, clock: Arc<Clock>) -> Self {
        Self::with_limiter(Limiter::new(options, Arc::clone(&clock)), clock)
    }

    /// The flow of an instance whose limit several processes share.
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

    /// All counters.
    #[must_use]
    pub fn stats(&self) -> RequestStats {
        let pace = self.limiter.stats();
        let retries = self.retries.lock();
        let Retries { requests, attempts, retried, stopped, .. } = *retries;
        RequestStats { requests, attempts, retried, stopped, pace }
    }

    /// A request is asked for.
    pub(super) fn begin(&self) {
        let mut retries = self.retries.lock();
        retries.requests += 1;
        retries.budget.deposit();
    }

    /// An attempt is made.
    pub(super) fn count_attempt(&self) {
        self.retries.lock().attempts += 1;
    }

    /// What to do after an attempt.
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
