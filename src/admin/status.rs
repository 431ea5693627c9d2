//! The state of all instances as JSON: `/api/v1/status`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::{Admin, OverrideStatus, STANDBY};
use crate::metrics::build;
use clerk_quota::condition::{Condition, Trouble};
use clerk_quota::metered::{MeteredOperation, MeteredSnapshot};
use clerk_quota::snapshot::{BucketSnapshot, InstanceSnapshot};
use clerk_quota::{Bucket, Moment, Source};

/// The state of all instances. Unknown values are null; times are UNIX seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Version of the exporter.
    pub version: &'static str,
    /// The current time.
    pub now_timestamp_seconds: f64,
    /// The instances, by name.
    pub instances: Vec<InstanceStatus>,
}

/// The state of one instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceStatus {
    /// The configured alias.
    pub name: Arc<str>,
    /// `production`, `development` or `unknown`.
    pub environment: &'static str,
    /// Host of the Backend API.
    pub api_host: Arc<str>,
    /// The condition in one line: `fine`, `low`, `throttled`, `blocked`, `use unknown`, or why requests fail. `standby` while
    /// another process observes the instance; then nothing else is known here.
    pub condition: String,
    /// Why requests fail, if they do: `key`, `network`, `clerk` or `throttled`.
    pub trouble: Option<&'static str>,
    /// Whether the last request got a usable response.
    pub up: Option<bool>,
    /// Whether Clerk accepts the key.
    pub key_valid: Option<bool>,
    /// Time of the last 429.
    pub last_throttled_timestamp_seconds: Option<f64>,
    /// Time of the last successful probe.
    pub last_probe_success_timestamp_seconds: Option<f64>,
    /// Clerk's clock minus the local clock.
    pub clock_offset_seconds: Option<f64>,
    /// Number of users.
    pub users: Option<u64>,
    /// Number of users active in the last 30 days.
    pub users_active_30d: Option<u64>,
    /// Configured maximum number of users.
    pub users_limit: Option<u64>,
    /// The operations that Clerk bills, in the current billing month; null if they are not kept.
    pub metered_month: Option<MeteredMonth>,
    /// The overrides of callers that are in force; empty without a gateway.
    pub overrides: Vec<OverrideStatus>,
    /// The budgets.
    pub buckets: Vec<BucketStatus>,
}

/// The operations of a billing month that Clerk may have billed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeteredMonth {
    /// From when they are counted: the start of the month, or later.
    pub start_timestamp_seconds: f64,
    /// The end of the month.
    pub end_timestamp_seconds: f64,
    /// Each kind of operation.
    pub operations: Vec<MeteredStatus>,
}

/// One kind of operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeteredStatus {
    /// `api_key_verify`, `api_key_create`, `m2m_verify` or `m2m_create`.
    pub operation: &'static str,
    /// How many there were at most.
    pub used: u64,
    /// How many of a month cost nothing.
    pub free: u64,
}

/// The state of one bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BucketStatus {
    /// Its name.
    pub bucket: &'static str,
    /// Source of the numbers: `headers`, `gateway`, `client`, `telemetry`, `mixed`, `sampled`, `probe` or
    /// `configured`. For the last three, the usage is unknown.
    pub basis: Option<&'static str>,
    /// Requests per window.
    pub limit: Option<u64>,
    /// Remaining requests.
    pub remaining: Option<u64>,
    /// When the window resets.
    pub reset_timestamp_seconds: Option<f64>,
    /// Length of the window.
    pub window_seconds: f64,
    /// Time of the observation.
    pub sample_timestamp_seconds: Option<f64>,
    /// End of the current Retry-After.
    pub blocked_until_timestamp_seconds: Option<f64>,
    /// Seconds until the quota is exhausted, if that is before the reset.
    pub seconds_to_exhaustion: Option<f64>,
    /// Highest used share of the limit in the last 60 s.
    pub usage_peak_ratio: Option<f64>,
    /// The last closed window.
    pub last_window: Option<LastWindow>,
    /// Number of closed windows.
    pub windows: u64,
    /// Number of closed windows that were low.
    pub low_windows: u64,
    /// Number of closed windows that were exhausted.
    pub exhausted_windows: u64,
    /// Number of 429 responses.
    pub throttled_responses: u64,
}

/// A closed window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastWindow {
    /// When it ended.
    pub end_timestamp_seconds: f64,
    /// Its highest used share of the limit.
    pub usage_ratio: Option<f64>,
    /// Whether less than the threshold was left.
    pub low: bool,
    /// Whether nothing was left or a 429 arrived.
    pub exhausted: bool,
}

