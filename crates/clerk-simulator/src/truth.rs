//! The simulator's own record of use, to compare an exporter's numbers with.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::clock::{as_epoch_seconds, system_time};
use super::keys::Instance;
use super::limits::{Environment, SimulatedBucket};
use super::meters::MeterKey;
use super::record::Record;

/// What was used since the start or the last reset. In JSON, times are seconds since the UNIX epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Truth {
    /// The simulator's time of the snapshot.
    #[serde(serialize_with = "as_epoch_seconds")]
    pub at: SystemTime,
    /// All responses under `/v1`, counted or not.
    pub requests: Requests,
    /// Whether older windows or events were dropped to bound the memory.
    pub truncated: bool,
    /// Every instance whose key was used or configured.
    pub instances: Vec<InstanceTruth>,
}

/// Number of responses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// All responses.
    pub total: u64,
    /// Responses by HTTP status.
    pub by_status: BTreeMap<u16, u64>,
}

/// The use of one instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceTruth {
    /// The configured name, else the environment and a number in the order of first use (`development-1`).
    pub name: String,
    /// The identifier that `GET /v1/instance` reports.
    pub id: String,
    /// Production or development.
    pub environment: Environment,
    /// Every budget that was used.
    pub buckets: Vec<BucketTruth>,
}

/// The use of one budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BucketTruth {
    /// The bucket.
    pub bucket: SimulatedBucket,
    /// The user, organization or `organization/user` that owns the budget; `None` for budgets of the whole instance.
    pub entity: Option<String>,
    /// Windows with at least one request, oldest first.
    pub windows: Vec<WindowTruth>,
    /// Single requests, oldest first.
    pub events: Vec<EventTruth>,
}

/// One window with at least one request.
///
/// Windows that start with their first request, sliding windows and token buckets have no boundaries that are known
/// beforehand. Their windows here lie on the grid of multiples of the window length since the UNIX epoch; use
/// [`BucketTruth::least_remaining`] for other times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowTruth {
    /// Start of the window.
    #[serde(serialize_with = "as_epoch_seconds")]
    pub start: SystemTime,
    /// First moment after the window.
    #[serde(serialize_with = "as_epoch_seconds")]
    pub end: SystemTime,
    /// Requests that an unused budget allows at once.
    pub limit: u32,
    /// Requests that were admitted.
    pub allowed: u64,
    /// Requests that got a 429.
    pub refused: u64,
    /// The lowest number of remaining requests after any request of the window; 0 if one was rejected.
    pub least_remaining: u32,
}

/// One request that was admitted or rejected.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventTruth {
    /// When the limiter processed it.
    #[serde(serialize_with = "as_epoch_seconds")]
    pub at: SystemTime,
    /// Remaining requests after it; 0 if it was rejected.
    pub remaining_after: u32,
    /// Whether it got a 429.
    pub refused: bool,
}

impl Truth {
    /// Returns the instance with this name.
    #[must_use]
    pub fn instance(&self, name: &str) -> Option<&InstanceTruth> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    pub(super) fn of(record: &Record, instances: &[Instance], requests: Requests, at: SystemTime) -> Self {
        let mut buckets: BTreeMap<(usize, SimulatedBucket, Option<&str>), BucketTruth> = BTreeMap::new();
        for window in record.windows() {
            entry(&mut buckets, &window.key).windows.push(WindowTruth {
                start: system_time(window.start),
                end: system_time(window.start + window.length),
                limit: window.limit,
                allowed: window.allowed,
                refused: window.refused,
                least_remaining: window.least_remaining,
            });
        }
        for event in record.events() {
            entry(&mut buckets, &event.key).events.push(EventTruth {
                at: system_time(event.at),
                remaining_after: event.remaining_after,
                refused: event.refused,
            });
        }
        let mut instances: Vec<_> = instances
            .iter()
            .map(|instance| InstanceTruth {
                name: instance.name.clone(),
                id: instance.id.clone(),
                environment: instance.environment,
                buckets: Vec::new(),
            })
            .collect();
        for ((instance, ..), bucket) in buckets {
            if let Some(instance) = instances.get_mut(instance) {
                instance.buckets.push(bucket);
            }
        }
        Self { at, requests, truncated: record.is_truncated(), instances }
    }

    /// Keeps only the newest `events` of each budget.
    pub(super) fn with_last_events(mut self, events: usize) -> Self {
        for bucket in self.instances.iter_mut().flat_map(|instance| &mut instance.buckets) {
            let surplus = bucket.events.len().saturating_sub(events);
            bucket.events.drain(..surplus);
        }
        self
    }
}

impl InstanceTruth {
    /// Returns the budget of the whole instance in `bucket`.
    #[must_use]
    pub fn bucket(&self, bucket: SimulatedBucket) -> Option<&BucketTruth> {
        self.buckets.iter().find(|truth| truth.bucket == bucket && truth.entity.is_none())
    }

    /// Returns the budget of `entity` in `bucket`.
    #[must_use]
    pub fn entity_bucket(&self, bucket: SimulatedBucket, entity: &str) -> Option<&BucketTruth> {
        self.buckets.iter().find(|truth| truth.bucket == bucket && truth.entity.as_deref() == Some(entity))
    }
}

impl BucketTruth {
    /// Returns the lowest number of remaining requests after any request from `from` (inclusive) to `to` (exclusive).
    ///
    /// `None` if there was no request. Only considers the recorded events.
    #[must_use]
    pub fn least_remaining(&self, from: SystemTime, to: SystemTime) -> Option<u32> {
        self.events_between(from, to).iter().map(|event| event.remaining_after).min()
    }

    /// Returns the recorded events from `from` (inclusive) to `to` (exclusive).
    #[must_use]
    pub fn events_between(&self, from: SystemTime, to: SystemTime) -> &[EventTruth] {
        let first = self.events.partition_point(|event| event.at < from);
        let end = self.events.partition_point(|event| event.at < to);
        &self.events[first..end.max(first)]
    }
}

fn entry<'a, 'k>(
    buckets: &'a mut BTreeMap<(usize, SimulatedBucket, Option<&'k str>), BucketTruth>,
    key: &'k MeterKey,
) -> &'a mut BucketTruth {
    let entity = key.entity.as_deref();
    buckets.entry((key.instance, key.bucket, entity)).or_insert_with(|| BucketTruth {
        bucket: key.bucket,
        entity: entity.map(str::to_owned),
        windows: Vec::new(),
        events: Vec::new(),
    })
}
