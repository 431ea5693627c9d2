//! Request bodies: in memory or streamed.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

/// Why a streamed body failed at its source.
pub type BodyError = Box<dyn StdError + Send + Sync>;

/// The body of a request to Clerk.
#[derive(Debug)]
pub struct RequestBody(Inner);

#[derive(Debug)]
enum Inner {
    /// Taken when sent.
    Whole(Option<Bytes>),
    Stream(UnsyncBoxBody<Bytes, BodyError>),
}

impl RequestBody {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Inner::Whole(None))
    }

    /// A streamed body, with its trailers. A stream that has already ended is an empty body.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self(Inner::Stream(body.map_err(Into::into).boxed_unsync()))
    }

    /// Copies a body in memory; `None` for a stream, which can be sent once.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Inner::Whole(bytes) => Some(Self(Inner::Whole(bytes.clone()))),
            Inner::Stream(_) => None,
        }
    }

    /// Whether the body is a stream.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        matches!(self.0, Inner::Stream(_))
    }

    /// Whether the body is a stream of unknown length, which HTTP/1.1 sends chunked.
    #[must_use]
    pub fn is_of_unknown_length(&self) -> bool {
        self.is_stream() && http_body::Body::size_hint(self).exact().is_none()
    }

    /// Returns the bytes of a body in memory, otherwise the body.
    pub(super) fn into_whole(self) -> Result<Bytes, Self> {
        match self.0 {
            Inner::Whole(bytes) => Ok(bytes.unwrap_or_default()),
            stream @ Inner::Stream(_) => Err(Self(stream)),
        }
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self(Inner::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Stream(stream) => Pin::new(stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(bytes) => bytes.is_none(),
            Inner::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Inner::Stream(stream) => stream.size_hint(),
        }
    }
}
