//! What is asked of Clerk: a request of our own, or one of an application's.

use bytes::Bytes;
use http::{HeaderMap, Method};

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
/// // A write is sent once, unless whoever makes it says that a refused one may be sent again.
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
    /// Further headers. `Credentials` and `Host` are ours and are left out; without an `Accept`, JSON is asked for.
    pub headers: HeaderMap,
    /// The body; the same bytes on each attempt.
    pub body: Bytes,
    /// Which failures allow it to be sent again.
    pub idempotency: Idempotency,
    /// Who asks.
    pub source: Source,
    /// The same, by a name that the caller knows.
    pub caller: CallerId,
}

impl ApiRequest {
    /// A request without a body and without further headers, repeated as its method allows ([`Idempotency::of`]).
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>, source: Source) -> Self {
        let idempotency = Idempotency::of(&method);
        let (headers, caller) = (HeaderMap::new(), CallerId::UNNAMED);
        Self { method, path: path.into(), headers, body: Bytes::new(), idempotency, source, caller }
    }

    /// A GET request.
    #[must_use]
    pub fn get(path: impl Into<String>, source: Source) -> Self {
        Self::new(Method::GET, path, source)
    }

    pub(crate) fn route(&self) -> Route {
        route::find(self.method.as_str(), self.path.as_bytes())
    }
}

/// A request of an application's.
#[derive(Debug)]
pub struct ForwardRequest {
    /// With an absolute URI, and its headers as they are to be sent.
    pub request: http::Request<RequestBody>,
    /// The route, found from the bytes that are sent.
    pub route: Route,
    /// Which failures allow it to be sent again. A body that is a stream is sent once, whatever this says.
    pub idempotency: Idempotency,
    /// Whose key it carries.
    pub credentials: Credentials,
    /// Who is charged for it.
    pub caller: CallerId,
}

/// Whose key a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// What its headers say, be it nothing.
    Client,
    /// The instance's own key, whatever its headers say.
    Instance,
}
