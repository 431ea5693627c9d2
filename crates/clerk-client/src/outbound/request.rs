//! The request behind an attempt: one of this library or a forwarded one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{HeaderValue, Request};
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
    /// `None` once it was sent and cannot be copied.
    request: Option<Request<RequestBody>>,
    /// The request after it was sent, for a replay if the server did not process it.
    sent: Option<SentRequest>,
    idempotency: Idempotency,
    credentials: Credentials,
    caller: CallerId,
    method: MethodLabel,
}

impl From<ForwardRequest> for RetryableRequest {
    fn from(request: ForwardRequest) -> Self {
        let ForwardRequest { request, idempotency, credentials, caller, .. } = request;
        let method = MethodLabel::from(request.method());
        Self { request: Some(request), sent: None, idempotency, credentials, caller, method }
    }
}

/// A sent request whose body may be replayable.
#[derive(Debug)]
struct SentRequest {
    head: Request<()>,
    body: SentBody,
}

#[derive(Debug)]
enum SentBody {
    Whole(RequestBody),
    Stream(ReplayableBody),
}

impl SentRequest {
    fn new(request: Request<RequestBody>) -> Self {
        let (head, body) = request.into_parts();
        let body = if body.is_stream() { SentBody::Stream(ReplayableBody::new(body)) } else { SentBody::Whole(body) };
        Self { head: Request::from_parts(head, ()), body }
    }

    /// The request from its start; `None` if the body cannot be replayed.
    fn next(&self) -> Option<Request<RequestBody>> {
        let body = match &self.body {
            SentBody::Whole(body) => body.try_clone(),
            SentBody::Stream(body) => body.next(),
        };
        Some(copy_head(&self.head, body?))
    }
}

impl<'a> OutboundRequest<'a> {
    pub(super) fn of(call: &'a ApiRequest) -> Self {
        Self { route: call.route(), was_resent: false, may_be_done: false, kind: OutboundKind::Api(call) }
    }

    pub(super) const fn pending(retryable: &'a mut RetryableRequest, route: Route) -> Self {
        Self { route, was_resent: false, may_be_done: false, kind: OutboundKind::Forward(retryable) }
    }

    /// The data that accounting needs.
    pub(super) fn start(&self, at: Moment) -> RequestStart {
        let (caller, method) = match &self.kind {
            OutboundKind::Api(call) => (call.caller, MethodLabel::from(&call.method)),
            OutboundKind::Forward(retryable) => (retryable.caller, retryable.method),
        };
        RequestStart { at, source: self.source(), caller, route: self.route, method }
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
            OutboundKind::Forward(RetryableRequest { request: None, .. }) => Idempotency::NonIdempotent,
            OutboundKind::Forward(retryable) => retryable.idempotency,
        }
    }

    /// The request of the next attempt and, for a streamed body, its upload progress.
    pub(super) fn request(&mut self, outbound: &Outbound) -> NextAttempt {
        match &mut self.kind {
            OutboundKind::Api(call) => signed(call, outbound).map(|request| (request, None)),
            OutboundKind::Forward(RetryableRequest { request, sent, idempotency, credentials, .. }) => {
                let copy = request.as_ref().filter(|_| *idempotency != Idempotency::NonIdempotent).and_then(copy);
                let next = match copy {
                    Some(copy) => copy,
                    // Not reached once it is gone: `idempotency` rules out retries then.
                    None => {
                        let request = SentRequest::new(request.take().ok_or_else(already_sent)?);
                        sent.insert(request).next().ok_or_else(already_sent)?
                    }
                };
                ready(next, *credentials, outbound)
            }
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
            OutboundKind::Forward(RetryableRequest { request: None, sent, credentials, .. }) => {
                let next = sent.as_ref()?.next()?;
                Some(ready(next, *credentials, outbound))
            }
            _ => Some(self.request(outbound)),
        }
    }
}

/// Adds the key and, for a streamed body, the upload progress.
fn ready(mut next: Request<RequestBody>, credentials: Credentials, outbound: &Outbound) -> NextAttempt {
    if credentials == Credentials::Instance {
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

/// Copies a request whose body is in memory.
fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    Some(copy_head(request, request.body().try_clone()?))
}

fn copy_head<B>(request: &Request<B>, body: RequestBody) -> Request<RequestBody> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    // The extensions hold the original spelling of the header names.
    copy.extensions_mut().clone_from(request.extensions());
    copy
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
