//! How an instance stands, in one word, and whose fault it is: the same for pages, checks and the log.

use std::borrow::Cow;
use std::time::Duration;

use super::limits::Bucket;
use super::probe_stats::ProbeFailure;
use super::snapshot::{BucketSnapshot, InstanceSnapshot};
use super::{Moment, Observation};

/// How long something counts as present after it was last seen: longer than a window, so that what comes in bursts is one
/// condition.
const PRESENT: Duration = Duration::from_secs(60);

/// How an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// More than the threshold is left.
    Fine,
    /// How much is left is not known; nothing was refused lately.
    UseUnknown,
    /// Less than the threshold is left, or was in the last minute.
    Low,
    /// Clerk refused requests in the last minute.
    Throttled,
    /// Clerk refuses requests: its `Retry-After` is in force.
    Blocked,
}

impl Verdict {
    /// In words.
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

    /// Whether callers feel it, or soon will.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Low | Self::Throttled | Self::Blocked)
    }
}

/// Why requests fail: is it us or Clerk?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trouble {
    /// Clerk refuses the key.
    Key,
    /// Clerk cannot be reached from here, or something in between answers in its place.
    Network,
    /// Clerk, or its edge, fails.
    Clerk,
    /// Requests are refused because the limit is used up.
    Throttled,
}

impl Trouble {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key refused",
            Self::Network => "network",
            Self::Clerk => "Clerk is failing",
            Self::Throttled => "throttled",
        }
    }

    /// The value of the label `trouble`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Network => "network",
            Self::Clerk => "clerk",
            Self::Throttled => "throttled",
        }
    }

    /// What a failed probe tells.
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
            // 429 stands with its bucket; a secret that cannot be read here, and what has no name, is neither's fault.
            ProbeFailure::Throttled | ProbeFailure::Secret | ProbeFailure::Other => None,
        }
    }

    /// What a response tells; none if it can be used.
    pub(super) const fn of_response(observation: &Observation) -> Option<Self> {
        match observation.status {
            _ if observation.usable => None,
            401 | 403 => Some(Self::Key),
            500.. => Some(Self::Clerk),
            _ => Some(Self::Network),
        }
    }
}

/// How an instance stands, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// The worst of its buckets.
    pub verdict: Verdict,
    /// Which bucket that is.
    pub bucket: Bucket,
    /// Why requests fail, if they do.
    pub trouble: Option<Trouble>,
}

impl Condition {
    /// How an instance stands at `now`.
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

    /// The same from its parts.
    pub(super) fn judge<'a>(
        buckets: impl Iterator<Item = Cow<'a, BucketSnapshot>>,
        low_threshold: f64,
        key_valid: Option<bool>,
        trouble: Option<Trouble>,
        now: Moment,
    ) -> Self {
        let limited = buckets.filter(|bucket| bucket.bucket.is_limited());
        let judged = limited.map(|bucket| (verdict(&bucket, low_threshold, now), bucket.bucket));
        // Of equally bad ones the first. Whether the use is known is asked of the instance's own bucket alone.
        let worst = judged
            .filter(|(verdict, bucket)| *bucket == Bucket::Instance || verdict.is_bad())
            .fold((Verdict::Fine, Bucket::Instance), |worst, next| if next.0 > worst.0 { next } else { worst });
        let (verdict, bucket) = worst;
        let throttled = matches!(verdict, Verdict::Throttled | Verdict::Blocked).then_some(Trouble::Throttled);
        let key = (key_valid == Some(false)).then_some(Trouble::Key);
        Self { verdict, bucket, trouble: key.or(trouble).or(throttled) }
    }

    /// One line: how it stands, and if requests fail, why.
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
    if bucket.remaining.is_some() { Verdict::Fine } else { Verdict::UseUnknown }
}
