//! Requests that are not ours: handed on as they came, with as much or as little of our help as is wanted.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::{BodyMode, UpstreamResponse};
use super::request::{OutboundRequest, RetryableRequest};
use super::retry::{Idempotency, RetryPolicy};
use super::{Outbound, RequestOptions, SendError};
use crate::limiter::Priority;
use crate::transport::RequestBody;
use clerk_quota::Route;

/// A request of an application's.
#[derive(Debug)]
pub struct ForwardRequest {
    /// With an absolute URI, and its headers as they are to be sent.
    pub request: http::Request<RequestBody>,
    /// The route, found from the bytes that are sent.
    pub route: Route,
    /// Which failures allow it to be sent again. A body that is a stream is sent once, whatever this says.
    pub idempotency: Idempotency,
    /// Whose key it carries.
    pub credentials: Credentials,
}

/// Whose key a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// What its headers say, be it nothing.
    Client,
    /// The instance's own key, whatever its headers say.
    Instance,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueOptions {
    /// Who goes first.
    pub priority: Priority,
    /// Longest wait, before each attempt.
    pub max_wait: Duration,
}

/// How a request is treated: a [`Policy`] of which parts may be off.
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

/// The answer to a [`Relay`].
#[derive(Debug)]
pub struct ForwardedResponse {
    /// Head and body, byte for byte, and what they say.
    pub response: Box<UpstreamResponse>,
    /// Attempts made, at least 1.
    pub attempts: u32,
    /// Time spent waiting for the rate limit.
    pub waited: Duration,
    /// Time from the start of the last attempt to the head of its answer.
    pub latency: Duration,
}

impl Outbound {
    /// Hands a request on and gives the last answer to it, whatever its status. Dropping the future cancels.
    ///
    /// # Errors
    /// When the request was not let go, or the last attempt brought no answer.
    pub fn forward(
        &self,
        relay: ForwardRequest,
        handling: &ExecuteOptions,
    ) -> impl Future<Output = Result<ForwardedResponse, SendError>> + Send {
        let route = relay.route;
        // Not in the future: what is given to one stays there beside what is made of it.
        let mut pending = RetryableRequest::from(relay);
        async move {
            let until = Instant::now() + handling.deadline;
            self.run(&mut OutboundRequest::pending(&mut pending, route), handling, BodyMode::Peek, until).await
        }
    }
}
