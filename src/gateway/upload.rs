//! The body of a request on its way to Clerk, and whether it was its own fault that it did not get there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::upstream::{BodyError, RequestBody};

/// Whether the client's part of an exchange broke off.
#[derive(Debug, Clone, Default)]
pub(super) struct Fault(Option<Arc<AtomicBool>>);

impl Fault {
    /// Whether the body did not come to its end.
    pub(super) fn is_the_client_s(&self) -> bool {
        self.0.as_ref().is_some_and(|broken| broken.load(Ordering::Relaxed))
    }
}

/// The body of a request to Clerk, and a witness.
pub(super) fn upload<B>(body: B) -> (RequestBody, Fault)
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    if body.is_end_stream() {
        return (RequestBody::empty(), Fault::default());
    }
    let broken = Arc::new(AtomicBool::new(false));
    let body = Upload { body: Box::pin(body), broken: Arc::clone(&broken) };
    (RequestBody::stream(body), Fault(Some(broken)))
}

struct Upload<B> {
    body: Pin<Box<B>>,
    broken: Arc<AtomicBool>,
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = self.body.as_mut().poll_frame(context).map_err(Into::into);
        if let Poll::Ready(Some(Err(_))) = &frame {
            self.broken.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
