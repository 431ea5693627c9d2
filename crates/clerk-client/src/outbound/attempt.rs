//! One attempt: sends a request once and turns its response into an observation.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_ENCODING;
use tokio::time::{Instant, timeout_at};

use super::account::AttemptGuard;
use super::attempt_log::AttemptStart;
use super::error::{RequestError, is_undone};
use super::error_body::ErrorBody;
use super::request::{OutboundRequest, UploadProgress};
use super::response::{UpstreamBody, UpstreamResponse, read_body};
use super::{MAX_BODY_BYTES, Outbound, observe};
use crate::limiter::{Permit, Sender};
use crate::transport::{FreshConnection, ResponseFuture, TransportError};
use clerk_quota::{Bucket, Route};

/// Bytes of an error body to inspect when the body is forwarded.
const PEEK_BYTES: usize = 64 * 1024;

/// How much of a response is read before it is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyMode {
    /// The whole body, which shows best whether the response is Clerk's.
    Whole,
    /// The head; for errors the whole body. Other bodies are streamed.
    Stream,
    /// The head; for errors the first [`PEEK_BYTES`]. Every body is forwarded unchanged.
    Peek,
}

impl Outbound {
    /// Makes one attempt and reads as much of the response as `body_mode` says.
    ///
    /// Error bodies are read because the observation includes their codes. `timeout` is the duration behind `until`.
    pub(super) async fn attempt(
        &self,
        outbound_request: &mut OutboundRequest<'_>,
        permit: Permit,
        body_mode: BodyMode,
        until: Instant,
        timeout: Duration,
    ) -> Result<Box<UpstreamResponse>, RequestError> {
        let expired = |_| RequestError::Timeout(timeout);
        outbound_request.attempts += 1;
        let (response, mut guard) = self.send_once(outbound_request, permit, until, timeout).await?;
        let (at, wall) = (self.clock.now(), self.clock.wall());
        let (head, body) = response.into_parts();
        let (source, route) = (outbound_request.source(), outbound_request.route);
        let observe = |body: Option<&[u8]>, errors: &ErrorBody, guard: Option<&mut AttemptGuard>| {
            let observation = observe::observe(&head, body, errors, source, route, at, wall);
            if let Some(guard) = guard {
                guard.answered(&observation, &head.headers);
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
            // Compressed error bodies are not inspected: the error code is not worth the work and the risk.
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

    /// Sends the request, and once more on a new connection if the server closed an idle one or did not process the
    /// request. This is not a retry of the policy: nothing was rejected, and it does not wait.
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
            // Otherwise the server may have read the first one before it closed the connection, so it counts.
            drop(guard);
            let (bucket, entity) = (self.bucket_of(outbound_request.route), outbound_request.route.entity);
            let sender = Sender::ANY.of(outbound_request.caller());
            guard = self.begin(outbound_request, self.limits.limiter.pass(bucket, entity, sender));
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

    /// Starts counting a request that is about to be sent.
    fn begin(&self, request: &OutboundRequest<'_>, permit: Permit) -> AttemptGuard {
        let start = request.start(self.clock.now());
        let entry = self.log.as_ref().map(|log| {
            let (number, extensions) = (request.attempts, request.extensions());
            let (waited, members) = (permit.waited(), request.members());
            Arc::clone(log).begin(&AttemptStart { request: &start, number, waited, extensions, members })
        });
        AttemptGuard::begin(self, &start, permit, entry)
    }

    /// The bucket that a request of this route is counted in, as far as is known.
    pub(super) fn bucket_of(&self, route: Route) -> Bucket {
        self.ledger.lock().bucket_of(&route)
    }
}

/// Waits for the head of a response; `None` on timeout.
///
/// During an upload, the timeout restarts with each part of the body and is suspended while the next one is awaited.
async fn head_of(
    mut response: ResponseFuture,
    mut until: Instant,
    timeout: Duration,
    progress: Option<UploadProgress>,
) -> Option<Result<http::Response<crate::transport::Body>, TransportError>> {
    loop {
        if let Ok(result) = timeout_at(until, &mut response).await {
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
