//! The ledger's numbers at one moment, as plain data for metrics, pages and checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::condition::Trouble;
use super::histogram::Histogram;
use super::limits::{Bucket, Environment};
use super::metered::MeteredSnapshot;
use super::probe_stats::ProbeStats;
use super::spending::SpendKey;
use super::{HeaderError, Moment, QuotaCode, Source};

/// Where the numbers of a bucket come from. A closed set, because it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Basis {
    /// Clerk reports them in response headers.
    Headers,
    /// Clerk reports none: the limit less what the gateway sent.
    Gateway,
    /// The same for what the client library sent.
    Client,
    /// The same for what applications report in traces.
    Telemetry,
    /// The same for what several of them sent.
    Mixed,
    /// Applications report a sample of their requests, so the use is not known.
    Sampled,
    /// Only probes or a part of the requests are seen, so the use is not known.
    Probe,
    /// No recent response: only the limit is known, from the configuration or Clerk's documentation.
    Configured,
}

impl Basis {
    /// Returns the value of the label `basis`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Headers => "headers",
            Self::Gateway => "gateway",
            Self::Client => "client",
            Self::Telemetry => "telemetry",
            Self::Mixed => "mixed",
            Self::Sampled => "sampled",
            Self::Probe => "probe",
            Self::Configured => "configured",
        }
    }

    /// Returns whether the use of the limit is known, from headers or a count.
    #[must_use]
    pub const fn knows_use(self) -> bool {
        !matches!(self, Self::Sampled | Self::Probe | Self::Configured)
    }

    /// Returns the basis in words, for pages and messages.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Headers => "Clerk's headers",
            Self::Gateway => "counted by the gateway",
            Self::Client => "counted by the client library",
            Self::Telemetry => "counted from the applications' traces",
            Self::Mixed => "counted from several sources",
            Self::Sampled => "use unknown: the applications' traces are a sample",
            Self::Probe => "use unknown: not all requests are observed here",
            Self::Configured => "use unknown: no recent observations",
        }
    }
}

/// A window that is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClosedWindow {
    /// Time of the first and the last observation in it.
    pub seen: (Moment, Moment),
    /// Highest use, as a ratio; `None` without a known limit or use.
    pub usage: Option<f64>,
    /// Whether less than the threshold was left.
    pub low: bool,
    /// Whether nothing was left or a 429 arrived.
    pub exhausted: bool,
    /// When the window ended.
    pub ended: Moment,
}

/// The numbers of one bucket of one instance. Unknown values are `None`, never 0.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketSnapshot {
    /// The bucket.
    pub bucket: Bucket,
    /// Requests per window.
    pub limit: Option<u64>,
    /// Remaining requests; 0 while a 429 blocks.
    pub remaining: Option<u64>,
    /// When the window resets, as reported by the server.
    pub reset_at: Option<Moment>,
    /// Length of the window.
    pub window: Duration,
    /// Where the numbers come from.
    pub basis: Option<Basis>,
    /// When the newest observation was made.
    pub sampled_at: Option<Moment>,
    /// Requests of the last closed window that Clerk counted but no counted source sent: a lower bound of other
    /// clients' use.
    pub unseen: Option<u64>,
    /// Highest use in the last 60 s, as a ratio.
    pub usage_peak: Option<f64>,
    /// When a 429 last arrived.
    pub refused_at: Option<Moment>,
    /// When less than the threshold was last known to be left: the end of the last low window.
    pub low_at: Option<Moment>,
    /// End of the `Retry-After` in force.
    pub blocked_until: Option<Moment>,
    /// Time until nothing is left, if that is before the window ends.
    pub to_exhaustion: Option<Duration>,
    /// Closed windows with at least one observation.
    pub windows: u64,
    /// Closed windows in which less than the threshold was left.
    pub low_windows: u64,
    /// Closed windows with nothing left or a 429.
    pub exhausted_windows: u64,
    /// The last closed window with at least one observation.
    pub last_window: Option<ClosedWindow>,
    /// Closed windows by their highest use, as a ratio; `None` for buckets that were never used.
    pub window_usage: Option<Histogram>,
    /// 429 responses, by [`Source::index`].
    pub throttled: [u64; Source::ALL.len()],
}

