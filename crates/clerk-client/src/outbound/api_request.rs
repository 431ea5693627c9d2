//! Requests to Clerk: those of this library and those forwarded for a client.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};

use super::attempt_log::RequestMembers;
use super::retry::Idempotency;
use crate::transport::RequestBody;
use clerk_quota::{CallerId, Route, Source, route};

/// A request to the Backend API.
///
/// ```
/// use clerk_client::outbound::ApiRequest;
/// use clerk_client::outbound::retry::Idempotency;
/// use clerk_quota::Source;
/// use http::Method;
///
/// assert_eq!(ApiRequest::get("/v1/users?limit=1", Source::Client).idempotency, Idempotency::Idempotent);
/// // A write is sent once, unless its caller allows retries after a 429.
/// let write = ApiRequest::new(Method::POST, "/v1/invitations", Source::Client);
/// assert_eq!(write.idempotency, Idempotency::NonIdempotent);
/// let write = ApiRequest { idempotency: Idempotency::RetryIfThrottled, ..write };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRequest {
    /// The method.
    pub method: Method,
    /// Path and query, beginning with `/v1`.
    pub path: String,
    /// Further headers. `Authorization` and `Host` are replaced; `Accept` defaults to JSON.
    pub headers: HeaderMap,
    /// The body, sent with every attempt.
    pub body: Bytes,
    /// Which failures allow a retry.
    pub idempotency: Idempotency,
    /// The kind of caller.
    pub source: Source,
    /// The named caller that the request is attributed to.
    pub caller: CallerId,
    /// The lookups that share it.
    pub members: RequestMembers,
}

impl ApiRequest {
    /// Creates a request without body and headers, retried as its method allows ([`Idempotency::of`]).
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>, source: Source) -> Self {
        let idempotency = Idempotency::of(&method);
        let (headers, caller) = (HeaderMap::new(), CallerId::UNNAMED);
        let (body, members) = (Bytes::new(), RequestMembers::default());
        Self { method, path: path.into(), headers, body, idempotency, source, caller, members }
    }

    /// Creates a GET request.
    #[must_use]
    pub fn get(path: impl Into<String>, source: Source) -> Self {
        Self::new(Method::GET, path, source)
    }

    pub(crate) fn route(&self) -> Route {
        route::find(self.method.as_str(), self.path.as_bytes())
    }
}

/// A client's request to forward.
#[derive(Debug)]
pub struct ForwardRequest {
    /// The head, with an absolute URI and the headers to send. Each attempt sends a copy.
    pub head: Arc<http::request::Parts>,
    /// Headers of the head that are not sent.
    pub omitted: &'static [HeaderName],
    /// The body.
    pub body: RequestBody,
    /// The route, matched on the bytes that are sent.
    pub route: Route,
    /// Which failures allow a retry. A streamed body is sent once, regardless of this.
    pub idempotency: Idempotency,
    /// Whose key to send.
    pub credentials: Credentials,
    /// The caller that the request is attributed to.
    pub caller: CallerId,
}

/// Whose key to send with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// The client's `Authorization` header, if any, unchanged.
    Client,
    /// The instance's key, which replaces any `Authorization` header.
    Instance,
}
