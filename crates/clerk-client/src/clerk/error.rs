//! The error of the client.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::limiter::Shed;
use crate::outbound::{ErrorBody, Phase, RequestError, SendError, no_response};
#[cfg(feature = "redis")]
use crate::redis::RedisConfigError;
use crate::secret::{SecretError, mask_secrets};
use crate::transport::{ApiUrlError, BuildError};
#[cfg(feature = "axum")]
use crate::webhook::WebhookConfigError;

/// Longest part of a text from outside that a message repeats, in characters.
const MAX_SHOWN: usize = 80;

/// Clerk's code for a resource that does not exist.
const NOT_FOUND: &str = "resource_not_found";

/// Why a call has no result.
///
/// Cheap to clone: requests that were coalesced or batched share one error. No text contains a key, a query, or a part of
/// a response other than Clerk's own error message, in which anything that looks like a key is masked. The text of an
/// error does not repeat that of its [`source`](std::error::Error::source);
/// [`error_chain`](crate::transport::error_chain) joins them for logs.
///
/// ```no_run
/// # async fn example(clerk: clerk_client::Clerk) {
/// match clerk.users().get("user_2NNEqL2nrIRdJ194ndJqAHwEfxC").await {
///     Ok(user) => { /* found */ }
///     Err(error) if error.is_not_found() => { /* no such user */ }
///     Err(error) => match error.retry_after() {
///         Some(wait) => { /* throttled: respond 503 with `Retry-After` */ }
///         None => { /* respond 502 and log the error with its trace id */ }
///     },
/// }
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Clerk responded with an error.
    #[error(transparent)]
    Api(Box<ApiError>),
    /// Not sent, to stay within the rate limit. Not counted by Clerk.
    #[error(transparent)]
    Shed(#[from] Shed),
    /// No complete response.
    #[error("{}", no_response(*.attempts))]
    Transport {
        /// The error of the last attempt.
        source: RequestError,
        /// Attempts made.
        attempts: u32,
    },
    /// A success whose body cannot be read: a proxy's page, or a schema that this version does not know.
    #[error("cannot use the response with status {status}: {reason}")]
    Decode {
        /// Status of the response.
        status: StatusCode,
        /// The reason, without any part of the body.
        reason: String,
    },
    /// Not the id of a user; nothing was sent.
    #[error("`{shown}` is not the id of a user: expected `user_` followed by letters and digits; nothing was sent")]
    InvalidId {
        /// The beginning of the given id.
        shown: String,
    },
    /// A parameter that Clerk would reject; nothing was sent.
    #[error("{name} {reason}; nothing was sent")]
    InvalidParameter {
        /// Its name.
        name: &'static str,
        /// What it must be.
        reason: String,
    },
    /// The server ignores `order_by`, or both `starting_after` and `created_at_after`: paging cannot go on.
    #[error("the list of users is not in the requested order: the server at this address is not Clerk's Backend API")]
    Disordered,
    /// The secret key cannot be used.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// The address of the API cannot be used.
    #[error("the address of Clerk's API cannot be used")]
    ApiUrl(#[from] ApiUrlError),
    /// No secret key was given, or two were.
    #[error("{0}")]
    Configuration(&'static str),
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The Redis of the cache cannot be used.
    #[cfg(feature = "redis")]
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
    /// A webhook signing secret cannot be used.
    #[cfg(feature = "axum")]
    #[error(transparent)]
    Webhook(#[from] WebhookConfigError),
}

/// An error response of Clerk's: any status from 300 on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Clerk answered {status}{}{}", self.what(), self.remedy())]
#[non_exhaustive]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Clerk's code, such as `resource_not_found`; `None` if the response is not Clerk's but a proxy's.
    pub code: Option<String>,
    /// Clerk's message, the long one if there is one; empty if there is none.
    pub message: String,
    /// Clerk's id of the request, for its support.
    pub trace_id: Option<String>,
    /// Least time to wait before the next request, from the response on.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, body: &[u8], retry_after: Option<Duration>) -> Self {
        let errors = ErrorBody::parse(status, body);
        let header = || headers.get("x-clerk-trace-id")?.to_str().ok().map(str::to_owned);
        let trace_id = errors.trace_id.or_else(header).map(|id| shown(&id));
        let first = errors.errors.into_iter().next().unwrap_or_default();
        let message = if first.long_message.is_empty() { first.message } else { first.long_message };
        let code = Some(shown(&first.code)).filter(|code| !code.is_empty());
        Self { status, code, message: mask_secrets(&message), trace_id, retry_after }
    }

    fn what(&self) -> String {
        match &self.code {
            Some(code) => format!(" {code}: {}", self.message),
            None => " without an error of Clerk's: check for a proxy in between".to_owned(),
        }
    }

    fn remedy(&self) -> String {
        let wait = self.retry_after.map(|wait| format!("; try again in {}", humantime::format_duration(wait)));
        let trace = self.trace_id.as_ref().map(|id| format!(" (trace id {id})"));
        wait.unwrap_or_default() + &trace.unwrap_or_default()
    }
}

impl Error {
    pub(super) fn invalid_id(id: &str) -> Self {
        Self::InvalidId { shown: shown(id) }
    }

    /// Clerk's error for a user that does not exist, for an id that a list was without.
    pub(super) fn missing_user() -> Self {
        Self::Api(Box::new(ApiError {
            status: StatusCode::NOT_FOUND,
            code: Some(NOT_FOUND.to_owned()),
            message: "there is no user with this id".to_owned(),
            trace_id: None,
            retry_after: None,
        }))
    }

    /// A user with a duplicate field.
    pub(super) fn ambiguous() -> Self {
        Self::Decode { status: StatusCode::OK, reason: "it is JSON of another form than expected".to_owned() }
    }

    pub(super) fn parameter(name: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidParameter { name, reason: reason.into() }
    }

    /// Clerk's error response, if there was one.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        if let Self::Api(error) = self { Some(error) } else { None }
    }

    /// Status of the response, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Api(error) => Some(error.status),
            Self::Decode { status, .. } | Self::Transport { source: RequestError::BodyTooLarge { status }, .. } => {
                Some(*status)
            }
            _ => None,
        }
    }

    /// Clerk's error code.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.api()?.code.as_deref()
    }

    /// Clerk's id of the request, for its support.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.api()?.trace_id.as_deref()
    }

    /// Time after which a retry may succeed: Clerk's `Retry-After`, or the limiter's estimate.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after,
            Self::Shed(shed) => Some(shed.retry_after),
            _ => None,
        }
    }

    /// Whether the resource does not exist: 404 with Clerk's code for it. A proxy's 404 is not one.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND) && self.code() == Some(NOT_FOUND)
    }

    /// Whether Clerk executed nothing, so that even a write may be sent again.
    #[must_use]
    pub const fn is_unsent(&self) -> bool {
        match self {
            Self::Transport { source, .. } => matches!(source.phase(), Phase::Connect),
            Self::Api(_) | Self::Decode { .. } | Self::Disordered => false,
            _ => true,
        }
    }

    pub(super) fn is_rejected_parameter(&self) -> bool {
        self.status() == Some(StatusCode::UNPROCESSABLE_ENTITY)
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Shed(shed) => Self::Shed(shed),
            SendError::Request { error, attempts } => Self::Transport { source: error, attempts },
        }
    }
}

/// Text from outside, fit for a message: short, printable, without keys.
fn shown(text: &str) -> String {
    let short: String = text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
    // A cut key is no longer recognised: mask before cutting.
    if mask_secrets(text) == text { short } else { mask_secrets(text).chars().take(MAX_SHOWN).collect() }
}