impl Status {
    /// Returns the state at `now`; `step_seconds` is added to all times.
    #[must_use]
    pub fn new(instances: &[InstanceSnapshot], now: Moment, step_seconds: f64) -> Self {
        Self {
            version: build::VERSION,
            now_timestamp_seconds: now.unix_seconds() + step_seconds,
            instances: instances.iter().map(|instance| InstanceStatus::new(instance, now, step_seconds)).collect(),
        }
    }

    /// Adds overrides to their instances.
    #[must_use]
    pub fn with_overrides(mut self, overrides: impl IntoIterator<Item = OverrideStatus>) -> Self {
        for it in overrides {
            if let Some(instance) = self.instances.iter_mut().find(|instance| instance.name == it.instance) {
                instance.overrides.push(it);
            }
        }
        self
    }
}

impl InstanceStatus {
    fn new(snapshot: &InstanceSnapshot, now: Moment, step_seconds: f64) -> Self {
        let condition = Condition::of(snapshot, now);
        let time = |moment: Option<Moment>| moment.map(|moment| moment.unix_seconds() + step_seconds);
        let limited = snapshot.buckets.iter().filter(|bucket| bucket.bucket != Bucket::Unlimited);
        Self {
            name: Arc::clone(&snapshot.name),
            environment: snapshot.environment.as_str(),
            api_host: Arc::clone(&snapshot.api_host),
            condition: if snapshot.is_observed() { condition.describe() } else { STANDBY.to_owned() },
            trouble: condition.trouble.map(Trouble::label),
            up: snapshot.up,
            key_valid: snapshot.key_valid,
            last_throttled_timestamp_seconds: time(snapshot.throttled_at),
            last_probe_success_timestamp_seconds: time(snapshot.probes.last_success),
            clock_offset_seconds: snapshot.clock_offset_seconds,
            users: snapshot.users,
            users_active_30d: snapshot.users_active_30d,
            users_limit: snapshot.users_limit,
            metered_month: MeteredMonth::of(&snapshot.metered),
            overrides: Vec::new(),
            buckets: limited.map(|bucket| BucketStatus::new(bucket, time)).collect(),
        }
    }
}

impl MeteredMonth {
    fn of(MeteredSnapshot { plan, month, .. }: &MeteredSnapshot) -> Option<Self> {
        let month = month.as_ref()?;
        let operations = MeteredOperation::ALL.into_iter().map(|operation| MeteredStatus {
            operation: operation.as_str(),
            used: month.operations[operation.index()],
            free: plan.free[operation.index()],
        });
        Some(Self {
            start_timestamp_seconds: month.since.as_secs_f64(),
            end_timestamp_seconds: month.month.end.as_secs_f64(),
            operations: operations.collect(),
        })
    }
}

impl BucketStatus {
    fn new(snapshot: &BucketSnapshot, time: impl Fn(Option<Moment>) -> Option<f64>) -> Self {
        Self {
            bucket: snapshot.bucket.as_str(),
            basis: snapshot.basis.map(|basis| basis.as_str()),
            limit: snapshot.limit,
            remaining: snapshot.remaining,
            reset_timestamp_seconds: time(snapshot.reset_at),
            window_seconds: snapshot.window.as_secs_f64(),
            sample_timestamp_seconds: time(snapshot.sampled_at),
            blocked_until_timestamp_seconds: time(snapshot.blocked_until),
            seconds_to_exhaustion: snapshot.to_exhaustion.map(|wait| wait.as_secs_f64()),
            usage_peak_ratio: snapshot.usage_peak,
            last_window: snapshot.last_window.map(|window| LastWindow {
                end_timestamp_seconds: time(Some(window.ended)).unwrap_or_default(),
                usage_ratio: window.usage,
                low: window.low,
                exhausted: window.exhausted,
            }),
            windows: snapshot.windows,
            low_windows: snapshot.low_windows,
            exhausted_windows: snapshot.exhausted_windows,
            throttled_responses: Source::ALL.into_iter().map(|source| snapshot.throttled[source.index()]).sum(),
        }
    }
}

pub(super) async fn json(State(site): State<Arc<Admin>>) -> Json<Status> {
    let now = site.clock.now();
    let status = Status::new(&site.ledger.snapshot(now), now, site.clock.step_seconds());
    let overrides = site.sources.gateway.as_ref().map(|gateway| gateway.overrides()).unwrap_or_default();
    Json(status.with_overrides(overrides.into_iter().map(OverrideStatus::from)))
}
