//! Request bodies with a time limit, and response bodies whose unsent bytes are tracked.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::connection_state::ConnectionState;
use super::in_flight::InFlight;
use super::progress::{RequestProgress, TrackedBytes};

/// Maximum size of a response piece on an HTTP/2 connection. A client whose window stays closed holds at most two of
/// them there.
const PIECE: usize = 16 * 1024;

/// A request body with a limit on the total time spent waiting for the client.
///
/// Only that time counts. A handler that waits before it reads does not use up the limit, and a client that sends
/// single bytes does not extend it.
struct TimedBody {
    inner: Incoming,
    left: Duration,
    wait: Option<Wait>,
    /// Notified when the body is dropped unread. `None` in HTTP/2, where a stream ends without its connection.
    activity: Option<Arc<ConnectionState>>,
    progress: Arc<RequestProgress>,
}

struct Wait {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

/// The client did not send its request body in time: the error of such a body, or one of its sources.
#[derive(Debug, thiserror::Error)]
#[error("the request body did not arrive in time")]
pub struct BodyTimeout;

/// Wraps the body of a request. `limit` is the maximum total wait for the client. `activity` is notified if the body
/// is not read to its end.
pub(super) fn timed(
    body: Incoming,
    limit: Duration,
    activity: Option<&Arc<ConnectionState>>,
    progress: &Arc<RequestProgress>,
) -> Body {
    if http_body::Body::is_end_stream(&body) {
        return Body::empty();
    }
    let (activity, progress) = (activity.cloned(), Arc::clone(progress));
    Body::new(TimedBody { inner: body, left: limit, wait: None, activity, progress })
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        if let Some(activity) = self.activity.as_ref().filter(|_| !http_body::Body::is_end_stream(&self.inner)) {
            activity.body_abandoned();
        }
    }
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            if let Some(wait) = self.wait.take() {
                self.left = self.left.saturating_sub(wait.since.elapsed());
            }
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                self.progress.received(data.len());
            }
            if frame.is_none() {
                self.activity = None;
            }
            return Poll::Ready(frame.map(|result| result.map_err(Into::into)));
        }
        self.progress.awaits_upload();
        let left = self.left;
        let wait =
            self.wait.get_or_insert_with(|| Wait { since: Instant::now(), timer: Box::pin(tokio::time::sleep(left)) });
        match wait.timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(BodyTimeout.into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body. Its request is in flight until the last byte is written.
///
/// In HTTP/2 it is sent in pieces of at most [`PIECE`], with the last byte in its own piece. h2 accepts a piece as
/// soon as the window fits one byte, and cannot reset the stream once it has the last piece. A window that fits the
/// last byte also fits all bytes before it.
pub(super) struct ResponseBody {
    inner: Body,
    /// The unsent part of a chunk.
    rest: Bytes,
    /// Sent once everything before it is written: an error, trailers, or the end.
    last: Option<Option<Result<Frame<Bytes>, axum::Error>>>,
    in_pieces: bool,
    in_flight: Arc<InFlight>,
}

impl ResponseBody {
    pub(super) fn new(inner: Body, in_flight: Arc<InFlight>, http2: bool) -> Self {
        in_flight.progress().wait_for_client();
        Self { inner, rest: Bytes::new(), last: None, in_pieces: http2, in_flight }
    }

    /// Returns the next piece of the current chunk, if any is left.
    fn next_piece(&mut self) -> Option<Frame<TrackedBytes>> {
        let left = self.rest.len();
        let length = match left {
            0 => return None,
            _ if !self.in_pieces => left,
            // The last byte of the body goes into its own piece.
            2.. if left <= PIECE && http_body::Body::is_end_stream(&self.inner) => left - 1,
            _ => left.min(PIECE),
        };
        let piece = self.rest.split_to(length);
        Some(Frame::data(TrackedBytes::new(piece, Arc::clone(&self.in_flight))))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.in_flight.body_finished();
    }
}

impl http_body::Body for ResponseBody {
    type Data = TrackedBytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(piece) = self.next_piece() {
            return Poll::Ready(Some(Ok(piece)));
        }
        if self.last.is_none() {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => {
                    self.in_flight.progress().wait_for_body();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {
                        let empty = TrackedBytes::new(data, Arc::clone(&self.in_flight));
                        return Poll::Ready(Some(Ok(Frame::data(empty))));
                    }
                    Ok(data) => {
                        self.rest = data;
                        return Poll::Ready(self.next_piece().map(Ok));
                    }
                    Err(trailers) => self.last = Some(Some(Ok(trailers))),
                },
                Poll::Ready(Some(Err(error))) => {
                    // An error ends the connection or stream at once and discards unwritten data, often the whole
                    // response. The client could not tell that there was one, so the data is written first.
                    self.last = Some(Some(Err(error)));
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) => self.last = Some(None),
            }
        }
        // HTTP/1 connections keep the order themselves.
        if self.in_pieces && !self.in_flight.progress().is_drained(cx) {
            return Poll::Pending;
        }
        match self.last.take().flatten() {
            None => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => Poll::Ready(frame.into_trailers().ok().map(|trailers| Ok(Frame::trailers(trailers)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.last.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
