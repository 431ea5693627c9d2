//! HTTP transports behind one trait, so that callers do not depend on a network.

mod api_url;
mod classify;
mod connection_log;
mod environment;
#[cfg(feature = "hyper")]
mod http2;
#[cfg(feature = "hyper")]
mod hyper;
#[cfg(feature = "test-util")]
mod memory;
mod no_proxy;
mod observed;
mod proxies;
#[cfg(feature = "hyper")]
mod proxy_connector;
mod replaceable;
mod request_body;
mod reqwest;
mod tls;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

pub use self::api_url::{ApiUrl, ApiUrlError};
pub use self::classify::has_cause;
pub use self::connection_log::{ConnectionEvent, ConnectionLog, ConnectionStep};
pub use self::environment::environment_warnings;
#[cfg(feature = "hyper")]
pub use self::hyper::{HyperOptions, HyperTransport, NetworkTransport, host_of};
#[cfg(feature = "test-util")]
pub use self::memory::MemoryTransport;
pub use self::proxies::{Proxies, Proxy, ProxyError};
#[cfg(feature = "hyper")]
pub use self::proxy_connector::ProxyConnector;
pub use self::replaceable::ReplaceableTransport;
pub use self::request_body::{BodyError, RequestBody};
pub use self::reqwest::{BuildError, ReqwestOptions, ReqwestTransport};

/// A streamed response body.
pub type Body = UnsyncBoxBody<Bytes, TransportError>;

/// A pending response.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<http::Response<Body>, TransportError>> + Send>>;

/// Sends requests to Clerk.
///
/// Implementations do not follow redirects, do not retry and have no deadline. Dropping the future cancels.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends a request. Its URI is absolute.
    fn send(&self, request: http::Request<RequestBody>) -> ResponseFuture;
}

/// A request extension: use a new connection even if there is an idle one.
#[derive(Debug, Clone, Copy)]
pub struct FreshConnection;

/// The kind of a transport failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The host name cannot be resolved.
    Dns,
    /// The connection failed or was refused.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// A time limit was exceeded.
    Timeout,
    /// The connection broke after it was established.
    Broken,
    /// The response is not valid HTTP, or its content encoding is invalid.
    Decode,
    /// Anything else.
    Other,
}

/// No complete response arrived. The message includes all causes, but no user info or query of a URL.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    kind: ErrorKind,
    message: String,
    was_idle: bool,
    is_after_sent: bool,
    is_unprocessed: bool,
}

impl TransportError {
    /// Creates an error with this message.
    #[must_use]
    pub const fn new(kind: ErrorKind, message: String) -> Self {
        Self { kind, message, was_idle: false, is_after_sent: false, is_unprocessed: false }
    }

    /// Creates an error with the messages of an error and all its causes.
    pub(crate) fn caused_by(kind: ErrorKind, error: &(dyn StdError + 'static)) -> Self {
        Self { kind, message: error_chain(error), was_idle: false, is_after_sent: false, is_unprocessed: false }
    }

    /// Marks that the server closed a previously idle connection before it responded.
    #[cfg(feature = "hyper")]
    pub(crate) fn on_idle_connection(self) -> Self {
        Self { was_idle: true, ..self }
    }

    /// Marks that the server did not process the request.
    #[cfg(feature = "hyper")]
    pub(crate) fn never_processed(self) -> Self {
        Self { is_unprocessed: true, ..self }
    }

    /// Whether the request certainly was not processed, though it may have been sent. Even a write can be retried.
    ///
    /// The server refused its stream or named an earlier one as the last accepted (RFC 9113, sections 6.8 and 8.7), or
    /// the connection was closed before the request was written.
    #[must_use]
    pub const fn is_unprocessed(&self) -> bool {
        self.is_unprocessed
    }

    /// Whether the server closed a reused connection, or one it had announced to close, instead of responding.
    ///
    /// Most likely it closed the connection while the request was being sent, and never read it.
    #[must_use]
    pub const fn is_idle_race(&self) -> bool {
        self.was_idle
    }

    /// Marks that the request was sent before: in an earlier attempt or on an idle connection.
    pub(crate) const fn set_after_sent(&mut self) {
        self.is_after_sent = true;
    }

    /// Whether the request was sent before, so that a failure to connect does not imply that nothing was sent.
    #[must_use]
    pub const fn is_after_sent(&self) -> bool {
        self.is_after_sent
    }

    /// Returns the kind of failure.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// Joins the messages of an error and its sources in one line, for logs. Skips sources whose text is already included.
#[must_use]
pub fn error_chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}
