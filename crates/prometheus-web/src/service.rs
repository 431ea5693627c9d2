//! Handles one request: web configuration, handler and response.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, RETRY_AFTER};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use axum::response::IntoResponse;
use http_body::Body as _;
use hyper::body::Incoming;
use tracing::error;

use super::accept::Server;
use super::body::{ResponseBody, timed};
use super::connection_state::ConnectionState;
use super::handler::{Ambiguity, Handler, HeldBytes};
use super::in_flight::InFlight;
use super::stream_task;

/// Responds to a request. Never fails: errors are responses. `is_certified`: whether the connection's client had to show a
/// certificate.
pub(super) async fn serve_request<H: Handler>(
    server: Arc<Server<H>>,
    activity: Arc<ConnectionState>,
    (peer, is_certified): (SocketAddr, bool),
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let http2 = request.version() == Version::HTTP_2;
    // In HTTP/1, hyper removes the body.
    let is_bodiless = http2 && request.method() == Method::HEAD;
    let in_flight = activity.request_started(http2);
    let progress = in_flight.progress();
    stream_task::watch(progress);
    let mut request =
        request.map(|body| timed(body, server.options.body_read_timeout, (!http2).then_some(&activity), progress));
    let ambiguity = in_flight.ambiguity();
    if !http2 && names_this_server(&request, activity.local_port()) {
        to_origin_form(&mut request);
    }
    if let Some(ambiguity) = ambiguity {
        request.extensions_mut().insert(ambiguity);
    }

    let response = match ambiguity {
        Some(ambiguity) if !server.options.mark_ambiguous_heads => bad_request(ambiguity),
        _ => respond(&server, &activity, &in_flight, request, (peer, is_certified, http2)).await,
    };
    let mut response = if is_bodiless { without_body(response) } else { response };
    // The rest of the request is not read, so this connection cannot carry another one (RFC 9112, section 9.6).
    let is_last = activity.has_unread() || ambiguity.is_some();
    if !http2 && (is_last || activity.has_leaving_server()) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| ResponseBody::new(body, in_flight, http2)))
}

async fn respond<H: Handler>(
    server: &Server<H>,
    activity: &ConnectionState,
    in_flight: &InFlight,
    mut request: Request<Body>,
    (peer, is_certified, http2): (SocketAddr, bool, bool),
) -> Response<Body> {
    let is_open = server.options.is_open(request.method(), request.uri().path());
    let admitted = match server.web_config.admit(request.headers(), is_open).await {
        Err(rejection) => return rejection,
        Ok(admitted) => admitted,
    };
    if let Some(client) = admitted.client(request.headers(), is_certified) {
        request.extensions_mut().insert(client);
    }
    let mut response = if is_open || server.unsent.wait_for_capacity(activity, in_flight, &server.admission).await {
        handle(&server.handler, request, peer, http2).await
    } else {
        let text = "too many unread responses are in memory; try again later\n";
        ([(RETRY_AFTER, "1")], (StatusCode::SERVICE_UNAVAILABLE, text)).into_response()
    };
    let bytes = if H::HOLDS_RESPONSES { held_by(&mut response) } else { 0 };
    in_flight.set_held(bytes);
    server.unsent.record_response(bytes);
    admitted.finish(&mut response);
    response
}

/// Returns whether the target is in absolute form and names this server as its client knows it (RFC 9112, section
/// 3.2.2): the host of `Host`, with the port that the client connected to.
fn names_this_server(request: &Request<Body>, local_port: Option<u16>) -> bool {
    let (Some(scheme), Some(authority)) = (request.uri().scheme_str(), request.uri().authority()) else {
        return false;
    };
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let mut hosts = request.headers().get_all(HOST).iter();
    let is_same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
    hosts.next().is_some_and(is_same)
        && hosts.next().is_none()
        && !authority.as_str().contains('@')
        && local_port == Some(authority.port_u16().unwrap_or(default))
}

fn to_origin_form(request: &mut Request<Body>) {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
}

/// Returns the bytes that a response holds until it is sent.
fn held_by(response: &mut Response<Body>) -> usize {
    let length = response.body().size_hint().lower();
    response.extensions_mut().remove::<HeldBytes>().map_or(usize::try_from(length).unwrap_or(usize::MAX), |held| held.0)
}

/// Rejects an ambiguous request before it reaches the handler.
fn bad_request(ambiguity: Ambiguity) -> Response<Body> {
    (StatusCode::BAD_REQUEST, format!("{ambiguity}\n")).into_response()
}

/// Returns the response to HEAD: that of GET without its body (RFC 9110, section 9.3.2).
fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    response.map(|_| Body::empty())
}

/// Calls the handler. A panic becomes a 500, so that other streams of an HTTP/2 connection survive.
async fn handle<H: Handler>(handler: &H, request: Request<Body>, peer: SocketAddr, http2: bool) -> Response<Body> {
    let method = request.method().clone();
    let uri = H::LOGS_PATHS.then(|| request.uri().clone());
    // A handler that panics while it is called is treated like one that panics later.
    let mut answering = pin!(async { handler.handle(request, peer).await });
    let answered = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Err(_) => Poll::Ready(None),
    })
    .await;
    answered.unwrap_or_else(|| {
        // The panic hook already received the panic's message. It may contain anything, so it is not repeated.
        let path = uri.as_ref().map(Uri::path);
        error!(%method, path, "a request handler panicked");
        let mut response = (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n").into_response();
        if !http2 {
            // It is not known how much of the request body was read.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    })
}
