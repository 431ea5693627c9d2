//! Bodies in both directions: a time limit on the request's, an account of the response's.

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

use super::connection_state::{ConnectionState, InFlight};
use super::progress::{RequestProgress, TrackedBytes};

/// Greatest piece of a response that is handed to an HTTP/2 connection at once: a client that lets its window stay shut
/// keeps no more than two of them there.
const PIECE: usize = 16 * 1024;

/// A request body whose client may keep us waiting only so long in all.
///
/// Only the time spent waiting for the client counts. A handler that queues before it reads does not use up its
/// client's time, and a client that drips one byte now and then does not get more of it.
struct TimedBody {
    inner: Incoming,
    left: Duration,
    wait: Option<Wait>,
    /// Is told when the body is given up. None in HTTP/2, where a stream ends without its connection.
    activity: Option<Arc<ConnectionState>>,
    progress: Arc<RequestProgress>,
}

struct Wait {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

/// The client did not send its request body in time: the error, or a cause of the error, of such a body.
#[derive(Debug, thiserror::Error)]
#[error("the request body did not arrive in time")]
pub struct BodyTimeout;

/// Wraps the body of a request; `limit` is the longest total wait for the client. `activity` is told when nobody reads it
/// to its end.
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
            activity.body_given_up();
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

/// The body of a response; its request is in flight until the last byte of it is written.
///
/// In HTTP/2 it goes out in pieces of at most [`PIECE`], and the last byte in one of its own: h2 takes a piece when the
/// window has room for a byte of it, and once it has the last one it cannot end the stream any more. A window that has
/// room for the last byte has it for all before.
pub(super) struct ResponseBody {
    inner: Body,
    /// What is left of a chunk.
    rest: Bytes,
    /// What comes when all before it is written: an error, trailers, or the end.
    last: Option<Option<Result<Frame<Bytes>, axum::Error>>>,
    in_pieces: bool,
    in_flight: Arc<InFlight>,
}

impl ResponseBody {
    pub(super) fn new(inner: Body, in_flight: Arc<InFlight>, http2: bool) -> Self {
        in_flight.progress().client_s_turn();
        Self { inner, rest: Bytes::new(), last: None, in_pieces: http2, in_flight }
    }

    /// The next piece of what is left of a chunk, if anything is.
    fn next_piece(&mut self) -> Option<Frame<TrackedBytes>> {
        let left = self.rest.len();
        let length = match left {
            0 => return None,
            _ if !self.in_pieces => left,
            // The last byte of all.
            2.. if left <= PIECE && http_body::Body::is_end_stream(&self.inner) => left - 1,
            _ => left.min(PIECE),
        };
        let piece = self.rest.split_to(length);
        Some(Frame::data(TrackedBytes::new(piece, Arc::clone(&self.in_flight))))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.in_flight.body_is_gone();
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
                    self.in_flight.progress().body_s_turn();
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
                    // An error ends the connection or the stream at once, and what waits to be written is lost with it,
                    // often all of the answer: its client could not tell that there was one. Here it is written first.
                    self.last = Some(Some(Err(error)));
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) => self.last = Some(None),
            }
        }
        // In HTTP/1 the connection sees to the order.
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
