//! A transport that another one takes the place of.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{RequestBody, ResponseFuture, Transport};

/// A transport that can be replaced while requests are under way: when the certificates that it trusts have changed, say.
///
/// Requests that were sent end as they began, on their connections; later ones take the new one.
#[derive(Debug)]
pub struct ReplaceableTransport(RwLock<Arc<dyn Transport>>);

impl ReplaceableTransport {
    /// Begins with this one.
    #[must_use]
    pub fn new(first: Arc<dyn Transport>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(first)))
    }

    /// Sends later requests by this one.
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
