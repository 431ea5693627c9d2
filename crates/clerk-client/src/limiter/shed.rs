//! Rejection of a request by the limiter.

use std::time::Duration;

use clerk_quota::Bucket;

/// A request was rejected by the limiter. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not sent, to stay within Clerk's rate limit (bucket {bucket}): {reason}; try again in {}", humantime::format_duration(whole(*retry_after)))]
pub struct Shed {
    /// Why it was rejected.
    pub reason: ShedReason,
    /// The bucket of the request.
    pub bucket: Bucket,
    /// Time from now after which a retry may succeed.
    pub retry_after: Duration,
}

/// Why a request was rejected. The set is closed, since it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShedReason {
    /// The queue is full.
    QueueFull,
    /// The wait exceeds, or would exceed, the maximum.
    WaitTooLong,
}

impl ShedReason {
    /// All reasons.
    pub const ALL: [Self; 2] = [Self::QueueFull, Self::WaitTooLong];

    /// Returns the name for labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::WaitTooLong => "wait_too_long",
        }
    }

    /// Returns the position in [`ShedReason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for ShedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue is full",
            Self::WaitTooLong => "the wait would be too long",
        })
    }
}

/// Rounded up to whole seconds, for messages.
fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}
