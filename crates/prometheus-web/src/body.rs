//! Bodies in both directions: a time limit on the request's, a guard on the answer's.

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
pub(super) fn timed(body: Incoming, limit: Duration, activity: Option<&Arc<ConnectionState>>) -> Body {
    if http_body::Body::is_end_stream(&body) {
        return Body::empty();
    }
    Body::new(TimedBody { inner: body, left: limit, wait: None, activity: activity.cloned() })
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
            if frame.is_none() {
                self.activity = None;
            }
            return Poll::Ready(frame.map(|result| result.map_err(Into::into)));
        }
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

/// The body of an answer; its request is in flight until it is dropped.
pub(super) struct GuardBody {
    inner: Body,
    /// Why it broke off, for the next poll.
    broken: Option<axum::Error>,
    _in_flight: InFlight,
}

impl GuardBody {
    pub(super) fn new(inner: Body, in_flight: InFlight) -> Self {
        Self { inner, broken: None, _in_flight: in_flight }
    }
}

impl http_body::Body for GuardBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                // An error ends the connection at once, and what waits to be written is lost with it, often all of the
                // answer: its client could not tell that there was one. Here it is written first.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
