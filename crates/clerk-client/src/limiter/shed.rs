//! Rejection of a request by the limiter.

use std::fmt;
use std::time::Duration;

use clerk_quota::{Bucket, Limit};

/// A request was rejected by the limiter. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shed {
    /// Why it was rejected.
    pub reason: ShedReason,
    /// The bucket of the request.
    pub bucket: Bucket,
    /// The cap of the caller, if that is the reason.
    pub cap: Option<Limit>,
    /// Time from now after which a retry may succeed.
    pub retry_after: Duration,
}

impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, bucket, cap, retry_after } = self;
        match (reason, cap) {
            (ShedReason::CallerPaused, _) => write!(f, "not sent: {reason}")?,
            (ShedReason::CallerCap, Some(Limit { requests, window })) => {
                let window = humantime::format_duration(*window);
                write!(f, "not sent: {reason} of {requests} requests in {window}")?;
            }
            _ => write!(f, "not sent, to stay within Clerk's rate limit (bucket {bucket}): {reason}")?,
        }
        write!(f, "; try again in {}", humantime::format_duration(whole(*retry_after)))
    }
}

impl std::error::Error for Shed {}

/// Why a request was rejected. The set is closed, since it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShedReason {
    /// The queue is full.
    QueueFull,
    /// The wait exceeds, or would exceed, the maximum.
    WaitTooLong,
    /// The caller has used its cap, and the wait for it exceeds, or would exceed, the maximum.
    CallerCap,
    /// The caller is paused.
    CallerPaused,
}

impl ShedReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::QueueFull, Self::WaitTooLong, Self::CallerCap, Self::CallerPaused];

    /// Returns the name for labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::WaitTooLong => "wait_too_long",
            Self::CallerCap => "caller_cap",
            Self::CallerPaused => "caller_paused",
        }
    }

    /// Returns the position in [`ShedReason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ShedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue is full",
            Self::WaitTooLong => "the wait would be too long",
            Self::CallerCap => "the caller has used its cap",
            Self::CallerPaused => "the caller is paused",
        })
    }
}

/// Rounded up to whole seconds, for messages.
fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}
