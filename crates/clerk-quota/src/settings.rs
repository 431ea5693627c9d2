//! What is configured for an instance.

use std::sync::Arc;
use std::time::Duration;

use super::limits::{Environment, Limit};
use super::{Bucket, Source};
use crate::budget::LimitConfig;

/// What is configured for an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The alias, unique among instances.
    pub name: Arc<str>,
    /// By the key's prefix.
    pub environment: Environment,
    /// Host (and port) of the Backend API.
    pub api_host: Arc<str>,
    /// Limit of the default bucket, used until the server names one. `None`: Clerk's documented one, where the environment
    /// is known.
    pub limit: Option<Limit>,
    /// Cap of users, from the configuration.
    pub users_limit: Option<u64>,
    /// A window in which a smaller share of the limit than this was left counts as low; above 0, below 1.
    pub low_threshold: f64,
    /// How long a value is shown after it was observed, unless a window is longer: three probe intervals.
    pub stale_after: Duration,
    /// Who may observe this instance in this process; their counters exist from the start.
    pub sources: Vec<Source>,
    /// How much of what the instance's applications send is counted here.
    pub coverage: Coverage,
}

/// How much of what an instance's applications send is counted in this process, beside probes. It decides whether a count
/// may be shown as what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Coverage {
    /// All of it: no other process sends for the same applications.
    Sole,
    /// A part, and a log that all processes share tells the rest ([`FleetUsage`](crate::fleet::FleetUsage)).
    Fleet,
    /// A part, or it is not known: a count tells nothing of what is left.
    #[default]
    Part,
}

impl Settings {
    /// How a bucket is judged: the default bucket's limit comes from the configuration, the others' from Clerk's
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
