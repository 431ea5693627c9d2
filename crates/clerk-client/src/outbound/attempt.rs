//! One attempt: sent once, and its answer made into an observation.

use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_ENCODING;
use tokio::time::{Instant, timeout_at};

use super::account::AttemptGuard;
use super::error::{RequestError, is_undone};
use super::error_body::ErrorBody;
use super::request::{OutboundRequest, UploadProgress};
use super::response::{UpstreamBody, UpstreamResponse, read_body};
use super::{MAX_BODY_BYTES, Outbound, observe};
use crate::limiter::Permit;
use crate::transport::{FreshConnection, ResponseFuture, TransportError};
use clerk_quota::{Bucket, Route};

/// How much of an error's body is looked at where the body is handed on.
const PEEK_BYTES: usize = 64 * 1024;

/// How much of an answer is read before it is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyMode {
    /// All of it: whether it is Clerk's can be told better.
    Whole,
    /// Its head, and of an error all of it; another body is handed on as it comes.
    Stream,
    /// Its head, and the beginning of an error; every body is handed on, byte for byte.
    Peek,
}

impl Outbound {
    /// One attempt, up to the head of the answer, or to its end; of an error the body is read, or its beginning, since it
    /// is part of what is observed. `timeout` is what `until` was made of.
    pub(super) async fn attempt(
        &self,
        outbound_request: &mut OutboundRequest<'_>,
        permit: Permit,
        body_mode: BodyMode,
        until: Instant,
        timeout: Duration,
    ) -> Result<Box<UpstreamResponse>, RequestError> {
        let expired = |_| RequestError::Timeout(timeout);
        let (response, mut guard) = self.send_once(outbound_request, permit, until, timeout).await?;
        let (at, wall) = (self.clock.now(), self.clock.wall());
        let (head, body) = response.into_parts();
        let (source, route) = (outbound_request.source(), outbound_request.route);
        let observe = |body: Option<&[u8]>, errors: &ErrorBody, guard: Option<&mut AttemptGuard>| {
            let observation = observe::observe(&head, body, errors, source, route, at, wall);
            if let Some(guard) = guard {
                guard.answered(&observation);
            }
            observation
        };
        if body_mode != BodyMode::Whole && !is_error(head.status) {
            let observation = observe(None, &ErrorBody::default(), Some(&mut guard));
            let mut body = UpstreamBody::streamed(body, guard);
            body.hand_over();
            return Ok(Box::new(UpstreamResponse { head, body, observation, errors: ErrorBody::default() }));
        }
        if body_mode == BodyMode::Peek {
            let mut body = UpstreamBody::streamed(body, guard);
            // What is compressed is not read for us: a code in it is not worth the work and the risk.
            let is_complete = !head.headers.contains_key(CONTENT_ENCODING)
                && matches!(timeout_at(until, body.fill(PEEK_BYTES, timeout)).await, Ok(Ok(true)));
            let seen = body.seen();
            let errors = ErrorBody::parse(head.status, if is_complete { &seen } else { &[] });
            let observation = observe(is_complete.then_some(&seen), &errors, body.guard());
            if is_complete {
                body.release();
            } else {
                body.hand_over();
            }
            return Ok(Box::new(UpstreamResponse { head, body, observation, errors }));
        }
        let read =
            timeout_at(until, read_body(body, MAX_BODY_BYTES)).await.map_err(expired).and_then(|read| match read {
                Ok(Some(body)) => Ok(body),
                Ok(None) => Err(RequestError::BodyTooLarge { status: head.status }),
                Err(error) => Err(error.into()),
            });
        let errors = ErrorBody::parse(head.status, read.as_deref().unwrap_or_default());
        let observation = observe(read.as_deref().ok(), &errors, Some(&mut guard));
        Ok(Box::new(UpstreamResponse { body: UpstreamBody::whole(read?), head, observation, errors }))
    }

    /// Sends the request, and once more on a new connection if the server closed an idle one meanwhile, or says that it
    /// did nothing with the request. That is no retry: nobody says no, and nothing is waited for.
    async fn send_once(
        &self,
        outbound_request: &mut OutboundRequest<'_>,
        permit: Permit,
        until: Instant,
        timeout: Duration,
    ) -> Result<(http::Response<crate::transport::Body>, AttemptGuard), RequestError> {
        let mut guard = self.begin(outbound_request, permit);
        let (request, progress) = outbound_request.request(self).inspect_err(|_| guard.unsent())?;
        let expired = || RequestError::Timeout(timeout);
        let mut result = head_of(self.transport.send(request), until, timeout, progress).await.ok_or_else(expired)?;
        let again = result.as_ref().err().and_then(|error| outbound_request.again(self, error));
        let is_unprocessed = result.as_ref().is_err_and(TransportError::is_unprocessed);
        if let Some(again) = again {
            if is_unprocessed {
                guard.unsent();
            }
            // Otherwise the first one may have been read before the connection was closed.
            drop(guard);
            let Route { entity, .. } = outbound_request.route;
            guard =
                self.begin(outbound_request, self.limits.limiter.pass(self.bucket_of(outbound_request.route), entity));
            let (mut request, progress) = again.inspect_err(|_| guard.unsent())?;
            request.extensions_mut().insert(FreshConnection);
            result = head_of(self.transport.send(request), until, timeout, progress).await.ok_or_else(expired)?;
        }
        match result {
            Ok(response) => Ok((response, guard)),
            Err(error) => {
                if is_undone(&error) {
                    guard.unsent();
                }
                Err(error.into())
            }
        }
    }

    /// A request is about to be sent, and is counted from now on.
    fn begin(&self, request: &OutboundRequest<'_>, permit: Permit) -> AttemptGuard {
        AttemptGuard::begin(self, &request.start(self.clock.now()), permit)
    }

    /// The budget that a request of this route is counted in, as far as is known.
    pub(super) fn bucket_of(&self, route: Route) -> Bucket {
        self.ledger.lock().bucket_of(&route)
    }
}

/// Waits for the head of an answer. While a body is being sent, the time begins anew with each part of it, and does not
/// pass while the next one is yet to come.
async fn head_of(
    mut answer: ResponseFuture,
    mut until: Instant,
    timeout: Duration,
    progress: Option<UploadProgress>,
) -> Option<Result<http::Response<crate::transport::Body>, TransportError>> {
    loop {
        if let Ok(result) = timeout_at(until, &mut answer).await {
            return Some(result);
        }
        let later = progress.as_ref()?.due(timeout);
        if later <= until {
            return None;
        }
        until = later;
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}
