//! One request: through the web configuration to the handler, and its answer back.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use axum::response::IntoResponse;
use http_body::Body as _;
use hyper::body::Incoming;
use tracing::error;

use super::accept::Server;
use super::body::{GuardBody, timed};
use super::connection_state::ConnectionState;
use super::handler::Handler;

/// Answers a request. Never fails: errors are answers.
pub(super) async fn answer<H: Handler>(
    server: Arc<Server<H>>,
    activity: Arc<ConnectionState>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<GuardBody>, Infallible> {
    let http2 = request.version() == Version::HTTP_2;
    // In HTTP/1 hyper sees to it.
    let is_bodiless = http2 && request.method() == Method::HEAD;
    let in_flight = activity.request_started(http2);
    let mut request = request.map(|body| timed(body, server.options.body_read_timeout, (!http2).then_some(&activity)));
    if let Some(ambiguity) = activity.take_ambiguity().filter(|_| !http2) {
        request.extensions_mut().insert(ambiguity);
    }

    let response = match server.web_config.admit(request.headers()).await {
        Err(refusal) => refusal,
        Ok(admitted) => {
            let mut response = handle(&server.handler, request, peer, http2).await;
            admitted.finish(&mut response);
            response
        }
    };
    let mut response = if is_bodiless { without_body(response) } else { response };
    if !http2 && activity.has_unread() {
        // Nobody reads the rest of the request, and so no further one on this connection (RFC 9112, section 9.6).
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| GuardBody::new(body, in_flight)))
}

/// The answer to HEAD: what GET would get, without its body (RFC 9110, section 9.3.2).
fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    response.map(|_| Body::empty())
}

/// Calls the handler; a panic in it becomes a 500, so that other streams of an HTTP/2 connection live on.
async fn handle<H: Handler>(handler: &H, request: Request<Body>, peer: SocketAddr, http2: bool) -> Response<Body> {
    let method = request.method().clone();
    let uri = H::LOGS_PATHS.then(|| request.uri().clone());
    // A handler that panics while it is being called is treated like one that panics later.
    let mut answering = pin!(async { handler.handle(request, peer).await });
    let answered = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Err(_) => Poll::Ready(None),
    })
    .await;
    answered.unwrap_or_else(|| {
        // The panic's own message has gone to the panic hook; it may hold anything, so it is not repeated.
        let path = uri.as_ref().map(Uri::path);
        error!(%method, path, "a request handler panicked");
        let mut response = (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n").into_response();
        if !http2 {
            // Nobody knows how much of the request body was read.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    })
}
