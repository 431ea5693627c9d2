//! What the ledger knows of one Clerk instance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::bucket::{BucketLedger, LimitConfig};
use super::histogram::Histogram;
use super::limits::{Bucket, Environment, Limit};
use super::snapshot::{ClosedWindow, InstanceSnapshot};
use super::{HeaderError, KeyVerdict, Moment, Observation, QuotaCode, Source};

/// Upper bounds, in seconds, of the histogram of probe durations. None is a whole number, so that their text is the
/// same in every exposition format.
pub(super) const PROBE_DURATION_BOUNDS: [f64; 9] = [0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 0.95, 2.5, 7.5];

/// What is configured for an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The alias, unique among instances.
    pub name: Arc<str>,
    /// By the key's prefix.
    pub environment: Environment,
    /// Host (and port) of the Backend API.
    pub api_host: Arc<str>,
    /// Limit of the default bucket, used until the server names one. `None` if neither configuration nor key tell.
    pub limit: Option<Limit>,
    /// Cap of users, from the configuration.
    pub users_limit: Option<u64>,
    /// A window in which a smaller share of the limit than this was left counts as low; above 0, below 1.
    pub low_threshold: f64,
    /// How long a value is shown after it was observed, unless a window is longer: three probe intervals.
    pub stale_after: Duration,
    /// Who may observe this instance in this process; their counters exist from the start.
    pub sources: Vec<Source>,
}

/// Why a probe failed. A closed set: it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeFailure {
    /// No complete answer within the probe's deadline.
    Timeout,
    /// The host name was not found.
    Dns,
    /// No connection could be made, or it broke.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// Clerk refused the key (401, 403).
    Key,
    /// Clerk answered 429.
    Throttled,
    /// Another status that is not a success.
    Status,
    /// The answer was a redirect, which is never followed.
    Redirect,
    /// A success, but not JSON: often a proxy or a login page.
    UnexpectedContent,
    /// The body was not valid.
    Decode,
    /// The body was larger than the cap.
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

    /// The value of the label `reason`.
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

/// Why a probe that was due was not made. A closed set: it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeSkip {
    /// The one before was still running.
    InFlight,
    /// Other traffic was observed lately (`when: idle`).
    Fresh,
    /// A 429 told us to wait.
    Blocked,
    /// Probes failed before: waiting longer.
    Backoff,
    /// The moment had passed already, such as after the machine slept.
    Missed,
}

impl ProbeSkip {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::InFlight, Self::Fresh, Self::Blocked, Self::Backoff, Self::Missed];

    /// The value of the label `reason`.
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

/// What the probes of an instance did.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeStats {
    /// Probes made.
    pub total: u64,
    /// Of those, failed ones, in the order of [`ProbeFailure::ALL`].
    pub failures: [u64; ProbeFailure::ALL.len()],
    /// Probes that were due and not made, in the order of [`ProbeSkip::ALL`].
    pub skipped: [u64; ProbeSkip::ALL.len()],
    /// Duration in seconds.
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

/// The ledger of one instance.
#[derive(Debug, Clone)]
pub struct InstanceLedger {
    settings: Settings,
    buckets: [BucketLedger; Bucket::ALL.len()],
    up: Option<bool>,
    key_valid: Option<bool>,
    responses: BTreeMap<(Source, u16), u64>,
    header_errors: [u64; HeaderError::ALL.len()],
    quota_exceeded: [u64; QuotaCode::ALL.len()],
    probes: ProbeStats,
    users: Option<u64>,
    users_active_30d: Option<u64>,
    clock_offset_seconds: Option<f64>,
    throttled_at: Option<Moment>,
    observed_at: [Option<Moment>; Source::ALL.len()],
}

