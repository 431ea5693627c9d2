//! The responses of faults that replace the correct one.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use tower::{Layer as _, ServiceExt as _};
use tower_http::compression::CompressionLayer;

use super::error::ApiError;
use super::faults::{Fault, FaultBody, status_of};
use super::headers::{HTML, JSON, Trace};

const PAGE: &str = "<!DOCTYPE html><html><head><title>simulated | Cloudflare</title></head>\
    <body><h1>Error</h1><p>This page was sent by the edge, not by the API.</p></body></html>";

/// Returns the response of `fault`, without the headers that every response has.
///
/// Faults that modify the correct response are never passed here; they give a 500.
pub(super) async fn respond(fault: &Fault, trace: &Trace) -> Response<Body> {
    match fault {
        Fault::Status { status, body } => with_body(status_of(*status), *body, trace),
        Fault::Throttled { retry_after, body } => {
            let mut response = with_body(StatusCode::TOO_MANY_REQUESTS, *body, trace);
            if let Some(value) = retry_after.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
                response.headers_mut().insert(RETRY_AFTER, value);
            }
            response
        }
        Fault::Reset { after_bytes } => reset_after(*after_bytes),
        Fault::HugeBody { bytes } => huge(*bytes),
        Fault::GzipBomb { bytes } => gzip_bomb(*bytes).await,
        Fault::Redirect { location } => {
            let mut response = with_body(StatusCode::FOUND, FaultBody::Empty, trace);
            if let Ok(value) = HeaderValue::from_str(location) {
                response.headers_mut().insert(LOCATION, value);
            }
            response
        }
        Fault::QuotaExceeded { code } => api_error(&ApiError::quota_exceeded(code.clone()), trace),
        Fault::Latency { .. } | Fault::MalformedQuotaHeaders {} => {
            with_body(StatusCode::INTERNAL_SERVER_ERROR, FaultBody::Clerk, trace)
        }
    }
}

/// Returns Clerk's response for an error.
pub(super) fn api_error(error: &ApiError, trace: &Trace) -> Response<Body> {
    let mut response = Response::new(Body::from(error.body(&trace.id)));
    *response.status_mut() = error.status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn with_body(status: StatusCode, body: FaultBody, trace: &Trace) -> Response<Body> {
    let mut response = match body {
        FaultBody::Clerk => api_error(&ApiError::of_status(status), trace),
        FaultBody::Html => {
            let mut response = Response::new(Body::from(PAGE));
            response.headers_mut().insert(CONTENT_TYPE, HTML);
            response
        }
        FaultBody::Empty => Response::new(Body::empty()),
    };
    *response.status_mut() = status;
    response
}

/// Returns a response that is shorter than its `Content-Length`: on a socket, the server then drops the connection.
fn reset_after(bytes: u32) -> Response<Body> {
    let announced = u64::from(bytes) + 1;
    let end = if bytes == 0 { End::Broken } else { End::BrokenAfterPause };
    let mut response = Response::new(Body::new(Spaces { left: u64::from(bytes), end }));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(announced));
    response
}

fn huge(bytes: u64) -> Response<Body> {
    Response::new(Body::new(Spaces { left: bytes, end: End::Complete }))
}

async fn gzip_bomb(bytes: u64) -> Response<Body> {
    let plain = tower::service_fn(move |_: Request<Body>| async move { Ok::<_, Infallible>(with_json(huge(bytes))) });
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    let Ok(response) = CompressionLayer::new().layer(plain).oneshot(request).await;
    response.map(Body::new)
}

fn with_json(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A body of spaces that is never in memory as a whole.
struct Spaces {
    left: u64,
    end: End,
}

/// What follows the last space.
#[derive(Clone, Copy)]
enum End {
    Complete,
    Broken,
    /// A server flushes when the body is pending. Without the pause it would drop the connection before it sends the
    /// head.
    BrokenAfterPause,
}

static CHUNK: [u8; 64 * 1024] = [b' '; 64 * 1024];

impl http_body::Body for Spaces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.left > 0 {
            let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK.len());
            self.left -= size as u64;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK[..size])))));
        }
        match self.end {
            End::Complete => Poll::Ready(None),
            End::BrokenAfterPause => {
                self.end = End::Broken;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            End::Broken => {
                self.end = End::Complete;
                Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "simulated connection reset"))))
            }
        }
    }
}