impl BucketSnapshot {
    /// Returns whether nothing was observed yet.
    pub(super) fn is_unused(&self) -> bool {
        self.sampled_at.is_none() && self.windows == 0 && self.throttled.iter().all(|count| *count == 0)
    }

    /// Returns the remaining share of the limit.
    #[must_use]
    pub fn remaining_ratio(&self) -> Option<f64> {
        match (self.remaining, self.limit) {
            (Some(remaining), Some(limit)) if limit > 0 => Some(remaining as f64 / limit as f64),
            (Some(0), _) => Some(0.0),
            _ => None,
        }
    }
}

/// The numbers of one Clerk instance.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceSnapshot {
    /// The configured alias.
    pub name: Arc<str>,
    /// The kind of instance, from the key's prefix.
    pub environment: Environment,
    /// Host (and port) of the Backend API.
    pub api_host: Arc<str>,
    /// Whether another process probes the instance, and this one does not.
    pub is_standby: bool,
    /// Whether the last response was usable; `None` before the first.
    pub up: Option<bool>,
    /// Whether Clerk accepts the key; `None` until known.
    pub key_valid: Option<bool>,
    /// All documented buckets in the catalogue's order, then those of single routes. Instances share unused ones.
    pub buckets: Vec<Arc<BucketSnapshot>>,
    /// Sources that may observe the instance, by [`Source::index`].
    pub sources: [bool; Source::ALL.len()],
    /// Requests that Clerk may have counted, by sender, sorted.
    pub spent: Vec<(SpendKey, u64)>,
    /// Requests in `spent` that count as [`CallerId::OTHER`](crate::CallerId::OTHER) because the series limit was
    /// reached.
    pub spent_folded: u64,
    /// Operations that Clerk bills.
    pub metered: MeteredSnapshot,
    /// Responses by source and status.
    pub responses: BTreeMap<(Source, u16), u64>,
    /// Malformed quota headers, in the order of [`HeaderError::ALL`].
    pub header_errors: [u64; HeaderError::ALL.len()],
    /// 403 responses with a quota code, by [`QuotaCode::index`].
    pub quota_exceeded: [u64; QuotaCode::ALL.len()],
    /// Counts of the probes.
    pub probes: ProbeStats,
    /// Users of the instance, if they are counted.
    pub users: Option<u64>,
    /// Users active in the last 30 days, if they are counted.
    pub users_active_30d: Option<u64>,
    /// Configured maximum number of users.
    pub users_limit: Option<u64>,
    /// Share of a limit below which the remaining quota is low.
    pub low_threshold: f64,
    /// The cause of the last failure if no request was served since, except rate limiting.
    pub trouble: Option<Trouble>,
    /// Clerk's clock minus the local clock, in seconds.
    pub clock_offset_seconds: Option<f64>,
    /// When a 429 last arrived, on any bucket.
    pub throttled_at: Option<Moment>,
}

impl InstanceSnapshot {
    /// Returns whether this process observes the instance: not while another one probes it and nothing else is seen here.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        !self.is_standby || Source::ALL.into_iter().any(|source| source != Source::Probe && self.has_source(source))
    }

    /// Returns whether this process probes the instance or counts its users.
    #[must_use]
    pub const fn is_probed(&self) -> bool {
        !self.is_standby && self.has_source(Source::Probe)
    }

    /// Returns whether this source may observe the instance, so that its counters are shown.
    #[must_use]
    pub const fn has_source(&self, source: Source) -> bool {
        self.sources[source.index()]
    }

    /// Returns the numbers of one bucket.
    #[must_use]
    pub fn bucket(&self, bucket: Bucket) -> Option<&BucketSnapshot> {
        self.buckets.iter().find(|snapshot| snapshot.bucket == bucket).map(|snapshot| &**snapshot)
    }
}
