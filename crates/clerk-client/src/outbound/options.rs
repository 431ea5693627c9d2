//! How a request is treated: its place in the queue, its retries, its deadlines.

use std::time::Duration;

use super::retry::RetryPolicy;
use crate::limiter::Priority;

/// How much trouble a request is worth.
///
/// ```
/// use std::time::Duration;
///
/// use clerk_client::outbound::RequestOptions;
/// use clerk_client::outbound::retry::RetryPolicy;
///
/// // For a page that somebody looks at: quick or not at all.
/// let page = RequestOptions {
///     retry: RetryPolicy { max_retries: 1, max_wait: Duration::from_secs(1), ..RetryPolicy::default() },
///     max_queue_wait: Duration::from_millis(500),
///     attempt_timeout: Duration::from_secs(2),
///     deadline: Duration::from_secs(3),
///     ..RequestOptions::default()
/// };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestOptions {
    /// Who goes first.
    pub priority: Priority,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// Longest wait in the queue, before each attempt.
    pub max_queue_wait: Duration,
    /// Longest time that one attempt takes, from its start to the head of the answer (of an error, to its end).
    pub attempt_timeout: Duration,
    /// Longest time for everything: waits, attempts, and with [`Outbound::send`](super::Outbound::send) the body.
    pub deadline: Duration,
}

impl Default for RequestOptions {
    /// Interactive: 30 s in the queue, 10 s an attempt, 90 s for everything, so that a `Retry-After` of the longest wait
    /// fits in.
    fn default() -> Self {
        Self {
            priority: Priority::High,
            retry: RetryPolicy::default(),
            max_queue_wait: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(90),
        }
    }
}

impl RequestOptions {
    /// For work at which nobody waits: goes last, leaves a reserve, and waits ten minutes for its turn.
    #[must_use]
    pub fn low_priority() -> Self {
        let patience = Duration::from_secs(600);
        Self { priority: Priority::Low, max_queue_wait: patience, deadline: patience * 2, ..Self::default() }
    }
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueOptions {
    /// Who goes first.
    pub priority: Priority,
    /// Longest wait, before each attempt.
    pub max_wait: Duration,
}

/// How a request is treated: a [`RequestOptions`] of which parts may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecuteOptions {
    /// Waits for the rate limit; none: leaves at once, and is counted.
    pub pace: Option<QueueOptions>,
    /// Is sent again where that may help; none: once.
    pub retry: Option<RetryPolicy>,
    /// Longest time from the start of an attempt, or the last part of the request's body, to the head of the answer.
    pub attempt_timeout: Duration,
    /// Longest time for all waits and attempts, up to the head of the last answer. A body that is being sent prolongs
    /// it as it gets on.
    pub deadline: Duration,
}

impl From<&RequestOptions> for ExecuteOptions {
    fn from(policy: &RequestOptions) -> Self {
        let RequestOptions { priority, retry, max_queue_wait, attempt_timeout, deadline } = *policy;
        Self {
            pace: Some(QueueOptions { priority, max_wait: max_queue_wait }),
            retry: Some(retry),
            attempt_timeout,
            deadline,
        }
    }
}
