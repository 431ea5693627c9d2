//! Whether a write was executed.

use http::StatusCode;

use super::error::{Phase, SendError};

/// Whether a write was executed, as far as the client can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Not executed.
    NotExecuted,
    /// Executed, or not; it will not be executed from now on.
    Executed,
    /// Executed, or not, or still to be executed.
    Unknown,
}

impl WriteOutcome {
    /// The outcome of a write without a response.
    #[must_use]
    pub const fn of_error(error: &SendError) -> Self {
        match error {
            SendError::Shed(_) => Self::NotExecuted,
            SendError::Request { error, attempts } if *attempts == 1 && matches!(error.phase(), Phase::Connect) => {
                Self::Executed
            }
            SendError::Request { .. } => Self::Unknown,
        }
    }

    /// The outcome of a write with a response. `is_only_attempt`: no earlier attempt can have been executed.
    #[must_use]
    pub fn of_status(status: StatusCode, is_only_attempt: bool) -> Self {
        match status.as_u16() {
            // A proxy before Clerk gave up waiting, which says nothing about Clerk: 520 to 530 are Cloudflare's.
            408 | 502..=504 | 520..=530 => Self::Unknown,
            // Rejected for an error of the client's.
            400..=499 if is_only_attempt => Self::NotExecuted,
            _ => Self::Executed,
        }
    }
}
