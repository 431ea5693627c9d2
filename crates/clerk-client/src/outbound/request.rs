//! The request behind an attempt: one of this library or a forwarded one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{Extensions, HeaderName, HeaderValue, Request, request};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Outbound;
use super::api_request::{ApiRequest, Credentials, ForwardRequest};
use super::error::RequestError;
use super::replay::ReplayableBody;
use super::retry::Idempotency;
use crate::transport::{BodyError, ErrorKind, RequestBody, TransportError};
use clerk_quota::{CallerId, MethodLabel, Moment, RequestStart, Route, Source};

/// The request of an attempt and, for a streamed body, its upload progress.
type NextAttempt = Result<(Request<RequestBody>, Option<UploadProgress>), RequestError>;

/// A request with its route.
#[derive(Debug)]
pub(super) struct OutboundRequest<'a> {
    pub(super) route: Route,
    /// Attempts so far.
    pub(super) attempts: u32,
    /// Whether it was already resent at once: an idle connection was closed, or the server did not process it. Done
    /// at most once.
    was_resent: bool,
    /// Whether the server may have executed the first send.
    pub(super) may_be_done: bool,
    kind: OutboundKind<'a>,
}

#[derive(Debug)]
enum OutboundKind<'a> {
    Api(&'a ApiRequest),
    Forward(&'a mut RetryableRequest),
}

/// A forwarded request between its attempts.
#[derive(Debug)]
pub(super) struct RetryableRequest {
    head: Arc<request::Parts>,
    omitted: &'static [HeaderName],
    body: SourceBody,
    idempotency: Idempotency,
    credentials: Credentials,
    caller: CallerId,
    method: MethodLabel,
}

/// The body of a forwarded request between its attempts.
#[derive(Debug)]
enum SourceBody {
    /// Whole, or a stream that was not sent yet.
    Unsent(RequestBody),
    /// Sent and not to be retried, but kept for a replay if the server did not process it.
    Sent(SentBody),
}

#[derive(Debug)]
enum SentBody {
    Whole(RequestBody),
    Stream(ReplayableBody),
}

impl From<ForwardRequest> for RetryableRequest {
    fn from(request: ForwardRequest) -> Self {
        let ForwardRequest { head, omitted, body, idempotency, credentials, caller, .. } = request;
        let method = MethodLabel::from(&head.method);
        Self { head, omitted, body: SourceBody::Unsent(body), idempotency, credentials, caller, method }
    }
}

impl RetryableRequest {
    /// The request of the next attempt.
    fn next(&mut self, outbound: &Outbound) -> NextAttempt {
        let body = self.next_body()?;
        self.with_body(body, outbound)
    }

    fn next_body(&mut self) -> Result<RequestBody, RequestError> {
        // Otherwise not reached: `idempotency` rules out retries then.
        let SourceBody::Unsent(body) = &mut self.body else { return Err(already_sent()) };
        if self.idempotency != Idempotency::NonIdempotent
            && let Some(copy) = body.try_clone()
        {
            return Ok(copy);
        }
        let sent = SentBody::new(std::mem::replace(body, RequestBody::empty()));
        let next = sent.next().ok_or_else(already_sent);
        self.body = SourceBody::Sent(sent);
        next
    }

    /// A copy of the head, with the key and, for a streamed body, the upload progress.
    fn with_body(&self, body: RequestBody, outbound: &Outbound) -> NextAttempt {
        // The extensions hold the original spelling of the header names.
        let mut next = Request::from_parts(request::Parts::clone(&self.head), body);
        for name in self.omitted {
            next.headers_mut().remove(name);
        }
        if self.credentials == Credentials::Instance {
            let key = outbound.key.current()?;
            next.headers_mut().insert(AUTHORIZATION, key.authorization_header());
        }
        if !next.body().is_stream() {
            return Ok((next, None));
        }
        let progress = UploadProgress::new();
        let next = next.map(|body| RequestBody::stream(ProgressBody { body, progress: progress.clone() }));
        Ok((next, Some(progress)))
    }
}

impl SentBody {
    fn new(body: RequestBody) -> Self {
        if body.is_stream() { Self::Stream(ReplayableBody::new(body)) } else { Self::Whole(body) }
    }

    /// The body from its start; `None` if it cannot be replayed.
    fn next(&self) -> Option<RequestBody> {
        match self {
            Self::Whole(body) => body.try_clone(),
            Self::Stream(body) => body.next(),
        }
    }
}

impl<'a> OutboundRequest<'a> {
    pub(super) fn of(call: &'a ApiRequest) -> Self {
        Self { route: call.route(), attempts: 0, was_resent: false, may_be_done: false, kind: OutboundKind::Api(call) }
    }

    pub(super) const fn pending(retryable: &'a mut RetryableRequest, route: Route) -> Self {
        Self { route, attempts: 0, was_resent: false, may_be_done: false, kind: OutboundKind::Forward(retryable) }
    }

    /// The data that accounting needs.
    pub(super) fn start(&self, at: Moment) -> RequestStart {
        let (caller, method) = match &self.kind {
            OutboundKind::Api(call) => (call.caller, MethodLabel::from(&call.method)),
            OutboundKind::Forward(retryable) => (retryable.caller, retryable.method),
        };
        RequestStart { at, source: self.source(), caller, route: self.route, method }
    }

    /// Extensions of a forwarded request's head.
    pub(super) fn extensions(&self) -> Option<&Extensions> {
        match &self.kind {
            OutboundKind::Api(_) => None,
            OutboundKind::Forward(retryable) => Some(&retryable.head.extensions),
        }
    }

    /// The lookups that share a request of this library.
    pub(super) fn members(&self) -> &[Extensions] {
        match &self.kind {
            OutboundKind::Api(call) => call.members.as_slice(),
            OutboundKind::Forward(_) => &[],
        }
    }

    /// The named caller that the request is attributed to.
    pub(super) fn caller(&self) -> CallerId {
        match &self.kind {
            OutboundKind::Api(call) => call.caller,
            OutboundKind::Forward(retryable) => retryable.caller,
        }
    }

    /// The kind of caller.
    pub(super) const fn source(&self) -> Source {
        match &self.kind {
            OutboundKind::Api(call) => call.source,
            OutboundKind::Forward(_) => Source::Gateway,
        }
    }

    /// Which failures allow a retry. Never once the body is gone.
    pub(super) const fn idempotency(&self) -> Idempotency {
        match &self.kind {
            OutboundKind::Api(call) => call.idempotency,
            OutboundKind::Forward(RetryableRequest { body: SourceBody::Sent(_), .. }) => Idempotency::NonIdempotent,
            OutboundKind::Forward(retryable) => retryable.idempotency,
        }
    }

    /// The request of the next attempt and, for a streamed body, its upload progress.
    pub(super) fn request(&mut self, outbound: &Outbound) -> NextAttempt {
        match &mut self.kind {
            OutboundKind::Api(call) => signed(call, outbound).map(|request| (request, None)),
            OutboundKind::Forward(retryable) => retryable.next(outbound),
        }
    }

    /// The request again, if this error allows an immediate resend and there was none yet.
    ///
    /// Allowed for idempotent requests after an idle connection was closed, and for any the server did not process.
    pub(super) fn again(&mut self, outbound: &Outbound, error: &TransportError) -> Option<NextAttempt> {
        let is_idempotent = self.idempotency() == Idempotency::Idempotent;
        if self.was_resent || !(error.is_unprocessed() || (error.is_idle_race() && is_idempotent)) {
            return None;
        }
        self.was_resent = true;
        self.may_be_done |= !error.is_unprocessed();
        match &self.kind {
            OutboundKind::Forward(RetryableRequest { body: SourceBody::Unsent(_), .. }) | OutboundKind::Api(_) => {
                Some(self.request(outbound))
            }
            OutboundKind::Forward(retryable @ RetryableRequest { body: SourceBody::Sent(body), .. }) => {
                Some(retryable.with_body(body.next()?, outbound))
            }
        }
    }
}

fn signed(call: &ApiRequest, outbound: &Outbound) -> Result<Request<RequestBody>, RequestError> {
    let key = outbound.key.current()?;
    let uri = format!("{}{}", outbound.base, call.path);
    let mut request = Request::builder().method(call.method.clone()).uri(uri).body(call.body.clone().into())?;
    let headers = request.headers_mut();
    headers.clone_from(&call.headers);
    headers.remove(HOST);
    headers.insert(AUTHORIZATION, key.authorization_header());
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
    Ok(request)
}

fn already_sent() -> RequestError {
    TransportError::new(ErrorKind::Other, "the request body was already sent and cannot be replayed".to_owned()).into()
}

/// Upload progress of a request's body.
#[derive(Debug, Clone)]
pub(super) struct UploadProgress(Arc<Mutex<Step>>);

/// Which side the upload waits for.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Clerk, to accept the last part or to respond.
    Sent { at: Instant },
    /// The source of the body.
    Awaited { since: Instant },
}

/// Longest pause of a body's source. Servers that accept uploads use shorter timeouts for their clients.
const MAX_PAUSE: Duration = Duration::from_secs(120);

impl UploadProgress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Step::Sent { at: Instant::now() })))
    }

    /// When the upload times out, if Clerk has `timeout` after each part.
    pub(super) fn due(&self, timeout: Duration) -> Instant {
        match *self.0.lock() {
            Step::Sent { at } => at + timeout,
            Step::Awaited { since } => since + MAX_PAUSE,
        }
    }
}

/// A body that reports its progress.
#[derive(Debug)]
struct ProgressBody {
    body: RequestBody,
    progress: UploadProgress,
}

impl Body for ProgressBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let mut step = self.progress.0.lock();
        match (&frame, *step) {
            (Poll::Ready(_), _) => *step = Step::Sent { at: Instant::now() },
            (Poll::Pending, Step::Sent { .. }) => *step = Step::Awaited { since: Instant::now() },
            (Poll::Pending, Step::Awaited { .. }) => {}
        }
        drop(step);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
