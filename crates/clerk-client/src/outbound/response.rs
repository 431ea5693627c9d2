//! Responses: with a streamed body, and complete ones.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::MAX_BODY_BYTES;
use super::account::AttemptGuard;
use super::error::RequestError;
use super::error_body::ErrorBody;
use super::media_type::is_json;
use crate::transport::{Body, TransportError};
use clerk_quota::Observation;

/// A response head with its body still to be read.
#[derive(Debug)]
pub struct UpstreamResponse {
    /// The head, unchanged.
    pub head: Parts,
    /// The body.
    pub body: UpstreamBody,
    /// The observation recorded in the ledger.
    pub observation: Observation,
    /// Clerk's errors, if the inspected part of the body has any.
    pub errors: ErrorBody,
}

/// The response to a [`ForwardRequest`](super::ForwardRequest).
#[derive(Debug)]
pub struct ForwardedResponse {
    /// Head and body, unchanged, with the observation.
    pub response: Box<UpstreamResponse>,
    /// Attempts made, at least 1.
    pub attempts: u32,
    /// Time spent queued for the rate limit.
    pub waited: Duration,
    /// Time from the start of the last attempt to its response's head.
    pub latency: Duration,
}

/// A response whose body is streamed. The request counts as in flight until the body ends or is dropped.
#[derive(Debug)]
pub struct StreamingResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body, decompressed. An error's body is already in memory.
    pub body: Body,
    /// The observation recorded in the ledger.
    pub observation: Observation,
    /// Clerk's errors, if the body has any.
    pub errors: ErrorBody,
}

/// A response with its complete body.
#[derive(Debug, Clone)]
pub struct BufferedResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Bytes,
    /// The observation recorded in the ledger.
    pub observation: Observation,
    /// Clerk's errors, if the body has any.
    pub errors: ErrorBody,
}

impl StreamingResponse {
    /// Reads the body. There is no deadline: dropping the future cancels.
    ///
    /// # Errors
    /// Returns an error if the body breaks off or is larger than [`MAX_BODY_BYTES`].
    pub async fn collect(self) -> Result<BufferedResponse, RequestError> {
        let Self { status, headers, body, observation, errors } = self;
        let body = read_body(body, MAX_BODY_BYTES).await?.ok_or(RequestError::BodyTooLarge { status })?;
        Ok(BufferedResponse { status, headers, body, observation, errors })
    }
}

impl From<UpstreamResponse> for StreamingResponse {
    fn from(response: UpstreamResponse) -> Self {
        let UpstreamResponse { head, body, observation, errors } = response;
        Self { status: head.status, headers: head.headers, body: body.boxed_unsync(), observation, errors }
    }
}

impl BufferedResponse {
    /// Whether the content type is JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        is_json(&self.headers)
    }
}

/// Reads the whole body; `None` once it exceeds `limit` bytes.
pub async fn read_body(mut body: Body, limit: usize) -> Result<Option<Bytes>, TransportError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if whole.len() + data.len() > limit {
                return Ok(None);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Some(whole.freeze()))
}

/// The body of a response.
///
/// The request counts as in flight until the body ends or is dropped. It occupies a slot of the limiter only while
/// the reader waits for data.
#[derive(Debug)]
pub struct UpstreamBody {
    /// Frames already read.
    read: VecDeque<Result<Frame<Bytes>, TransportError>>,
    rest: Option<Body>,
    guard: Option<AttemptGuard>,
}

impl UpstreamBody {
    pub(super) const fn streamed(body: Body, guard: AttemptGuard) -> Self {
        Self { read: VecDeque::new(), rest: Some(body), guard: Some(guard) }
    }

    /// A body that is fully read; its request has ended.
    pub(super) fn whole(body: Bytes) -> Self {
        let read = Some(body).filter(|body| !body.is_empty()).map(|body| Ok(Frame::data(body)));
        Self { read: read.into_iter().collect(), rest: None, guard: None }
    }

    /// The guard of a request whose body is not complete yet.
    pub(super) const fn guard(&mut self) -> Option<&mut AttemptGuard> {
        self.guard.as_mut()
    }

    /// Stops counting the request as in flight, even if the body is not complete.
    pub(super) fn release(&mut self) {
        self.guard = None;
    }

    /// Releases the slot until the reader asks for more of the body.
    pub(super) fn hand_over(&mut self) {
        if self.rest.as_ref().is_none_or(http_body::Body::is_end_stream) {
            self.guard = None;
        } else if let Some(guard) = &mut self.guard {
            guard.hold();
        }
    }

    /// Buffers frames up to about `limit` bytes, which stay at the front of the body.
    ///
    /// Returns whether the whole body was read without an error. `patience` is the timeout per frame.
    pub async fn fill(&mut self, limit: usize, patience: Duration) -> Result<bool, Elapsed> {
        let Some(rest) = &mut self.rest else { return Ok(true) };
        let mut length = 0;
        while length <= limit {
            let Some(frame) = timeout(patience, rest.frame()).await? else {
                self.rest = None;
                return Ok(true);
            };
            let is_error = frame.is_err();
            length += frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
            self.read.push_back(frame);
            if is_error {
                self.rest = None;
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Whether the body broke off within the buffered part.
    pub fn is_broken(&self) -> bool {
        self.read.back().is_some_and(Result::is_err)
    }

    /// The buffered part in one piece.
    pub fn seen(&self) -> Bytes {
        let mut data = self.read.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        match (data.next(), data.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            (Some(first), Some(second)) => {
                let mut whole = BytesMut::from(&first[..]);
                whole.extend_from_slice(second);
                data.for_each(|data| whole.extend_from_slice(data));
                whole.freeze()
            }
        }
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(frame));
        }
        if let Some(guard) = &mut self.guard {
            guard.resume();
        }
        let frame = match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        };
        match frame {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) => self.hand_over(),
            Poll::Ready(None | Some(Err(_))) => self.guard = None,
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self.read.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref()).map(Bytes::len).sum();
        if self.is_broken() {
            // Without an upper bound, so that a truncated body is not forwarded as a complete one.
            let mut hint = SizeHint::new();
            hint.set_lower(read as u64);
            return hint;
        }
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), http_body::Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read as u64));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read as u64));
        }
        hint
    }
}
