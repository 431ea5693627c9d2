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

    /// Whether responses are whole in memory before they are sent, as those of a router mostly are, and not handed through
    /// from elsewhere. They count against [`Options::max_unsent_bytes`](super::Options::max_unsent_bytes) then, by the
    /// length of their body or by their [`HeldBytes`].
    const HOLDS_RESPONSES: bool = true;

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
    const HOLDS_RESPONSES: bool = H::HOLDS_RESPONSES;

    fn handle(&self, request: Request<Body>, peer: SocketAddr) -> impl Future<Output = Response<Body>> + Send {
        H::handle(self, request, peer)
    }
}

/// In the extensions of a response: the bytes that it holds until it is sent, where the length of its body does not say
/// so, since it is compressed for example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBytes(pub usize);

/// A request head can be understood in two ways, and hyper chose one without a word.
///
/// Attempts to smuggle requests past a proxy do that. Such a request is answered with 400, or carries this in its extensions
/// where [`Options::mark_ambiguous_heads`](super::Options::mark_ambiguous_heads) asks for it; its connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguity {
    /// Both `Content-Length` and `Transfer-Encoding`, of which the latter counts (RFC 9112, section 6.3).
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    Framing,
    /// A `#` in the request line, where none is allowed (RFC 9112, section 3.2). It is dropped, with what follows.
    #[error("a request target holds no `#`: write %23 where one is meant")]
    Fragment,
}
