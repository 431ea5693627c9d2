//! Requests that are not ours: handed on as they came, with as much or as little of our help as is wanted.

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
    /// Hands a request on and gives the last answer to it, whatever its status. Dropping the future cancels.
    ///
    /// # Errors
    /// When the request was not let go, or the last attempt brought no answer.
    pub fn forward(
        &self,
        request: ForwardRequest,
        options: &ExecuteOptions,
    ) -> impl Future<Output = Result<ForwardedResponse, SendError>> + Send {
        let route = request.route;
        // Not in the future: what is given to one stays there beside what is made of it.
        let mut retryable = RetryableRequest::from(request);
        async move {
            let until = Instant::now() + options.deadline;
            self.run(&mut OutboundRequest::pending(&mut retryable, route), options, BodyMode::Peek, until).await
        }
    }
}
