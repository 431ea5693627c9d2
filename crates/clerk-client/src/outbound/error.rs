//! Why a request has no response.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::MAX_BODY_BYTES;
use crate::limiter::Shed;
use crate::secret::SecretError;
use crate::transport::{ErrorKind, TransportError};

/// Why a request has no complete response.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The key cannot be read. Nothing was sent.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// The request is invalid. Nothing was sent.
    #[error("invalid request")]
    Request(#[source] Arc<http::Error>),
    /// No response, or an incomplete one.
    #[error(transparent)]
    Upstream(#[from] TransportError),
    /// The deadline passed first.
    #[error("no complete response within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The body is larger than [`MAX_BODY_BYTES`].
    #[error("response body is larger than {MAX_BODY_BYTES} bytes")]
    BodyTooLarge {
        /// Status of the response.
        status: StatusCode,
    },
}

/// How far a request without a complete response got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It never left, or the server says that it did not process it: not executed.
    Connect,
    /// It left, or may have left: it may have been executed.
    Sent,
    /// The response's head arrived: executed or rejected.
    Answered,
}

impl RequestError {
    /// How far the request got in any of its attempts.
    ///
    /// An incomplete or late response counts as [`Phase::Sent`], because its status may be unknown.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Key(_) | Self::Request(_) => Phase::Connect,
            Self::Upstream(error) if is_undone(error) && !error.is_after_sent() => Phase::Connect,
            Self::Upstream(_) | Self::Timeout(_) => Phase::Sent,
            Self::BodyTooLarge { .. } => Phase::Answered,
        }
    }
}

/// Why a request has no response. A response with any status, including 429, is not an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The limiter rejected the request. Nothing was sent.
    #[error(transparent)]
    Shed(#[from] Shed),
    /// The last attempt got no complete response.
    #[error("{}", no_response(*.attempts))]
    Request {
        /// The last attempt's error.
        #[source]
        error: RequestError,
        /// Attempts made.
        attempts: u32,
    },
}

impl From<http::Error> for RequestError {
    fn from(error: http::Error) -> Self {
        Self::Request(Arc::new(error))
    }
}

/// The text of an error whose source says what went wrong.
pub(crate) fn no_response(attempts: u32) -> String {
    match attempts {
        0 | 1 => "no response from Clerk".to_owned(),
        many => format!("no response from Clerk after {many} attempts"),
    }
}

/// Whether a request certainly did not leave, or was certainly not processed.
pub(super) const fn is_undone(error: &TransportError) -> bool {
    error.is_unprocessed() || matches!(error.kind(), ErrorKind::Dns | ErrorKind::Connect | ErrorKind::Tls)
}
