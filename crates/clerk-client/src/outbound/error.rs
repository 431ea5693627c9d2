//! Why a request has no response.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::MAX_BODY_BYTES;
use crate::limiter::Shed;
use crate::secret::SecretError;
use crate::transport::{ErrorKind, TransportError};

/// Why one attempt has no complete response.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The key cannot be read; nothing was sent.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// The request is not valid HTTP; nothing was sent.
    #[error("not a valid request")]
    Request(#[source] Arc<http::Error>),
    /// No answer, or a broken one.
    #[error(transparent)]
    Upstream(#[from] TransportError),
    /// The deadline passed first.
    #[error("no complete answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The body is larger than [`MAX_BODY_BYTES`].
    #[error("the answer's body is larger than {MAX_BODY_BYTES} bytes")]
    BodyTooLarge {
        /// Status of the answer.
        status: StatusCode,
    },
}

/// How far a request got that has no complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It never left, or the server said that it did nothing with it: it was not executed.
    Connect,
    /// It left, or may have: nobody knows whether it was executed.
    Sent,
    /// The head of the answer came: it was executed, or refused.
    Answered,
}

impl RequestError {
    /// How far the request got, in any of its attempts. A broken or late answer counts as [`Phase::Sent`]: its status may be
    /// unknown.
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

/// Why a request has no response. A response of any status, a 429 too, is not an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// It was not let go; nothing was sent.
    #[error(transparent)]
    Shed(#[from] Shed),
    /// The last attempt brought no complete answer.
    #[error("{}", no_response(*.attempts))]
    Request {
        /// What went wrong, the last time.
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

/// Whether a request surely did not leave, or was surely not looked at.
pub(super) const fn is_undone(error: &TransportError) -> bool {
    error.is_unprocessed() || matches!(error.kind(), ErrorKind::Dns | ErrorKind::Connect | ErrorKind::Tls)
}
