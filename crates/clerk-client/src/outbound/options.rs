//! Options of a request: priority, retries and deadlines.

use std::time::Duration;

use super::retry::RetryPolicy;
use crate::limiter::Priority;

/// Priority, retries and deadlines of a request.
///
/// ```
/// use std::time::Duration;
///
/// use clerk_client::outbound::RequestOptions;
/// use clerk_client::outbound::retry::RetryPolicy;
///
/// // For an interactive page: fast or not at all.
/// let page = RequestOptions::default()
///     .retry(RetryPolicy::default().max_retries(1).max_wait(Duration::from_secs(1)))
///     .max_queue_wait(Duration::from_millis(500))
///     .attempt_timeout(Duration::from_secs(2))
///     .deadline(Duration::from_secs(3));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestOptions {
    /// Priority in the queue.
    pub priority: Priority,
    /// When to retry.
    pub retry: RetryPolicy,
    /// Longest wait in the queue before each attempt.
    pub max_queue_wait: Duration,
    /// Longest time from the start of an attempt to the response's head (for errors: to the end of the body).
    pub attempt_timeout: Duration,
    /// Longest total time: waits, attempts, and with [`Outbound::send`](super::Outbound::send) the body.
    pub deadline: Duration,
}

setters!(RequestOptions {
    priority: Priority,
    retry: RetryPolicy,
    max_queue_wait: Duration,
    attempt_timeout: Duration,
    deadline: Duration,
});

impl Default for RequestOptions {
    /// High priority: 30 s in the queue, 10 s per attempt, 90 s in total, which leaves room for the longest accepted
    /// `Retry-After`.
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
    /// Options for background work: low priority, up to 10 minutes in the queue and 20 minutes in total.
    #[must_use]
    pub fn low_priority() -> Self {
        let patience = Duration::from_secs(600);
        Self { priority: Priority::Low, max_queue_wait: patience, deadline: patience * 2, ..Self::default() }
    }
}

/// Priority and longest wait in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct QueueOptions {
    /// Priority in the queue.
    pub priority: Priority,
    /// Longest wait before each attempt.
    pub max_wait: Duration,
}

impl QueueOptions {
    /// Waits with this priority, at most this long before each attempt.
    #[must_use]
    pub const fn new(priority: Priority, max_wait: Duration) -> Self {
        Self { priority, max_wait }
    }
}

/// [`RequestOptions`] in which queueing and retries can be turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecuteOptions {
    /// How to wait for the rate limit. `None` sends at once; the request still counts.
    pub pace: Option<QueueOptions>,
    /// When to retry. `None` sends once.
    pub retry: Option<RetryPolicy>,
    /// Longest time from the start of an attempt, or from the last part of the request's body, to the response's head.
    pub attempt_timeout: Duration,
    /// Longest total time for waits and attempts, up to the last response's head. Progress of an upload extends it.
    pub deadline: Duration,
}

setters!(ExecuteOptions {
    pace: impl Into<Option<QueueOptions>>,
    retry: impl Into<Option<RetryPolicy>>,
    attempt_timeout: Duration,
    deadline: Duration,
});

impl Default for ExecuteOptions {
    /// Those of [`RequestOptions::default`].
    fn default() -> Self {
        Self::from(&RequestOptions::default())
    }
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
