//! The configuration of an instance.

use std::sync::Arc;
use std::time::Duration;

use super::limits::{Environment, Limit};
use super::{Bucket, Source};
use crate::budget::LimitConfig;

/// The configuration of one Clerk instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The alias, unique among instances.
    pub name: Arc<str>,
    /// The kind of instance, from the key's prefix.
    pub environment: Environment,
    /// Host (and port) of the Backend API.
    pub api_host: Arc<str>,
    /// Limit of the default bucket until the server reports one. `None`: Clerk's documented limit, if the environment
    /// is known.
    pub limit: Option<Limit>,
    /// Configured maximum number of users.
    pub users_limit: Option<u64>,
    /// A window that ends with a smaller share of the limit than this is low; between 0 and 1, exclusive.
    pub low_threshold: f64,
    /// How long a value is shown after its observation, unless a window is longer: three probe intervals.
    pub stale_after: Duration,
    /// Sources in this process that may observe the instance; their counters exist from the start.
    pub sources: Vec<Source>,
    /// How much of what the instance's applications send is counted here.
    pub coverage: Coverage,
    /// How long windows wait for requests that others report ([`InstanceLedger::report`]); `None` if there are none.
    ///
    /// [`InstanceLedger::report`]: crate::InstanceLedger::report
    pub lateness: Option<Duration>,
}

/// How much of what an instance's applications send is counted in this process, besides probes.
///
/// It decides whether remaining quota can be derived from the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Coverage {
    /// All of it: no other process sends for the same applications.
    Sole,
    /// A part, and a shared log provides the rest ([`FleetUsage`](crate::fleet::FleetUsage)).
    Fleet,
    /// A part, or it is not known: the count says nothing about the remaining quota.
    #[default]
    Part,
}

impl Settings {
    /// Returns the limit of a bucket: the default bucket's from the configuration, the others' from Clerk's
    /// documentation.
    pub(super) fn limit_config(&self, bucket: Bucket) -> LimitConfig {
        let configured = self.limit.filter(|_| bucket == Bucket::Instance);
        LimitConfig {
            limit: configured.map(|limit| limit.requests).or_else(|| bucket.limit(self.environment)),
            is_documented: configured.is_none_or(|limit| {
                (Some(limit.requests), limit.window) == (bucket.limit(self.environment), bucket.window())
            }),
            window: configured.map_or_else(|| bucket.window(), |limit| limit.window),
            low_threshold: self.low_threshold,
            stale_after: self.stale_after,
        }
    }
}
