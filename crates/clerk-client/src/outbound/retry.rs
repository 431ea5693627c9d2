//! Decides whether and when to retry. Pure: time, randomness and the budget are passed in.
//!
//! - `Retry-After` (RFC 9110, section 10.2.3) is the minimum wait. If it exceeds the policy's maximum, the request is
//!   not retried and the caller gets the response with its header.
//! - Exponential backoff with full jitter is added, so that clients that failed together do not retry together.
//! - A 429 was not executed, but only the caller knows whether retrying a write is acceptable. After other failures
//!   the request may have been executed, so only safe methods are retried by default (RFC 9110, section 9.2.1).
//! - Retries are limited to a share of the traffic ([`RetryBudget`]).

use std::time::Duration;

use http::{Method, StatusCode};

use super::retry_budget::RetryBudget;
use crate::transport::ErrorKind;
use clerk_quota::Moment;

/// Minimum wait before a retry, whatever header and jitter yield. Prevents tight loops.
pub const MIN_WAIT: Duration = Duration::from_millis(100);

/// How often to retry and how long to wait.
///
/// ```
/// use std::time::Duration;
///
/// use clerk_client::outbound::RetryBudget;
/// use clerk_client::outbound::retry::{AttemptOutcome, Idempotency, RetryableError};
/// use clerk_client::outbound::retry::{RetryDecision, RetryPolicy, RetryState};
/// use clerk_quota::Moment;
///
/// let now = Moment::from_unix(Duration::from_secs(1_800_000_000));
/// let standing = RetryState { attempts: 1, idempotency: Idempotency::Idempotent, left: Duration::from_secs(60) };
/// let retry_after = Some(Duration::from_secs(9));
/// let outcome = AttemptOutcome::Failed { error: RetryableError::Throttled, retry_after };
/// let jitter = 0.5;
/// match RetryPolicy::default().decide(standing, outcome, &mut RetryBudget::new(now), now, jitter) {
///     RetryDecision::Retry { after, .. } => assert!(after >= Duration::from_secs(9)),
///     RetryDecision::Stop(reason) => panic!("{reason:?}"),
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Retries after the first attempt.
    pub max_retries: u32,
    /// Largest backoff before the first retry; doubles with each retry.
    pub base: Duration,
    /// Upper bound of the backoff.
    pub max_backoff: Duration,
    /// Longest accepted `Retry-After`. Should be at least the limiter's window.
    pub max_wait: Duration,
}

setters!(RetryPolicy { max_retries: u32, base: Duration, max_backoff: Duration, max_wait: Duration });

impl Default for RetryPolicy {
    /// 3 retries, 1 s doubling up to 30 s, and no `Retry-After` beyond 60 s.
    fn default() -> Self {
        Self {
            max_retries: 3,
            base: Duration::from_secs(1),
            max_backoff: Duration::from_secs(30),
            max_wait: Duration::from_secs(60),
        }
    }
}

/// Which failures allow a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// None: the request is sent once.
    NonIdempotent,
    /// Only a 429, which Clerk sends before it executes anything.
    RetryIfThrottled,
    /// Any temporary failure: sending it twice has the same effect as sending it once.
    Idempotent,
}

impl Idempotency {
    /// The default for a method: idempotent for GET, HEAD and OPTIONS, otherwise not.
    #[must_use]
    pub fn of(method: &Method) -> Self {
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            Self::Idempotent
        } else {
            Self::NonIdempotent
        }
    }

    /// Whether a retry after this error is allowed.
    #[must_use]
    pub fn allows(self, error: RetryableError) -> bool {
        match self {
            Self::NonIdempotent => false,
            Self::RetryIfThrottled => error == RetryableError::Throttled,
            Self::Idempotent => true,
        }
    }
}

/// A temporary failure. A closed set, because it is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RetryableError {
    /// 429.
    Throttled,
    /// 502, 503 or 504.
    Unavailable,
    /// No connection: the request was not sent.
    ConnectFailed,
    /// No response in time: the request may have been executed.
    NoResponse,
}

impl RetryableError {
    /// All errors.
    pub const ALL: [Self; 4] = [Self::Throttled, Self::Unavailable, Self::ConnectFailed, Self::NoResponse];

