//! The request that is sent upstream.
//!
//! It is made once from the client's request, before any decision. Cache key, coalescing key, batch and sent bytes are
//! all derived from it, so that they cannot disagree.

use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, request};

use super::headers::{self, UpstreamTarget};
use crate::gateway::accounting::access_log::LoggedRequest;
use crate::gateway::spans::ParentSpan;

/// The request head for Clerk. The key that replaces a caller token is inserted later. Clones share the head.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct UpstreamRequest {
    head: Arc<request::Parts>,
    /// Length in bytes of the path prefix from the instance's address.
    prefix: usize,
}

impl UpstreamRequest {
    /// Makes it from a client's request. `is_chunked`: the body has an unknown length.
    ///
    /// # Errors
    /// Returns an error if address and path do not form a URI.
    pub(in crate::gateway) fn new(
        mut head: request::Parts,
        target: &UpstreamTarget,
        is_chunked: bool,
    ) -> Result<Self, http::Error> {
        headers::request(&mut head, target, is_chunked)?;
        Ok(Self { head: Arc::new(head), prefix: target.prefix().len() })
    }

    pub(in crate::gateway) fn method(&self) -> &Method {
        &self.head.method
    }

    pub(in crate::gateway) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The path without the prefix from the instance's address.
    pub(in crate::gateway) fn path(&self) -> &str {
        self.head.uri.path().get(self.prefix..).unwrap_or_default()
    }

    pub(in crate::gateway) fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// Adds what the access log says of the request; it goes with every attempt.
    pub(in crate::gateway) fn set_logged(&mut self, logged: LoggedRequest) {
        Arc::make_mut(&mut self.head).extensions.insert(Arc::new(logged));
    }

    /// Sets the span that is the parent of those of its attempts.
    pub(in crate::gateway) fn set_parent(&mut self, parent: ParentSpan) {
        Arc::make_mut(&mut self.head).extensions.insert(parent);
    }

    /// What goes with it into a batch.
    pub(in crate::gateway) fn member(&self) -> Extensions {
        ParentSpan::only(&self.head.extensions)
    }

    /// The head, shared with all copies of this request.
    pub(in crate::gateway) fn into_head(self) -> Arc<request::Parts> {
        self.head
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn path_excludes_the_prefix_of_the_address() {
        for base in ["http://h", "http://h/", "https://proxy.example/clerk", "https://proxy.example/a/b/"] {
            let target = UpstreamTarget::parse(base).unwrap();
            let head = Request::get("/v1/users/a%2Fb?x=1").body(()).unwrap().into_parts().0;
            let request = UpstreamRequest::new(head, &target, false).unwrap();
            assert_eq!((request.path(), request.query()), ("/v1/users/a%2Fb", Some("x=1")), "{base}");
        }
    }
}
