//! Overrides: an operator pauses or caps one caller of an instance for a limited time.
//!
//! - `limits`: configured shares and overrides, and the shares that result. Pure.
//! - `shared`: the overrides of all gateways on one Redis.
//! - `control`: sets, ends and follows overrides, and passes the shares on to the limiters.

pub(in crate::gateway) mod control;
pub(in crate::gateway) mod limits;
mod shared;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clerk_client::redis::RedisClientError;

/// How long an override may last.
pub const OVERRIDE_DURATIONS: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(24 * 3600);

/// Maximum number of overrides of one instance.
pub const MAX_OVERRIDES: usize = 64;

/// What happens to a caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OverrideAction {
    /// No request of it is sent.
    Pause,
    /// It gets at most a part of the limit.
    Cap {
        /// The part, above 0 and below 1. A smaller one in the configuration stays in force.
        max_share: f64,
    },
}

impl OverrideAction {
    /// Returns the name for labels, logs and requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Cap { .. } => "cap",
        }
    }

    /// Returns the part of the limit that is left to the caller; `None` for a pause.
    #[must_use]
    pub const fn max_share(self) -> Option<f64> {
        match self {
            Self::Pause => None,
            Self::Cap { max_share } => Some(max_share),
        }
    }

    /// Whether the part is one of the limit.
    fn is_valid(self) -> bool {
        self.max_share().is_none_or(|share| share > 0.0 && share < 1.0)
    }
}

/// An override that an operator asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct OverrideRequest<'a> {
    /// Alias of the instance. May be missing if there is only one.
    pub instance: Option<&'a str>,
    /// Name of the caller.
    pub caller: &'a str,
    /// What happens to it.
    pub action: OverrideAction,
    /// For how long; one of [`OVERRIDE_DURATIONS`].
    pub duration: Duration,
    /// Who asks, if known; for the log.
    pub by: Option<&'a str>,
}

/// An override that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveOverride {
    /// Alias of the instance.
    pub instance: Arc<str>,
    /// Name of the caller.
    pub caller: Arc<str>,
    /// What happens to it.
    pub action: OverrideAction,
    /// When it ends, on the wall clock.
    pub until: SystemTime,
    /// Whether it holds for all gateways on the same Redis, and not for this process only.
    pub is_shared: bool,
}

/// Why an override was not set or not ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// No configured instance has this name.
    #[error("no instance of this name is configured; `instance` is one of: {known}")]
    NoInstance {
        /// The names, as a list.
        known: String,
    },
    /// There are several instances, and none is named.
    #[error("`instance` is missing, and there are several: {known}")]
    WhichInstance {
        /// The names, as a list.
        known: String,
    },
    /// The gateway has never seen this caller, and it is not configured.
    #[error("the gateway has seen no caller of this name; `caller` is one of: {known}")]
    NoCaller {
        /// The names, as a list.
        known: String,
    },
    /// There is nothing to end.
    #[error("this caller of the instance has no override; GET the same path for a list of all")]
    NoOverride,
    /// The instance has [`MAX_OVERRIDES`].
    #[error("the instance has {MAX_OVERRIDES} overrides already; end one of them first")]
    TooMany,
    /// The action or the duration is out of range.
    #[error("a cap leaves more than 0 and less than 1, and an override lasts from 1 minute to 24 hours")]
    OutOfRange,
    /// The other gateways cannot be informed.
    #[error("not {what}: {error}. Try again; if Redis got it nevertheless, the list has it within a second")]
    Redis {
        /// What was not done: `set` or `ended`.
        what: &'static str,
        /// The cause.
        error: RedisClientError,
    },
    /// Another program, or another version of this one, wrote something else.
    #[error("not done: {UNEXPECTED}")]
    Content,
}

/// The remedy if the hash in Redis cannot be read.
const UNEXPECTED: &str = "the overrides in Redis have unexpected content; use the same version in all gateways";
