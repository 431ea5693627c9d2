//! What can go wrong for an application that asks Clerk something.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::limiter::Shed;
use crate::outbound::{ErrorBody, Phase, RequestError, SendError};
use crate::secret::{SecretError, mask_secrets};
use crate::transport::{ApiUrlError, BuildError};

/// Longest part of a text from outside that a message repeats, in characters.
const MAX_SHOWN: usize = 80;

/// Clerk's code for what does not exist.
const NOT_FOUND: &str = "resource_not_found";

/// Why there is no result.
///
/// No text of it holds a key, a query, or a part of an answer other than Clerk's own error message, and there whatever
/// looks like a key is replaced.
///
/// ```no_run
/// # async fn example(clerk: clerk_client::clerk::Clerk) {
/// match clerk.users().get("user_2NNEqL2nrIRdJ194ndJqAHwEfxC").await {
///     Ok(user) => { /* there it is */ }
///     Err(error) if error.is_not_found() => { /* there is none */ }
///     Err(error) => match error.retry_after() {
///         Some(wait) => { /* throttled: say 503, and `Retry-After` */ }
///         None => { /* say 502, and log the error with its trace id */ }
///     },
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Clerk answered, and not with a success.
    #[error("{0}")]
    Api(Box<ApiError>),
    /// Not sent, to stay within the rate limit. Nothing was counted.
    #[error("{0}")]
    Shed(#[from] Shed),
    /// No complete answer came.
    #[error("{source}{}", tries(*.attempts))]
    Transport {
        /// What went wrong, the last time.
        #[source]
        source: RequestError,
        /// Attempts made.
        attempts: u32,
    },
    /// A success that cannot be understood: a page of a proxy, or a form that this version does not know.
    #[error("the answer with status {status} cannot be used: {reason}")]
    Decode {
        /// Status of the answer.
        status: StatusCode,
        /// What is wrong with it. Never a part of the body.
        reason: String,
    },
    /// Not an id that Clerk gives; nothing was sent.
    #[error("`{shown}` is not the id of a user: those are `user_` and letters and digits; nothing was sent")]
    InvalidId {
        /// The beginning of what was given.
        shown: String,
    },
    /// A parameter that Clerk would refuse; nothing was sent.
    #[error("{name} {reason}; nothing was sent")]
    InvalidParameter {
        /// Which one.
        name: &'static str,
        /// What it must be.
        reason: String,
    },
    /// A walk over all users cannot go on: what answers honours neither `starting_after` nor `created_at_after`, or not
    /// `order_by`.
    #[error("the list of users is not in the order asked for: what answers at this address is not Clerk's Backend API")]
    Disordered,
    /// The key cannot be used.
    #[error("{0}")]
    Key(#[from] SecretError),
    /// The address of the API cannot be used.
    #[error("the address of Clerk's API: {0}")]
    ApiUrl(#[from] ApiUrlError),
    /// The environment names no key, or several.
    #[error("{0}")]
    Environment(&'static str),
    /// The HTTP client could not be set up.
    #[error("{0}")]
    Build(#[from] BuildError),
}

/// An answer of Clerk's that is no success: any status from 300 on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Clerk answered {status}{}{}", self.what(), self.how_to_go_on())]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Clerk's code, such as `resource_not_found`; none where what stands in front of Clerk answered.
    pub code: Option<String>,
    /// Clerk's message, the long one if there is one; empty if there is none.
    pub message: String,
    /// Clerk's name of the exchange, for its support.
    pub trace_id: Option<String>,
    /// Least time to wait before the next request, counted from the answer.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        headers: &HeaderMap,
        errors: ErrorBody,
        retry_after: Option<Duration>,
    ) -> Self {
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
            None => ", and no error of Clerk's with it: check what stands between".to_owned(),
        }
    }

    fn how_to_go_on(&self) -> String {
        let wait = self.retry_after.map(|wait| format!("; try again in {}", humantime::format_duration(wait)));
        let trace = self.trace_id.as_ref().map(|id| format!(" (trace id {id})"));
        wait.unwrap_or_default() + &trace.unwrap_or_default()
    }
}

impl Error {
    pub(super) fn invalid_id(id: &str) -> Self {
        Self::InvalidId { shown: shown(id) }
    }

    /// What Clerk says of a user that does not exist, for one that was left out of a list.
    pub(super) fn missing_user() -> Self {
        Self::Api(Box::new(ApiError {
            status: StatusCode::NOT_FOUND,
            code: Some(NOT_FOUND.to_owned()),
            message: "there is no user with this id".to_owned(),
            trace_id: None,
            retry_after: None,
        }))
    }

    /// A user of whom a field is named twice.
    pub(super) fn ambiguous() -> Self {
        Self::Decode { status: StatusCode::OK, reason: "it is JSON of another form than expected".to_owned() }
    }

    pub(super) fn parameter(name: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidParameter { name, reason: reason.into() }
    }

    /// Clerk's answer, if it answered with an error.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        if let Self::Api(error) = self { Some(error) } else { None }
    }

    /// Status of the answer, if there was one.
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

    /// Clerk's code.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.api()?.code.as_deref()
    }

    /// Clerk's name of the exchange, for its support.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.api()?.trace_id.as_deref()
    }

    /// Time after which it may go better: Clerk's `Retry-After`, or the pacer's.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after,
            Self::Shed(shed) => Some(shed.retry_after),
            _ => None,
        }
    }

    /// Whether there is no such thing: 404 with Clerk's word for it. A 404 of something in between is none.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND) && self.code() == Some(NOT_FOUND)
    }

    /// Whether nothing was executed at Clerk, so that even a write may be sent again.
    #[must_use]
    pub const fn is_unsent(&self) -> bool {
        match self {
            Self::Transport { source, .. } => matches!(source.phase(), Phase::Connect),
            Self::Api(_) | Self::Decode { .. } | Self::Disordered => false,
            _ => true,
        }
    }

    pub(super) fn is_refused_parameter(&self) -> bool {
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

/// How often it was tried, where that says something.
fn tries(attempts: u32) -> String {
    if attempts > 1 { format!(" (attempts: {attempts})") } else { String::new() }
}

/// Text from outside, fit for a message: short, printable, without keys.
fn shown(text: &str) -> String {
    let short: String = text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
    // Keys are told by their length, too: mask the whole text, not what is left of it.
    if mask_secrets(text) == text { short } else { mask_secrets(text).chars().take(MAX_SHOWN).collect() }
}
