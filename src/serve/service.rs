//! One request: through the web configuration to the router, and its answer back.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, StatusCode, Version};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use tower::Service;
use tracing::error;

use super::accept::Server;
use super::activity::Activity;
use super::body::{GuardedBody, timed};

/// Answers a request. Never fails: errors are answers.
pub(super) async fn answer(
    server: Arc<Server>,
    activity: Arc<Activity>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<GuardedBody>, Infallible> {
    let http2 = request.version() == Version::HTTP_2;
    let in_flight = activity.request_started(http2);
    let mut request = request.map(|body| timed(body, server.options.body_read_timeout));
    request.extensions_mut().insert(ConnectInfo(peer));

    let response = match server.web_config.admit(request.headers()).await {
        Err(refusal) => refusal,
        Ok(admitted) => {
            let mut response = route(&server, request, http2).await;
            admitted.finish(&mut response);
            response
        }
    };
    Ok(response.map(|body| GuardedBody::new(body, in_flight)))
}

/// Calls the router; a panic in a handler becomes a 500, so that other streams of an HTTP/2 connection live on.
async fn route(server: &Server, request: Request<Body>, http2: bool) -> Response<Body> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // A router that panics while it is being called is treated like one that panics later.
    let mut router = server.router.clone();
    let mut answering = pin!(async move {
        match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    });
    let answered = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Err(_) => Poll::Ready(None),
    })
    .await;
    answered.unwrap_or_else(|| {
        // The panic's own message has gone to the panic hook; it may hold anything, so it is not repeated.
        error!(%method, path, "a request handler panicked");
        let mut response = (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n").into_response();
        if !http2 {
            // Nobody knows how much of the request body was read.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    })
}