impl InstanceLedger {
    /// An instance of which nothing is known but what is configured. All its counters stand at 0.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut responses = BTreeMap::new();
        for source in &settings.sources {
            // The two that alerts look at; others appear with their first answer.
            responses.insert((*source, 200), 0);
            responses.insert((*source, 429), 0);
        }
        Self {
            buckets: Bucket::ALL.map(|bucket| BucketLedger::new(bucket, terms(&settings, bucket))),
            settings,
            up: None,
            key_valid: None,
            responses,
            header_errors: [0; HeaderError::ALL.len()],
            quota_exceeded: [0; QuotaCode::ALL.len()],
            probes: ProbeStats::default(),
            users: None,
            users_active_30d: None,
            clock_offset_seconds: None,
            throttled_at: None,
            observed_at: [None; Source::ALL.len()],
        }
    }

    /// What is configured.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes over a new configuration of the same instance. Counters and values stay.
    pub fn reconfigure(&mut self, settings: Settings) {
        for (bucket, ledger) in Bucket::ALL.into_iter().zip(&mut self.buckets) {
            ledger.set_limit_config(terms(&settings, bucket));
        }
        for source in &settings.sources {
            self.responses.entry((*source, 200)).or_default();
            self.responses.entry((*source, 429)).or_default();
        }
        self.settings = settings;
    }

    /// Takes in what an exchange taught us. Observations may come late and in any order.
    pub fn record(&mut self, observation: &Observation) {
        let newest = self.observed_at.iter().flatten().all(|latest| *latest <= observation.at);
        let latest = &mut self.observed_at[observation.source.index()];
        *latest = (*latest).max(Some(observation.at));
        *self.responses.entry((observation.source, observation.status)).or_default() += 1;
        for (count, error) in self.header_errors.iter_mut().zip(HeaderError::ALL) {
            *count += u64::from(observation.quota.errors.contains(error));
        }
        if let Some(code) = observation.quota_code {
            self.quota_exceeded[code.index()] += 1;
        }
        if newest {
            self.up = Some(observation.usable);
            match observation.key {
                KeyVerdict::Valid => self.key_valid = Some(true),
                KeyVerdict::Invalid => self.key_valid = Some(false),
                KeyVerdict::Unknown => {}
            }
            self.clock_offset_seconds = observation.clock_offset_seconds.or(self.clock_offset_seconds);
        }
        if observation.is_throttled() {
            self.throttled_at = self.throttled_at.max(Some(observation.at));
        }
        self.buckets[observation.bucket.index()].record(observation.bucket, observation);
    }

    /// Takes in the end of a probe. `succeeded_at` is when, or why not.
    pub fn record_probe(&mut self, duration: Duration, outcome: Result<Moment, ProbeFailure>) {
        self.probes.total += 1;
        self.probes.duration_seconds.observe(duration.as_secs_f64());
        match outcome {
            Ok(at) => self.probes.last_success = self.probes.last_success.max(Some(at)),
            Err(reason) => {
                self.probes.failures[reason as usize] += 1;
                // A 429 is an answer that can be used: it says how much is left.
                if reason != ProbeFailure::Throttled {
                    self.up = Some(false);
                }
            }
        }
    }

    /// Counts probes that were due and not made.
    pub const fn record_skipped_probes(&mut self, reason: ProbeSkip, count: u64) {
        self.probes.skipped[reason as usize] += count;
    }

    /// Takes in the number of users, and of those active in the last 30 days.
    pub fn record_users(&mut self, users: Option<u64>, active_30d: Option<u64>) {
        self.users = users.or(self.users);
        self.users_active_30d = active_30d.or(self.users_active_30d);
    }

    /// When an answer to somebody other than the probes last told how much of a bucket is left.
    #[must_use]
    pub const fn sampled_by_others_at(&self, bucket: Bucket) -> Option<Moment> {
        self.buckets[bucket.index()].sampled_by_others_at()
    }

    /// End of the Retry-After that blocks a bucket at `now`, but not later than `cap` after the last 429.
    #[must_use]
    pub fn held_until(&self, bucket: Bucket, now: Moment, cap: Duration) -> Option<Moment> {
        let blocked_until = self.buckets[bucket.index()].blocked_until(now)?;
        Some(blocked_until.min(self.throttled_at?.after(cap)))
    }

    /// The windows of a bucket that were closed last, oldest first: 30 at the most.
    #[must_use]
    pub fn recent_windows(&self, bucket: Bucket) -> Vec<ClosedWindow> {
        self.buckets[bucket.index()].recent_windows().collect()
    }

    /// Closes the windows that are over.
    pub fn advance(&mut self, now: Moment) {
        for ledger in &mut self.buckets {
            ledger.advance(now);
        }
    }

    /// The numbers at `now`, with all windows closed that are over by then.
    pub fn snapshot(&mut self, now: Moment) -> InstanceSnapshot {
        self.advance(now);
        InstanceSnapshot {
            name: Arc::clone(&self.settings.name),
            environment: self.settings.environment,
            api_host: Arc::clone(&self.settings.api_host),
            up: self.up,
            key_valid: self.key_valid,
            buckets: Bucket::ALL.into_iter().map(|bucket| self.buckets[bucket.index()].snapshot(bucket, now)).collect(),
            sources: Source::ALL
                .map(|source| self.settings.sources.contains(&source) || self.observed_at[source.index()].is_some()),
            responses: self.responses.clone(),
            header_errors: self.header_errors,
            quota_exceeded: self.quota_exceeded,
            probes: self.probes.clone(),
            users: self.users,
            users_active_30d: self.users_active_30d,
            users_limit: self.settings.users_limit,
            low_threshold: self.settings.low_threshold,
            clock_offset_seconds: self.clock_offset_seconds,
            throttled_at: self.throttled_at,
        }
    }
}

/// The default bucket's limit comes from the configuration, the others' from Clerk's documentation.
fn terms(settings: &Settings, bucket: Bucket) -> LimitConfig {
    let configured = settings.limit.filter(|_| bucket == Bucket::Instance);
    LimitConfig {
        limit: configured.map(|limit| limit.requests).or_else(|| bucket.limit(settings.environment)),
        window: configured.map_or_else(|| bucket.window(), |limit| limit.window),
        low_threshold: settings.low_threshold,
        stale_after: settings.stale_after,
    }
}
