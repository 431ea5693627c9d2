//! Counts of what probes did.

use super::Moment;
use super::histogram::Histogram;

/// Upper bounds, in seconds, of the histogram of probe durations. None is a whole number, so that their text is the
/// same in every exposition format.
const PROBE_DURATION_BOUNDS: [f64; 9] = [0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 0.95, 2.5, 7.5];

/// The reason for a failed probe. A closed set, because it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeFailure {
    /// No complete response within the probe's deadline.
    Timeout,
    /// The host name could not be resolved.
    Dns,
    /// The connection failed or broke.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// Clerk rejected the key (401, 403).
    Key,
    /// Clerk responded with 429.
    Throttled,
    /// Another status that is not a success.
    Status,
    /// The response was a redirect, which probes never follow.
    Redirect,
    /// A success but not JSON: often a proxy or a login page.
    UnexpectedContent,
    /// The body was not valid.
    Decode,
    /// The body exceeded the size limit.
    BodyTooLarge,
    /// The key could not be read.
    Secret,
    /// Anything else.
    Other,
}

impl ProbeFailure {
    /// All reasons.
    pub const ALL: [Self; 13] = [
        Self::Timeout,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Key,
        Self::Throttled,
        Self::Status,
        Self::Redirect,
        Self::UnexpectedContent,
        Self::Decode,
        Self::BodyTooLarge,
        Self::Secret,
        Self::Other,
    ];

    /// Returns the value of the label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Key => "key",
            Self::Throttled => "throttled",
            Self::Status => "status",
            Self::Redirect => "redirect",
            Self::UnexpectedContent => "unexpected_content",
            Self::Decode => "decode",
            Self::BodyTooLarge => "body_too_large",
            Self::Secret => "secret",
            Self::Other => "other",
        }
    }
}

/// The reason why a due probe was not made. A closed set, because it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeSkip {
    /// The previous probe was still running.
    InFlight,
    /// Other traffic was observed recently (`when: idle`).
    Fresh,
    /// A 429 required waiting.
    Blocked,
    /// Earlier probes failed, so the interval is longer.
    Backoff,
    /// The time had already passed, such as after the machine was suspended.
    Missed,
}

impl ProbeSkip {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::InFlight, Self::Fresh, Self::Blocked, Self::Backoff, Self::Missed];

    /// Returns the value of the label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Fresh => "fresh",
            Self::Blocked => "blocked",
            Self::Backoff => "backoff",
            Self::Missed => "missed",
        }
    }
}

/// Counts of an instance's probes.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeStats {
    /// Probes made.
    pub total: u64,
    /// Failed probes, in the order of [`ProbeFailure::ALL`].
    pub failures: [u64; ProbeFailure::ALL.len()],
    /// Probes that were due but not made, in the order of [`ProbeSkip::ALL`].
    pub skipped: [u64; ProbeSkip::ALL.len()],
    /// Probe durations in seconds.
    pub duration_seconds: Histogram,
    /// When a probe last succeeded.
    pub last_success: Option<Moment>,
}

impl Default for ProbeStats {
    fn default() -> Self {
        Self {
            total: 0,
            failures: [0; ProbeFailure::ALL.len()],
            skipped: [0; ProbeSkip::ALL.len()],
            duration_seconds: Histogram::new(&PROBE_DURATION_BOUNDS),
            last_success: None,
        }
    }
}
