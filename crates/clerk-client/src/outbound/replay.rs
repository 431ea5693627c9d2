//! A body that arrives while it is sent, and that can be sent once more from its beginning, as long as little of it was
//! sent: a server may say that it did nothing with a request after it took some of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::transport::{BodyError, RequestBody};

/// A body of which more was sent cannot be sent once more.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// A body, for one attempt after the other.
#[derive(Debug)]
pub(super) struct ReplayableBody(Arc<Mutex<Source>>);

#[derive(Debug)]
struct Source {
    body: RequestBody,
    /// All that was taken from the body, unless that was too much.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    is_whole: bool,
    has_ended: bool,
    length: Option<u64>,
    /// The attempt that may read; those before it may still be held by their connection.
    attempt: u32,
}

impl ReplayableBody {
    pub(super) fn new(body: RequestBody) -> Self {
        let length = body.size_hint().exact();
        let (kept, has_ended) = (Vec::new(), body.is_end_stream());
        let source = Source { body, kept, kept_bytes: 0, is_whole: true, has_ended, length, attempt: 0 };
        Self(Arc::new(Mutex::new(source)))
    }

    /// The body from its beginning, which ends that of the attempt before; none where its beginning is gone.
    pub(super) fn next(&self) -> Option<RequestBody> {
        let mut source = self.0.lock();
        if !source.is_whole {
            return None;
        }
        source.attempt += 1;
        let of_attempt = AttemptBody { source: Arc::clone(&self.0), attempt: source.attempt, next: 0, given: 0 };
        drop(source);
        Some(RequestBody::stream(of_attempt))
    }
}

impl Source {
    fn keep(&mut self, data: &Bytes) {
        if !self.is_whole {
            return;
        }
        self.kept_bytes += data.len();
        self.kept.push(data.clone());
        if self.kept_bytes > MAX_KEPT_BYTES {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.is_whole = false;
        self.kept = Vec::new();
    }
}

/// The body of one attempt.
#[derive(Debug)]
struct AttemptBody {
    source: Arc<Mutex<Source>>,
    attempt: u32,
    /// The next piece that was kept.
    next: usize,
    given: u64,
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
            return Poll::Ready(Some(Err("the body is sent once more elsewhere".into())));
        }
        if let Some(piece) = source.kept.get(this.next) {
            this.next += 1;
            this.given += piece.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if source.has_ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut source.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => {
                    source.keep(data);
                    this.next = source.kept.len();
                    this.given += data.len() as u64;
                }
                // Trailers are not kept.
                None => source.give_up(),
            },
            Some(Err(_)) => source.give_up(),
            None => source.has_ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.lock();
        self.next >= source.kept.len() && (source.has_ended || source.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.source.lock().length;
        length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length.saturating_sub(self.given)))
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
    fn it_begins_again_wherever_it_was_left() {
        for sent in 0..=4 {
            let body = body(&[3, 4, 5]);
            let mut first = body.next().unwrap();
            take(&mut first, sent);
            let mut second = body.next().unwrap();
            assert!(first.is_end_stream() || first.frame().now_or_never().unwrap().unwrap().is_err(), "taken over");
            assert_eq!(take(&mut second, 10), 12, "{sent}");
            assert!(second.is_end_stream());
        }
    }

    #[test]
    fn what_is_too_large_is_sent_once() {
        let body = body(&[MAX_KEPT_BYTES, 1, 1]);
        let mut first = body.next().unwrap();
        assert_eq!(take(&mut first, 1), MAX_KEPT_BYTES);
        assert!(body.next().is_some());
        let mut second = body.next().unwrap();
        assert_eq!(take(&mut second, 10), MAX_KEPT_BYTES + 2);
        assert!(body.next().is_none());
    }
}
