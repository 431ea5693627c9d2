//! A transport that can be replaced at runtime.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{RequestBody, ResponseFuture, Transport};

/// A transport that can be replaced while requests are in flight, for example to trust new certificates.
///
/// Requests in flight complete on their connections; later ones use the new transport.
#[derive(Debug)]
pub struct ReplaceableTransport(RwLock<Arc<dyn Transport>>);

impl ReplaceableTransport {
    /// Creates a replaceable transport that starts with `first`.
    #[must_use]
    pub fn new(first: Arc<dyn Transport>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(first)))
    }

    /// Sends all later requests through `next`.
    pub fn replace(&self, next: Arc<dyn Transport>) {
        *self.0.write() = next;
    }
}

impl Transport for ReplaceableTransport {
    fn send(&self, request: http::Request<RequestBody>) -> ResponseFuture {
        let current = Arc::clone(&self.0.read());
        current.send(request)
    }
}