    /// The name in labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::ConnectFailed => "connect_failed",
            Self::NoResponse => "no_response",
        }
    }

    /// The error for a status; `None` for a success or a permanent error.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Some(Self::Throttled),
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Some(Self::Unavailable)
            }
            _ => None,
        }
    }

    /// The error for a failed request; `None` if a retry would fail again.
    #[must_use]
    pub const fn of_error(kind: ErrorKind) -> Option<Self> {
        match kind {
            ErrorKind::Dns | ErrorKind::Connect | ErrorKind::Tls => Some(Self::ConnectFailed),
            ErrorKind::Timeout | ErrorKind::Broken => Some(Self::NoResponse),
            ErrorKind::Decode | ErrorKind::Other => None,
        }
    }
}

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// A retry would not change the outcome.
    Final,
    /// A retry may succeed.
    Failed {
        /// What went wrong.
        error: RetryableError,
        /// The server's `Retry-After`, counted from the response.
        retry_after: Option<Duration>,
    },
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Retry after this time.
    Retry {
        /// The wait, from now.
        after: Duration,
        /// Why.
        error: RetryableError,
    },
    /// Return the last result to the caller.
    Stop(StopReason),
}

/// Why a request was not retried. A closed set, because it is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StopReason {
    /// It succeeded or failed permanently.
    Final,
    /// Its [`Idempotency`] does not allow it.
    NotRetryable,
    /// All attempts were made.
    MaxAttempts,
    /// `Retry-After` is longer than the policy waits.
    WaitTooLong,
    /// The wait would end after the call's deadline.
    Deadline,
    /// The retry budget is exhausted.
    Budget,
}

impl StopReason {
    /// All reasons.
    pub const ALL: [Self; 6] =
        [Self::Final, Self::NotRetryable, Self::MaxAttempts, Self::WaitTooLong, Self::Deadline, Self::Budget];

    /// The name in labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::NotRetryable => "not_retryable",
            Self::MaxAttempts => "max_attempts",
            Self::WaitTooLong => "wait_too_long",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
        }
    }
}

/// The state of a call after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryState {
    /// Attempts made so far, at least 1.
    pub attempts: u32,
    /// Which failures allow a retry.
    pub idempotency: Idempotency,
    /// Time left until the call's deadline.
    pub left: Duration,
}

impl RetryPolicy {
    /// Decides what to do after an attempt. `random` is between 0 and 1.
    ///
    /// Withdraws from the budget only for a retry. Everything that rules a retry out is checked before waiting.
    pub fn decide(
        &self,
        standing: RetryState,
        outcome: AttemptOutcome,
        budget: &mut RetryBudget,
        now: Moment,
        random: f64,
    ) -> RetryDecision {
        let AttemptOutcome::Failed { error, retry_after } = outcome else {
            return RetryDecision::Stop(StopReason::Final);
        };
        let allowed = standing.idempotency.allows(error);
        if !allowed {
            return RetryDecision::Stop(StopReason::NotRetryable);
        }
        if standing.attempts > self.max_retries {
            return RetryDecision::Stop(StopReason::MaxAttempts);
        }
        let floor = retry_after.unwrap_or_default();
        if floor > self.max_wait {
            return RetryDecision::Stop(StopReason::WaitTooLong);
        }
        let after = (floor + self.backoff(standing.attempts).mul_f64(random.clamp(0.0, 1.0))).max(MIN_WAIT);
        if after >= standing.left {
            return RetryDecision::Stop(StopReason::Deadline);
        }
        if !budget.withdraw(now) {
            return RetryDecision::Stop(StopReason::Budget);
        }
        RetryDecision::Retry { after, error }
    }

