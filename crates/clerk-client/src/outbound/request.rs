//! What attempts are made of: a request of ours, or one of an application's.

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

/// The request of an attempt, and, if its body is a stream, how that gets on.
type NextAttempt = Result<(Request<RequestBody>, Option<UploadProgress>), RequestError>;

/// A request with its route.
#[derive(Debug)]
pub(super) struct OutboundRequest<'a> {
    pub(super) route: Route,
    /// It was sent again at once, since an idle connection had just been closed or the server did nothing with it, which is
    /// done once.
    was_repeated: bool,
    /// The server may have taken up what was sent before that.
    pub(super) may_be_done: bool,
    kind: OutboundKind<'a>,
}

#[derive(Debug)]
enum OutboundKind<'a> {
    Api(&'a ApiRequest),
    Forward(&'a mut RetryableRequest),
}

/// A request of an application's between its attempts.
#[derive(Debug)]
pub(super) struct RetryableRequest {
    /// None once it has left for good.
    request: Option<Request<RequestBody>>,
    /// What has left for good, should the server say that it did nothing with it.
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

/// A request that left for good.
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

    /// The request, from its beginning; none where that is gone.
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
        Self { route: call.route(), was_repeated: false, may_be_done: false, kind: OutboundKind::Api(call) }
    }

    pub(super) const fn pending(retryable: &'a mut RetryableRequest, route: Route) -> Self {
        Self { route, was_repeated: false, may_be_done: false, kind: OutboundKind::Forward(retryable) }
    }

    /// What the account wants to know of it.
    pub(super) fn start(&self, at: Moment) -> RequestStart {
        let (caller, method) = match &self.kind {
            OutboundKind::Api(call) => (call.caller, MethodLabel::from(&call.method)),
            OutboundKind::Forward(retryable) => (retryable.caller, retryable.method),
        };
        RequestStart { at, source: self.source(), caller, route: self.route, method }
    }

    /// Who asks.
    pub(super) const fn source(&self) -> Source {
        match &self.kind {
            OutboundKind::Api(call) => call.source,
            OutboundKind::Forward(_) => Source::Gateway,
        }
    }

    /// Which failures allow it to be sent again; none where its body is gone.
    pub(super) const fn idempotency(&self) -> Idempotency {
        match &self.kind {
            OutboundKind::Api(call) => call.idempotency,
            OutboundKind::Forward(RetryableRequest { request: None, .. }) => Idempotency::NonIdempotent,
            OutboundKind::Forward(retryable) => retryable.idempotency,
        }
    }

    /// The request of the next attempt, and, if its body is a stream, how that gets on.
    pub(super) fn request(&mut self, outbound: &Outbound) -> NextAttempt {
        match &mut self.kind {
            OutboundKind::Api(call) => signed(call, outbound).map(|request| (request, None)),
            OutboundKind::Forward(RetryableRequest { request, sent, idempotency, credentials, .. }) => {
                let copy = request.as_ref().filter(|_| *idempotency != Idempotency::NonIdempotent).and_then(copy);
                let next = match copy {
                    Some(copy) => copy,
                    // `idempotency` says never once it is gone, so that nobody asks.
                    None => {
                        let request = SentRequest::new(request.take().ok_or_else(gone)?);
                        sent.insert(request).next().ok_or_else(gone)?
                    }
                };
                ready(next, *credentials, outbound)
            }
        }
    }

    /// The request once more, if it may be sent again at once after this error, and was not yet: one that reads after a
    /// connection that was just closed, and any with which the server did nothing.
    pub(super) fn again(&mut self, outbound: &Outbound, error: &TransportError) -> Option<NextAttempt> {
        let is_repeatable = self.idempotency() == Idempotency::Idempotent;
        if self.was_repeated || !(error.is_unprocessed() || (error.is_idle_race() && is_repeatable)) {
            return None;
        }
        self.was_repeated = true;
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

/// The request with its key, and, if its body is a stream, how that gets on.
fn ready(mut next: Request<RequestBody>, credentials: Credentials, outbound: &Outbound) -> NextAttempt {
    if credentials == Credentials::Instance {
        let key = outbound.key.current()?;
        next.headers_mut().insert(AUTHORIZATION, key.authorization_header());
    }
    if !next.body().is_stream() {
        return Ok((next, None));
    }
    let progress = UploadProgress::new();
    let next = next.map(|body| RequestBody::stream(Watched { body, progress: progress.clone() }));
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

fn gone() -> RequestError {
    TransportError::new(ErrorKind::Other, "the request was sent already and cannot be sent again".to_owned()).into()
}

/// A copy of a request whose body is at hand.
fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    Some(copy_head(request, request.body().try_clone()?))
}

fn copy_head<B>(request: &Request<B>, body: RequestBody) -> Request<RequestBody> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    // The spelling of the headers' names is in there.
    copy.extensions_mut().clone_from(request.extensions());
    copy
}

/// How the body of a request gets on.
#[derive(Debug, Clone)]
pub(super) struct UploadProgress(Arc<Mutex<Step>>);

/// Whose turn it is.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Clerk's, to take what it was sent, or to answer.
    Sent { at: Instant },
    /// That of whoever sends the body.
    Awaited { since: Instant },
}

/// Longest pause of whoever sends a body. A server that takes bodies from clients has less patience with them.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

impl UploadProgress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Step::Sent { at: Instant::now() })))
    }

    /// Until when Clerk has time, where it has so much from each part on.
    pub(super) fn due(&self, timeout: Duration) -> Instant {
        match *self.0.lock() {
            Step::Sent { at } => at + timeout,
            Step::Awaited { since } => since + LONGEST_PAUSE,
        }
    }
}

/// A body that reports its progress.
#[derive(Debug)]
struct Watched {
    body: RequestBody,
    progress: UploadProgress,
}

impl Body for Watched {
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
