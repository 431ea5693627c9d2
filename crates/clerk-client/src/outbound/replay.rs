//! A streamed body that can be replayed from its start while little of it has been sent.
//!
//! A server may read part of a body and then state that it did not process the request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::transport::{BodyError, RequestBody};

/// Bytes buffered for a replay. A body of which more was sent cannot be replayed.
const MAX_BUFFERED_BYTES: usize = 256 * 1024;

/// A streamed body for consecutive attempts.
#[derive(Debug)]
pub(super) struct ReplayableBody(Arc<Mutex<Source>>);

#[derive(Debug)]
struct Source {
    body: RequestBody,
    /// Everything read from the body so far, unless that was too much.
    buffered: Vec<Bytes>,
    buffered_bytes: usize,
    is_whole: bool,
    has_ended: bool,
    length: Option<u64>,
    /// The attempt that may read. Connections may still hold the bodies of earlier ones.
    attempt: u32,
}

impl ReplayableBody {
    pub(super) fn new(body: RequestBody) -> Self {
        let length = body.size_hint().exact();
        let (buffered, has_ended) = (Vec::new(), body.is_end_stream());
        let source = Source { body, buffered, buffered_bytes: 0, is_whole: true, has_ended, length, attempt: 0 };
        Self(Arc::new(Mutex::new(source)))
    }

    /// Returns the body from its start and ends the previous attempt's; `None` if the start is no longer buffered.
    pub(super) fn next(&self) -> Option<RequestBody> {
        let mut source = self.0.lock();
        if !source.is_whole {
            return None;
        }
        source.attempt += 1;
        let of_attempt = AttemptBody { source: Arc::clone(&self.0), attempt: source.attempt, next: 0, sent: 0 };
        drop(source);
        Some(RequestBody::stream(of_attempt))
    }
}

impl Source {
    fn buffer(&mut self, data: &Bytes) {
        if !self.is_whole {
            return;
        }
        self.buffered_bytes += data.len();
        self.buffered.push(data.clone());
        if self.buffered_bytes > MAX_BUFFERED_BYTES {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.is_whole = false;
        self.buffered = Vec::new();
    }
}

/// The body of one attempt.
#[derive(Debug)]
struct AttemptBody {
    source: Arc<Mutex<Source>>,
    attempt: u32,
    /// Index of the next buffered piece.
    next: usize,
    sent: u64,
}

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut source = this.source.lock();
        if source.attempt != this.attempt {
            return Poll::Ready(Some(Err("the body was taken over by a later attempt".into())));
        }
        if let Some(piece) = source.buffered.get(this.next) {
            this.next += 1;
            this.sent += piece.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if source.has_ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut source.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => {
                    source.buffer(data);
                    this.next = source.buffered.len();
                    this.sent += data.len() as u64;
                }
                // Trailers are not buffered.
                None => source.give_up(),
            },
            Some(Err(_)) => source.give_up(),
            None => source.has_ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.lock();
        self.next >= source.buffered.len() && (source.has_ended || source.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.source.lock().length;
        length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length.saturating_sub(self.sent)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn body(pieces: &[usize]) -> ReplayableBody {
        let pieces: Vec<_> =
            pieces.iter().map(|length| Ok::<_, BodyError>(Frame::data(vec![7; *length].into()))).collect();
        ReplayableBody::new(RequestBody::stream(StreamBody::new(stream::iter(pieces))))
    }

    fn take(body: &mut RequestBody, pieces: usize) -> usize {
        let mut length = 0;
        for _ in 0..pieces {
            let Some(frame) = body.frame().now_or_never().unwrap() else { break };
            length += frame.unwrap().into_data().unwrap().len();
        }
        length
    }

    #[test]
    fn next_attempt_replays_the_body_from_its_start() {
        for sent in 0..=4 {
            let body = body(&[3, 4, 5]);
            let mut first = body.next().unwrap();
            take(&mut first, sent);
            let mut second = body.next().unwrap();
            assert!(
                first.is_end_stream() || first.frame().now_or_never().unwrap().unwrap().is_err(),
                "the second attempt takes over"
            );
            assert_eq!(take(&mut second, 10), 12, "{sent}");
            assert!(second.is_end_stream());
        }
    }

    #[test]
    fn large_body_cannot_be_replayed() {
        let body = body(&[MAX_BUFFERED_BYTES, 1, 1]);
        let mut first = body.next().unwrap();
        assert_eq!(take(&mut first, 1), MAX_BUFFERED_BYTES);
        assert!(body.next().is_some());
        let mut second = body.next().unwrap();
        assert_eq!(take(&mut second, 10), MAX_BUFFERED_BYTES + 2);
        assert!(body.next().is_none());
    }
}
