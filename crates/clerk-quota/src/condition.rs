//! The state of an instance as one verdict with a cause, used by the status page, checks and logs.

use std::borrow::Cow;
use std::time::Duration;

use super::limits::Bucket;
use super::probe_stats::ProbeFailure;
use super::snapshot::{BucketSnapshot, InstanceSnapshot};
use super::{Moment, Observation};

/// How long an event counts as current. Longer than a window, so that bursts do not toggle the verdict.
const PRESENT: Duration = Duration::from_secs(60);

/// The rate limit state of an instance, in rising severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// At least the threshold is left.
    Fine,
    /// The remaining quota is not known, and no request was rejected in the last minute.
    UseUnknown,
    /// Less than the threshold is left, or was in the last minute.
    Low,
    /// Clerk rejected requests in the last minute.
    Throttled,
    /// Clerk rejects requests: a `Retry-After` is in force.
    Blocked,
}

impl Verdict {
    /// Returns the verdict in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::UseUnknown => "use unknown",
            Self::Low => "low",
            Self::Throttled => "throttled",
            Self::Blocked => "blocked",
        }
    }

    /// Returns whether callers are affected or soon will be.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Low | Self::Throttled | Self::Blocked)
    }
}

/// The cause of failing requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trouble {
    /// Clerk rejects the key.
    Key,
    /// Clerk cannot be reached, or an intermediary responds in its place.
    Network,
    /// Clerk or its edge is failing.
    Clerk,
    /// Requests are rejected because the limit is used up.
    Throttled,
}

impl Trouble {
    /// Returns the cause in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key refused",
            Self::Network => "network",
            Self::Clerk => "Clerk is failing",
            Self::Throttled => "throttled",
        }
    }

    /// Returns the value of the label `trouble`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Network => "network",
            Self::Clerk => "clerk",
            Self::Throttled => "throttled",
        }
    }

    /// Returns the cause of a failed probe.
    pub(super) const fn of_failure(failure: ProbeFailure) -> Option<Self> {
        match failure {
            ProbeFailure::Key => Some(Self::Key),
            ProbeFailure::Status => Some(Self::Clerk),
            ProbeFailure::Timeout
            | ProbeFailure::Dns
            | ProbeFailure::Connect
            | ProbeFailure::Tls
            | ProbeFailure::Redirect
            | ProbeFailure::UnexpectedContent
            | ProbeFailure::Decode
            | ProbeFailure::BodyTooLarge => Some(Self::Network),
            // A 429 is part of its bucket's verdict. An unreadable secret or an unnamed error has none of these
            // causes.
            ProbeFailure::Throttled | ProbeFailure::Secret | ProbeFailure::Other => None,
        }
    }

    /// Returns the cause that a response shows; `None` if it is usable.
    pub(super) const fn of_response(observation: &Observation) -> Option<Self> {
        match observation.status {
            _ if observation.usable => None,
            401 | 403 => Some(Self::Key),
            500.. => Some(Self::Clerk),
            _ => Some(Self::Network),
        }
    }
}

/// The verdict on an instance, with its bucket and cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// The verdict of the worst bucket.
    pub verdict: Verdict,
    /// The worst bucket.
    pub bucket: Bucket,
    /// The cause of failing requests, if any.
    pub trouble: Option<Trouble>,
}

impl Condition {
    /// Evaluates an instance at `now`.
    #[must_use]
    pub fn of(instance: &InstanceSnapshot, now: Moment) -> Self {
        let InstanceSnapshot { key_valid, trouble, low_threshold, .. } = *instance;
        Self::judge(
            instance.buckets.iter().map(|bucket| Cow::Borrowed(&**bucket)),
            low_threshold,
            key_valid,
            trouble,
            now,
        )
    }

    /// Evaluates an instance from the parts of its snapshot.
    pub(super) fn judge<'a>(
        buckets: impl Iterator<Item = Cow<'a, BucketSnapshot>>,
        low_threshold: f64,
        key_valid: Option<bool>,
        trouble: Option<Trouble>,
        now: Moment,
    ) -> Self {
        let limited = buckets.filter(|bucket| bucket.bucket.is_limited());
        let judged = limited.map(|bucket| (verdict(&bucket, low_threshold, now), bucket.bucket));
        // The first of equally bad ones. Unknown use only matters for the instance's own bucket.
        let worst = judged
            .filter(|(verdict, bucket)| *bucket == Bucket::Instance || verdict.is_bad())
            .fold((Verdict::Fine, Bucket::Instance), |worst, next| if next.0 > worst.0 { next } else { worst });
        let (verdict, bucket) = worst;
        let throttled = matches!(verdict, Verdict::Throttled | Verdict::Blocked).then_some(Trouble::Throttled);
        let key = (key_valid == Some(false)).then_some(Trouble::Key);
        Self { verdict, bucket, trouble: key.or(trouble).or(throttled) }
    }

    /// Returns the verdict, and the cause if requests fail, as one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let bucket = if self.bucket == Bucket::Instance { String::new() } else { format!(" ({})", self.bucket) };
        match (self.trouble, self.verdict) {
            (None | Some(Trouble::Throttled), verdict) => format!("{}{bucket}", verdict.as_str()),
            (Some(trouble), verdict) if verdict.is_bad() => {
                format!("{}, {}{bucket}", trouble.as_str(), verdict.as_str())
            }
            (Some(trouble), _) => trouble.as_str().to_owned(),
        }
    }
}

fn verdict(bucket: &BucketSnapshot, low_threshold: f64, now: Moment) -> Verdict {
    let is_present = |at: Option<Moment>| at.is_some_and(|at| now.since(at) < PRESENT);
    if bucket.blocked_until.is_some() {
        return Verdict::Blocked;
    }
    if is_present(bucket.refused_at) {
        return Verdict::Throttled;
    }
    let is_low = bucket.remaining_ratio().is_some_and(|left| left < low_threshold);
    if is_low || is_present(bucket.low_at) {
        return Verdict::Low;
    }
    // Traces do not tell the remaining quota now, but that of the last windows.
    let is_window_known =
        bucket.last_window.is_some_and(|window| window.usage.is_some() && is_present(Some(window.ended)));
    if bucket.remaining.is_some() || is_window_known { Verdict::Fine } else { Verdict::UseUnknown }
}
