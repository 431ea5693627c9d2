//! The trait for request handlers.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use tower::Service;

/// Responds to requests. Implemented for [`Router`], whose requests get a [`ConnectInfo`] with the client's address.
pub trait Handler: Send + Sync + 'static {
    /// Whether paths may be logged. False where paths contain personal data.
    const LOGS_PATHS: bool;

    /// Whether responses are completely in memory before they are sent, as most of a router's are, and not streamed.
    ///
    /// Such responses count against [`Options::max_unsent_bytes`](super::Options::max_unsent_bytes), by the length of
    /// their body or by their [`HeldBytes`].
    const HOLDS_RESPONSES: bool = true;

    /// Responds to one request of the client at `peer`. Errors are responses, too. The future is dropped when the
    /// client leaves.
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

/// A response extension: the bytes that the response holds in memory until it is sent.
///
/// For responses whose body length does not say so, such as compressed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBytes(pub usize);

/// A request head that servers can interpret in two ways, of which hyper silently chose one.
///
/// Request smuggling uses such heads. The request is rejected with 400, or has this extension if
/// [`Options::mark_ambiguous_heads`](super::Options::mark_ambiguous_heads) is set. Its connection is closed
/// afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguity {
    /// Both `Content-Length` and `Transfer-Encoding`; the latter applies (RFC 9112, section 6.3).
    #[error("a request must not have both Content-Length and Transfer-Encoding")]
    Framing,
    /// A `#` in the request line, which is not allowed (RFC 9112, section 3.2). It is dropped, with what follows.
    #[error("a request target must not contain `#`; write %23 instead")]
    Fragment,
}
