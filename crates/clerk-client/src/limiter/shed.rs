//! That a request was not let go, and why.

use std::time::Duration;

use clerk_quota::Bucket;

/// A request was not let go. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not sent, to stay within Clerk's rate limit (bucket {bucket}): {reason}; try again in {}", humantime::format_duration(whole(*retry_after)))]
pub struct Shed {
    /// Why.
    pub reason: ShedReason,
    /// The bucket that it would have been counted in.
    pub bucket: Bucket,
    /// Time after which it may go better, from now.
    pub retry_after: Duration,
}

/// Why a request was not let go. A closed set: it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShedReason {
    /// Too many wait already.
    QueueFull,
    /// Its turn would come, or did not come, within the time that it would wait.
    WaitTooLong,
}

impl ShedReason {
    /// All reasons.
    pub const ALL: [Self; 2] = [Self::QueueFull, Self::WaitTooLong];

    /// A word for labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::WaitTooLong => "wait_too_long",
        }
    }

    /// Position in [`ShedReason::ALL`].
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

/// For people: rounded up to whole seconds.
fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}
