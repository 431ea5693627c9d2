//! The ledger's numbers at one moment, as plain data: what metrics, pages and checks are made from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::condition::Trouble;
use super::histogram::Histogram;
use super::limits::{Bucket, Environment};
use super::probe_stats::ProbeStats;
use super::spending::SpendKey;
use super::{HeaderError, Moment, QuotaCode, Source};

/// Where the numbers of a bucket come from. A closed set: it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Basis {
    /// Clerk names them.
    Headers,
    /// Clerk names none: what the gateway saw is taken off the limit.
    Gateway,
    /// The same of what the client library sent.
    Client,
    /// The same of what several of them saw.
    Mixed,
    /// Only probes are seen, or a part of the requests: the use is not known.
    Probe,
    /// Nothing was seen lately: only the limit is known, from the configuration or Clerk's documentation.
    Configured,
}

impl Basis {
    /// The value of the label `basis`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Headers => "headers",
            Self::Gateway => "gateway",
            Self::Client => "client",
            Self::Mixed => "mixed",
            Self::Probe => "probe",
            Self::Configured => "configured",
        }
    }

    /// Whether the use of the limit is known, by Clerk's word or by a count.
    #[must_use]
    pub const fn knows_use(self) -> bool {
        !matches!(self, Self::Probe | Self::Configured)
    }

    /// In words, for pages and messages.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Headers => "Clerk's headers",
            Self::Gateway => "counted by the gateway",
            Self::Client => "counted by the client library",
            Self::Mixed => "counted by gateway and client library",
            Self::Probe => "use unknown: not all requests are seen here",
            Self::Configured => "use unknown: nothing was seen lately",
        }
    }
}

/// A window that is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClosedWindow {
    /// Time of the first and of the last observation in it.
    pub seen: (Moment, Moment),
    /// Its highest use, as a ratio; unknown where no limit is.
    pub usage: Option<f64>,
    /// Whether less than the threshold was left.
    pub low: bool,
    /// Whether nothing was left, or a 429 came.
    pub exhausted: bool,
}

/// One bucket of one instance. Unknown is `None`, never 0.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketSnapshot {
    /// Which bucket.
    pub bucket: Bucket,
    /// Requests per window.
    pub limit: Option<u64>,
    /// Requests left; 0 while a 429 blocks.
    pub remaining: Option<u64>,
    /// When the window resets, by the server's word.
    pub reset_at: Option<Moment>,
    /// Length of the window.
    pub window: Duration,
    /// Where these numbers come from.
    pub basis: Option<Basis>,
    /// When the newest observation was made.
    pub sampled_at: Option<Moment>,
    /// Requests of the last closed window that the server's headers or its refusals tell of, and that were sent by none of
    /// those who are counted: at least so many are others'.
    pub unseen: Option<u64>,
    /// Highest use in the last 60 s, as a ratio.
    pub usage_peak: Option<f64>,
    /// When a 429 last came.
    pub refused_at: Option<Moment>,
    /// When less than the threshold was last known to be left: the end of the last low window.
    pub low_at: Option<Moment>,
    /// End of the Retry-After in force.
    pub blocked_until: Option<Moment>,
    /// Time until nothing is left, if that is before the window ends.
    pub to_exhaustion: Option<Duration>,
    /// Windows closed with at least one observation.
    pub windows: u64,
    /// Of those, windows in which less than the threshold was left.
    pub low_windows: u64,
    /// Of those, windows with nothing left or a 429.
    pub exhausted_windows: u64,
    /// Closed windows by their highest use, as a ratio; absent for buckets that were never used.
    pub window_usage: Option<Histogram>,
    /// 429 answers, by [`Source::index`].
    pub throttled: [u64; Source::ALL.len()],
}

impl BucketSnapshot {
    /// Whether nothing was ever seen of it.
    pub(super) fn is_unused(&self) -> bool {
        self.sampled_at.is_none() && self.windows == 0 && self.throttled.iter().all(|count| *count == 0)
    }

    /// Share of the limit that is left.
    #[must_use]
    pub fn remaining_ratio(&self) -> Option<f64> {
        match (self.remaining, self.limit) {
            (Some(remaining), Some(limit)) if limit > 0 => Some(remaining as f64 / limit as f64),
            (Some(0), _) => Some(0.0),
            _ => None,
        }
    }
}

/// One Clerk instance.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceSnapshot {
    /// The configured alias.
    pub name: Arc<str>,
    /// By the key's prefix.
    pub environment: Environment,
    /// Host (and port) of the Backend API.
    pub api_host: Arc<str>,
    /// Whether the last exchange got a usable answer; `None` before the first.
    pub up: Option<bool>,
    /// Whether Clerk accepts the key; `None` until known.
    pub key_valid: Option<bool>,
    /// All buckets with a budget, in the catalogue's order, and the unlimited one. Instances share those that were never used.
    pub buckets: Vec<Arc<BucketSnapshot>>,
    /// Who may observe the instance, by [`Source::index`].
    pub sources: [bool; Source::ALL.len()],
    /// Requests that Clerk may have counted, by who sent them, sorted.
    pub spent: Vec<(SpendKey, u64)>,
    /// Of those, requests that are counted as of another caller and route, for want of a place.
    pub spent_folded: u64,
    /// Answers by source and status.
    pub responses: BTreeMap<(Source, u16), u64>,
    /// Malformed quota headers, in the order of [`HeaderError::ALL`].
    pub header_errors: [u64; HeaderError::ALL.len()],
    /// 403 answers with a quota code, by [`QuotaCode::index`].
    pub quota_exceeded: [u64; QuotaCode::ALL.len()],
    /// What the probes did.
    pub probes: ProbeStats,
    /// Users of the instance, when they are counted.
    pub users: Option<u64>,
    /// Users active in the last 30 days, when they are counted.
    pub users_active_30d: Option<u64>,
    /// Configured cap of users.
    pub users_limit: Option<u64>,
    /// Share of a limit below which what is left is low.
    pub low_threshold: f64,
    /// Why requests fail, by the last one that did, if none was served since; not that they are refused for the limit.
    pub trouble: Option<Trouble>,
    /// Clerk's clock minus ours, in seconds.
    pub clock_offset_seconds: Option<f64>,
    /// When a 429 was last seen, on any bucket.
    pub throttled_at: Option<Moment>,
}

impl InstanceSnapshot {
    /// Whether this source may observe the instance: its counters are shown.
    #[must_use]
    pub const fn has_source(&self, source: Source) -> bool {
        self.sources[source.index()]
    }

    /// The numbers of one bucket.
    #[must_use]
    pub fn bucket(&self, bucket: Bucket) -> Option<&BucketSnapshot> {
        self.buckets.iter().find(|snapshot| snapshot.bucket == bucket).map(|snapshot| &**snapshot)
    }
}
