//! What all requests to one instance share, and what it counted.

use std::sync::Arc;

use parking_lot::Mutex;

use super::budget::RetryBudget;
use super::limiter::{self, DistributedLimiter, Limiter};
use super::retry::{Decision, Outcome, RetryPolicy, Standing, StopReason, Trouble};
use clerk_quota::clock::Clock;

/// Pacer, retry budget and counters of one instance. Outlives a reload of the configuration.
#[derive(Debug)]
pub struct Flow {
    /// Decides when requests leave.
    pub pacer: Arc<Limiter>,
    clock: Arc<Clock>,
    retries: Mutex<Retries>,
}

#[derive(Debug)]
struct Retries {
    budget: RetryBudget,
    requests: u64,
    attempts: u64,
    retried: [u64; Trouble::ALL.len()],
    stopped: [u64; StopReason::ALL.len()],
}

/// What was sent so far and how it stands. Probes and other single attempts are not in it, but for
/// [`pace::Numbers::in_flight`].
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// Requests that were asked for, whether or not they were let go.
    pub requests: u64,
    /// Attempts that were made of them. Divided by the requests that were let go, this is the amplification.
    pub attempts: u64,
    /// Attempts beyond the first, by what made them necessary, in the order of [`Trouble::ALL`].
    pub retried: [u64; Trouble::ALL.len()],
    /// Ends of requests, by why they were not sent again, in the order of [`StopReason::ALL`].
    pub stopped: [u64; StopReason::ALL.len()],
    /// Waiting for the rate limit.
    pub pace: limiter::LimiterStats,
}

impl Flow {
    /// The flow of an instance of which nothing is known but what is configured.
    #[must_use]
    pub fn new(options: limiter::LimiterOptions, clock: Arc<Clock>) -> Self {
        Self::over(Limiter::new(options, Arc::clone(&clock)), clock)
    }

    /// The flow of an instance whose limit several processes share.
    #[must_use]
    pub fn sharing(options: limiter::LimiterOptions, clock: Arc<Clock>, budget: Arc<dyn DistributedLimiter>) -> Self {
        Self::over(Limiter::sharing(options, Arc::clone(&clock), budget), clock)
    }

    fn over(pacer: Arc<Limiter>, clock: Arc<Clock>) -> Self {
        let retries = Retries {
            budget: RetryBudget::new(clock.now()),
            requests: 0,
            attempts: 0,
            retried: [0; Trouble::ALL.len()],
            stopped: [0; StopReason::ALL.len()],
        };
        Self { pacer, clock, retries: Mutex::new(retries) }
    }

    /// All counters.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let pace = self.pacer.stats();
        let retries = self.retries.lock();
        let Retries { requests, attempts, retried, stopped, .. } = *retries;
        Numbers { requests, attempts, retried, stopped, pace }
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
    pub(super) fn decide(&self, policy: &RetryPolicy, standing: Standing, outcome: Outcome) -> Decision {
        let mut retries = self.retries.lock();
        let decision = policy.decide(standing, outcome, &mut retries.budget, self.clock.now(), fastrand::f64());
        match decision {
            Decision::Retry { trouble, .. } => retries.retried[trouble as usize] += 1,
            Decision::Stop(reason) => retries.stopped[reason as usize] += 1,
        }
        decision
    }
}
