//! The request that is sent upstream.
//!
//! It is made once, from the client's, before anything is decided on it: the keys of cache and coalescing, the batch and the
//! bytes that are sent are all derived from it, so that none of them can be of another request than the others.

use http::{HeaderMap, Method, Request, request};

use super::headers::{self, UpstreamTarget};
use crate::gateway::reads::shareable::LEFT_OUT_FIELDS;
use clerk_client::transport::RequestBody;

/// The head of a request as Clerk gets it, but for the key that takes the place of a caller's token.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct UpstreamRequest {
    head: request::Parts,
    /// Length of the path that the instance's address puts before that of each request.
    prefix: usize,
}

impl UpstreamRequest {
    /// Makes it from a client's request. `is_chunked`: there is a body of unknown length.
    ///
    /// # Errors
    /// When address and path make no URI together.
    pub(in crate::gateway) fn new(
        mut head: request::Parts,
        target: &UpstreamTarget,
        is_chunked: bool,
    ) -> Result<Self, http::Error> {
        headers::request(&mut head, target, is_chunked)?;
        Ok(Self { head, prefix: target.prefix().len() })
    }

    pub(in crate::gateway) const fn method(&self) -> &Method {
        &self.head.method
    }

    pub(in crate::gateway) const fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The path, without what the instance's address puts before it.
    pub(in crate::gateway) fn path(&self) -> &str {
        self.head.uri.path().get(self.prefix..).unwrap_or_default()
    }

    pub(in crate::gateway) fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// The same for all who share its answer: whoever gets it can read it, and nothing in it is for one client.
    pub(in crate::gateway) fn for_all(&self) -> Self {
        let mut request = self.clone();
        for name in &LEFT_OUT_FIELDS {
            request.head.headers.remove(name);
        }
        request
    }

    pub(in crate::gateway) fn with_body(self, body: RequestBody) -> Request<RequestBody> {
        Request::from_parts(self.head, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_client_whatever_stands_before_it() {
        for base in ["http://h", "http://h/", "https://proxy.example/clerk", "https://proxy.example/a/b/"] {
            let target = UpstreamTarget::parse(base).unwrap();
            let head = Request::get("/v1/users/a%2Fb?x=1").body(()).unwrap().into_parts().0;
            let request = UpstreamRequest::new(head, &target, false).unwrap();
            assert_eq!((request.path(), request.query()), ("/v1/users/a%2Fb", Some("x=1")), "{base}");
        }
    }
}
