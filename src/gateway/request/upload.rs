//! Request bodies on their way to Clerk, and whether a failure was the client's.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use clerk_client::transport::{BodyError, RequestBody, has_cause};
use prometheus_web::BodyTimeout;

/// A failure of the client's upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum ClientError {
    /// The body was not complete in time.
    Late,
    /// The body is truncated, or its framing is invalid.
    Malformed,
}

/// Records whether the client's upload failed.
#[derive(Debug, Clone, Default)]
pub(in crate::gateway) struct UploadError(Option<Arc<OnceLock<ClientError>>>);

impl UploadError {
    /// Returns why the upload failed, if it did.
    pub(in crate::gateway) fn of_the_client(&self) -> Option<ClientError> {
        self.0.as_ref()?.get().copied()
    }

    /// Returns why the upload failed, given that it did.
    pub(in crate::gateway) fn blame(&self) -> ClientError {
        self.of_the_client().unwrap_or(ClientError::Malformed)
    }
}

/// Returns the body to send to Clerk, and a record of upload failures.
pub(in crate::gateway) fn upload<B>(body: B) -> (RequestBody, UploadError)
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    if body.is_end_stream() {
        return (RequestBody::empty(), UploadError::default());
    }
    let blame = Arc::new(OnceLock::new());
    let body = Upload { body: Box::pin(body), blame: Arc::clone(&blame) };
    (RequestBody::stream(body), UploadError(Some(blame)))
}

/// Maximum size of a body that is buffered for retries, in bytes.
const MAX_KEPT_BYTES: u64 = 256 * 1024;

/// Buffers a body of known length for retries; others stay streams, which are sent only once.
pub(in crate::gateway) async fn in_memory(body: RequestBody) -> Result<RequestBody, BodyError> {
    match Body::size_hint(&body).exact() {
        Some(length) if body.is_stream() && length <= MAX_KEPT_BYTES => {
            Ok(RequestBody::from(body.collect().await?.to_bytes()))
        }
        _ => Ok(body),
    }
}

struct Upload<B> {
    body: Pin<Box<B>>,
    blame: Arc<OnceLock<ClientError>>,
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
        if let Poll::Ready(Some(Err(error))) = &frame {
            // Only the first error is recorded.
            let is_late = has_cause(&**error, |cause| cause.is::<BodyTimeout>());
            let _ = self.blame.set(if is_late { ClientError::Late } else { ClientError::Malformed });
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
