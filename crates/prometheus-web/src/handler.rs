//! What answers requests.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use tower::Service;

/// Answers requests. A [`Router`] does; its requests carry [`ConnectInfo`] with the client's address.
pub trait Handler: Send + Sync + 'static {
    /// Whether a path may be logged: not where paths name people.
    const LOGS_PATHS: bool;

    /// Answers one request of the client at `peer`. Errors are answers, too. When the client leaves, the future is dropped.
    fn handle(&self, request: Request<Body>, peer: SocketAddr) -> impl Future<Output = Response<Body>> + Send;
}

impl Handler for Router {
    const LOGS_PATHS: bool = true;

    async fn handle(&self, mut request: Request<Body>, peer: SocketAddr) -> Response<Body> {
        request.extensions_mut().insert(ConnectInfo(peer));
        match self.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl<H: Handler> Handler for Arc<H> {
    const LOGS_PATHS: bool = H::LOGS_PATHS;

    fn handle(&self, request: Request<Body>, peer: SocketAddr) -> impl Future<Output = Response<Body>> + Send {
        H::handle(self, request, peer)
    }
}

/// In the extensions of an HTTP/1 request: its head can be understood in two ways, and hyper chose one without a word.
///
/// Attempts to smuggle requests past a proxy do that. Set where
/// [`Options::mark_ambiguous_heads`](super::Options::mark_ambiguous_heads) asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// Both `Content-Length` and `Transfer-Encoding`, of which the latter counts (RFC 9112, section 6.3).
    Framing,
    /// A `#` in the request line, where none is allowed (RFC 9112, section 3.2). It is dropped, with what follows.
    Fragment,
}
