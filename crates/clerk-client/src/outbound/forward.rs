//! Forwards requests of clients unchanged, with optional queueing and retries.

use std::future::Future;

use tokio::time::Instant;

use super::Outbound;
use super::api_request::ForwardRequest;
use super::attempt::BodyMode;
use super::error::SendError;
use super::options::ExecuteOptions;
use super::request::{OutboundRequest, RetryableRequest};
use super::response::ForwardedResponse;

impl Outbound {
    /// Forwards a request and returns the last response, whatever its status. Dropping the future cancels.
    ///
    /// # Errors
    /// Returns an error if the limiter rejects the request or the last attempt gets no response.
    pub fn forward(
        &self,
        request: ForwardRequest,
        options: &ExecuteOptions,
    ) -> impl Future<Output = Result<ForwardedResponse, SendError>> + Send {
        let route = request.route;
        // Converted outside the future: an async block would store both `request` and `retryable`.
        let mut retryable = RetryableRequest::from(request);
        async move {
            let until = Instant::now() + options.deadline;
            self.run(&mut OutboundRequest::pending(&mut retryable, route), options, BodyMode::Peek, until).await
        }
    }
}
