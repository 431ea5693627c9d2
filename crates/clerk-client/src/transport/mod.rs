//! How requests reach Clerk: one trait, so that the parts above do not know whether there is a network below.

mod api_url;
mod classify;
mod environment;
#[cfg(feature = "hyper")]
mod http2;
#[cfg(feature = "hyper")]
mod hyper;
#[cfg(feature = "test-util")]
mod memory;
mod no_proxy;
mod proxies;
#[cfg(feature = "hyper")]
mod proxy_connector;
mod replaceable;
mod request_body;
mod reqwest;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

pub use self::api_url::{ApiUrl, ApiUrlError};
pub use self::classify::has_cause;
pub use self::environment::environment_warnings;
#[cfg(feature = "hyper")]
pub use self::hyper::{HyperOptions, HyperTransport, NetworkTransport};
#[cfg(feature = "test-util")]
pub use self::memory::MemoryTransport;
pub use self::proxies::{Proxies, Proxy, ProxyError};
#[cfg(feature = "hyper")]
pub use self::proxy_connector::ProxyConnector;
pub use self::replaceable::ReplaceableTransport;
pub use self::request_body::{BodyError, RequestBody};
pub use self::reqwest::{BuildError, ReqwestOptions, ReqwestTransport};

/// The body of an answer, read as a stream.
pub type Body = UnsyncBoxBody<Bytes, TransportError>;

/// The answer to come.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<http::Response<Body>, TransportError>> + Send>>;

/// Something that carries a request to Clerk and brings the answer back.
///
/// It sends one request and follows no redirect, repeats nothing and has no deadline: dropping the future cancels.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends a request. Its URI is absolute.
    fn send(&self, request: http::Request<RequestBody>) -> ResponseFuture;
}

/// In the extensions of a request: send it on a new connection, whatever idle ones there are.
#[derive(Debug, Clone, Copy)]
pub struct FreshConnection;

/// What went wrong between us and Clerk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The host name was not found.
    Dns,
    /// No connection, or it was refused.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// Something took longer than it may.
    Timeout,
    /// The connection broke after it was made.
    Broken,
    /// What came is not valid HTTP, or its content encoding is broken.
    Decode,
    /// Anything else.
    Other,
}

/// No (complete) answer came. Its text names the cause down to its root, and neither user info nor query of any URL.
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
    /// An error with a text of its own.
    #[must_use]
    pub const fn new(kind: ErrorKind, message: String) -> Self {
        Self { kind, message, was_idle: false, is_after_sent: false, is_unprocessed: false }
    }

    /// An error with the text of an error and of all its causes.
    pub(crate) fn caused_by(kind: ErrorKind, error: &(dyn StdError + 'static)) -> Self {
        Self { kind, message: error_chain(error), was_idle: false, is_after_sent: false, is_unprocessed: false }
    }

    /// The same for a request on a connection that had been idle, and that the server closed before it answered.
    #[cfg(feature = "hyper")]
    pub(crate) fn on_idle_connection(self) -> Self {
        Self { was_idle: true, ..self }
    }

    /// The same for a request of which the server said that nothing was done with it.
    #[cfg(feature = "hyper")]
    pub(crate) fn never_processed(self) -> Self {
        Self { is_unprocessed: true, ..self }
    }

    /// Whether it is certain that nothing was done with the request, though it may have left: the server refused its
    /// stream or named an earlier one as the last that it takes (RFC 9113, sections 6.8 and 8.7), or the connection was
    /// gone before the request was written to it. Even a write may be sent again.
    #[must_use]
    pub const fn is_unprocessed(&self) -> bool {
        self.is_unprocessed
    }

    /// Whether the server closed a reused connection instead of answering, or one that it had said it would close: most
    /// likely it closed the connection while the request was on its way, and never read it.
    #[must_use]
    pub const fn is_idle_race(&self) -> bool {
        self.was_idle
    }

    /// The same of a request that was sent before: in an earlier attempt, or on an idle connection.
    pub(crate) const fn set_after_sent(&mut self) {
        self.is_after_sent = true;
    }

    /// Whether the request was sent before, so that a failure to connect does not mean that nothing was sent.
    #[must_use]
    pub const fn is_after_sent(&self) -> bool {
        self.is_after_sent
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// An error with its sources, in one line for logs. A source whose text is part of the text before it is left out.
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
