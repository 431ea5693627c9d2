//! How requests reach Clerk: one trait, so that the parts above do not know whether there is a network below.

mod api_url;
mod classify;
#[cfg(feature = "hyper")]
mod hyper;
#[cfg(feature = "test-util")]
mod memory;
#[cfg(feature = "hyper")]
mod proxy_connector;
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
#[cfg(feature = "hyper")]
pub use self::hyper::{HyperOptions, HyperTransport, NetworkTransport};
#[cfg(feature = "test-util")]
pub use self::memory::MemoryTransport;
#[cfg(feature = "hyper")]
pub use self::proxy_connector::ProxyConnector;
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
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    kind: ErrorKind,
    message: String,
    was_idle: bool,
}

impl TransportError {
    /// An error with a text of its own.
    #[must_use]
    pub const fn new(kind: ErrorKind, message: String) -> Self {
        Self { kind, message, was_idle: false }
    }

    /// An error with the text of an error and of all its causes.
    pub(crate) fn caused_by(kind: ErrorKind, error: &(dyn StdError + 'static)) -> Self {
        Self { kind, message: chain(error), was_idle: false }
    }

    /// The same for a request on a connection that had been idle, and that the server closed before it answered.
    #[cfg(feature = "hyper")]
    pub(crate) fn on_idle_connection(self) -> Self {
        Self { was_idle: true, ..self }
    }

    /// Whether the server closed a reused connection instead of answering: most likely it closed the connection for
    /// having been idle while the request was on its way, and never read it.
    #[must_use]
    pub const fn is_idle_race(&self) -> bool {
        self.was_idle
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The texts of an error and its causes; a cause that only repeats what stands above is left out.
fn chain(error: &(dyn StdError + 'static)) -> String {
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