    /// Upper bound of the backoff after this many attempts.
    fn backoff(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(doubled).min(self.max_backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_unix(Duration::from_secs(1_000));

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn failed(error: RetryableError, retry_after: Option<f64>) -> AttemptOutcome {
        AttemptOutcome::Failed { error, retry_after: retry_after.map(seconds) }
    }

    fn decide(attempts: u32, repeat: Idempotency, outcome: AttemptOutcome, random: f64) -> RetryDecision {
        let standing = RetryState { attempts, idempotency: repeat, left: seconds(600.0) };
        RetryPolicy::default().decide(standing, outcome, &mut RetryBudget::new(NOW), NOW, random)
    }

    fn wait(attempts: u32, outcome: AttemptOutcome, random: f64) -> f64 {
        match decide(attempts, Idempotency::Idempotent, outcome, random) {
            RetryDecision::Retry { after, .. } => after.as_secs_f64(),
            RetryDecision::Stop(reason) => panic!("stopped: {reason:?}"),
        }
    }

    #[test]
    fn idempotency_decides_which_errors_are_retried() {
        use Idempotency::{Idempotent, NonIdempotent, RetryIfThrottled};
        use StopReason::NotRetryable;
        for (repeat, error, stop) in [
            (Idempotent, RetryableError::Throttled, None),
            (Idempotent, RetryableError::Unavailable, None),
            (Idempotent, RetryableError::ConnectFailed, None),
            (Idempotent, RetryableError::NoResponse, None),
            (RetryIfThrottled, RetryableError::Throttled, None),
            (RetryIfThrottled, RetryableError::Unavailable, Some(NotRetryable)),
            (RetryIfThrottled, RetryableError::ConnectFailed, Some(NotRetryable)),
            (RetryIfThrottled, RetryableError::NoResponse, Some(NotRetryable)),
            (NonIdempotent, RetryableError::Throttled, Some(NotRetryable)),
            (NonIdempotent, RetryableError::NoResponse, Some(NotRetryable)),
        ] {
            let stopped = match decide(1, repeat, failed(error, None), 0.5) {
                RetryDecision::Stop(reason) => Some(reason),
                RetryDecision::Retry { .. } => None,
            };
            assert_eq!(stopped, stop, "{repeat:?} {error:?}");
        }
    }

    #[test]
    fn temporary_statuses_and_errors_are_retryable() {
        let passing: Vec<u16> = (100..600)
            .filter(|status| RetryableError::of_status(StatusCode::from_u16(*status).unwrap()).is_some())
            .collect();
        assert_eq!(passing, [429, 502, 503, 504]);
        for (kind, error) in [
            (ErrorKind::Dns, Some(RetryableError::ConnectFailed)),
            (ErrorKind::Connect, Some(RetryableError::ConnectFailed)),
            (ErrorKind::Tls, Some(RetryableError::ConnectFailed)),
            (ErrorKind::Timeout, Some(RetryableError::NoResponse)),
            (ErrorKind::Broken, Some(RetryableError::NoResponse)),
            (ErrorKind::Decode, None),
            (ErrorKind::Other, None),
        ] {
            assert_eq!(RetryableError::of_error(kind), error, "{kind:?}");
        }
    }

    #[test]
    fn safe_methods_are_idempotent_by_default() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(Idempotency::of(&method), Idempotency::Idempotent);
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(Idempotency::of(&method), Idempotency::NonIdempotent);
        }
    }

    #[test]
    fn retry_after_is_the_minimum_wait_for_every_status() {
        for error in [RetryableError::Throttled, RetryableError::Unavailable] {
            for random in [0.0, 0.3, 1.0] {
                let wait = wait(1, failed(error, Some(30.0)), random);
                assert!((30.0..=31.0).contains(&wait), "{wait}");
            }
        }
    }

    #[test]
    fn retry_after_zero_still_waits() {
        assert!(wait(1, failed(RetryableError::Throttled, Some(0.0)), 0.0) >= MIN_WAIT.as_secs_f64());
    }

    #[test]
    fn backoff_doubles_up_to_its_cap_with_full_jitter() {
        let policy = RetryPolicy { max_retries: 100, ..RetryPolicy::default() };
        let waits: Vec<u64> = (1..8).map(|attempts| policy.backoff(attempts).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(policy.backoff(99), policy.max_backoff);
        let outcome = failed(RetryableError::Unavailable, None);
        assert!((wait(2, outcome, 0.25) - 0.5).abs() < 1e-9);
        assert!((wait(2, outcome, 0.75) - 1.5).abs() < 1e-9);
    }

    #[test]
    fn retry_after_above_the_maximum_is_not_retried() {
        for header in [60.001, 451.0, 3600.0, 999_999_999.0] {
            let decision = decide(1, Idempotency::Idempotent, failed(RetryableError::Throttled, Some(header)), 0.0);
            assert_eq!(decision, RetryDecision::Stop(StopReason::WaitTooLong), "{header}");
        }
        assert!(wait(1, failed(RetryableError::Throttled, Some(60.0)), 0.0) >= 60.0);
    }

    #[test]
    fn max_attempts_and_deadline_stop_retries() {
        let outcome = failed(RetryableError::Unavailable, None);
        assert!(matches!(decide(3, Idempotency::Idempotent, outcome, 0.5), RetryDecision::Retry { .. }));
        assert_eq!(decide(4, Idempotency::Idempotent, outcome, 0.5), RetryDecision::Stop(StopReason::MaxAttempts));
        let standing = RetryState { attempts: 1, idempotency: Idempotency::Idempotent, left: seconds(5.0) };
        let outcome = failed(RetryableError::Throttled, Some(5.0));
        let decision = RetryPolicy::default().decide(standing, outcome, &mut RetryBudget::new(NOW), NOW, 0.0);
        assert_eq!(decision, RetryDecision::Stop(StopReason::Deadline));
    }

    #[test]
    fn stopping_for_another_reason_costs_no_budget() {
        let mut budget = RetryBudget::new(NOW);
        for _ in 0..100 {
            let standing = RetryState { attempts: 1, idempotency: Idempotency::NonIdempotent, left: seconds(600.0) };
            RetryPolicy::default().decide(standing, failed(RetryableError::NoResponse, None), &mut budget, NOW, 0.5);
        }
        assert!(budget.withdraw(NOW));
    }
}
