//! The gateway's counters as plain data, for metrics and pages.

use std::sync::Arc;

use super::access_log::AccessLogStats;
use super::credential_shape::{CredentialShape, UnknownCredentialCount};
use super::decision::{Decision, Saving};
use crate::gateway::config::policy::RoutePolicies;
use crate::gateway::overrides::ActiveOverride;
use crate::otlp::SpanCounts;
use clerk_client::cache::{self, TierStats};
use clerk_client::limiter::{CallerUsage, Priority, ShedReason};
use clerk_client::redis::RedisStats;
use clerk_client::{outbound, webhook};
use clerk_quota::{Histogram, MethodLabel};

/// The label `clerk_instance` of requests whose key belongs to no configured instance.
pub const UNKNOWN_KEYS: &str = "other";

/// The statistics of all instances, and of requests with unknown keys.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayStats {
    /// By alias, in configuration order; the last entry is [`crate::gateway::accounting::stats::UNKNOWN_KEYS`].
    pub instances: Vec<(Arc<str>, InstanceStats)>,
    /// Requests whose caller became `other` because the limit on names was reached or the name was invalid.
    pub dropped_callers: u64,
    /// Requests with an unknown credential or none, by shape.
    pub unknown_credentials: [UnknownCredentialCount; CredentialShape::ALL.len()],
    /// Sums over the caches of all instances; `None` if no policy uses a cache.
    pub cache: Option<CacheTotals>,
    /// The Redis client, if gateways share a Redis.
    pub redis: Option<RedisStats>,
    /// The webhook endpoint, if configured.
    pub webhooks: Option<webhook::WebhookStats>,
    /// Lines of the access log, if there is one.
    pub access_log: Option<AccessLogStats>,
    /// The overrides that are in force, by instance and caller.
    pub overrides: Vec<ActiveOverride>,
    /// What became of the spans, if the gateway traces.
    pub spans: Option<SpanCounts>,
}

/// Sums over all caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheTotals {
    /// The tier in this process.
    pub memory: TierStats,
    /// The tier in Redis, if configured.
    pub redis: Option<TierStats>,
    /// Responses in memory.
    pub entries: u64,
    /// Their size in bytes, including keys and headers.
    pub bytes: u64,
    /// Invalidations from this process and from others.
    pub invalidations: u64,
}

impl CacheTotals {
    pub(in crate::gateway) fn add(self, cache: &cache::CacheStats, has_redis: bool) -> Self {
        let sum = |a: TierStats, b: TierStats| TierStats {
            hits: a.hits + b.hits,
            misses: a.misses + b.misses,
            errors: a.errors + b.errors,
            stored: a.stored + b.stored,
        };
        Self {
            memory: sum(self.memory, cache.memory),
            redis: has_redis.then(|| sum(self.redis.unwrap_or_default(), cache.redis)),
            entries: self.entries + cache.entries,
            bytes: self.bytes + cache.bytes,
            // A webhook invalidates the caches of all instances: take the highest count instead of the sum.
            invalidations: self.invalidations.max(cache.invalidations + cache.heard),
        }
    }
}

/// Shed requests by caller priority and reason, in the order of [`Priority::ALL`] and [`ShedReason::ALL`].
pub type ShedCounts = [[u64; ShedReason::ALL.len()]; Priority::ALL.len()];

/// The statistics of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceStats {
    /// Completed requests, sorted.
    pub requests: Vec<RequestCount>,
    /// By route, sorted.
    pub durations: Vec<RouteDurations>,
    /// Outcomes, in the order of [`Decision::ALL`].
    pub decisions: [u64; Decision::ALL.len()],
    /// Shed requests.
    pub shed: ShedCounts,
    /// Outcomes if the policies in shadow mode were on, in the order of [`Decision::ALL`].
    pub shadowed: [u64; Decision::ALL.len()],
    /// Upstream requests saved, in the order of [`Saving::ALL`].
    pub saved: [u64; Saving::ALL.len()],
    /// Requests counted as route and caller `other` because the series limit was reached.
    pub dropped: u64,
    /// Attempts, retries and the queue, including probes and the client library; `None` for unknown keys that are
    /// rejected.
    pub outbound: Option<outbound::RequestStats>,
    /// Policies of routes without their own; `None` for unknown keys that are rejected.
    pub policies: Option<RoutePolicies>,
    /// Callers with a share or an override, and what they use.
    pub callers: Vec<(Arc<str>, CallerUsage)>,
}

/// Number of requests with the same labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestCount {
    /// A configured name, or the name of an SDK.
    pub caller: Arc<str>,
    /// The route template.
    pub route: &'static str,
    /// The method.
    pub method: MethodLabel,
    /// Response status; [`crate::gateway::CLIENT_GONE`] if the client disconnected early.
    pub code: u16,
    /// Number of requests.
    pub count: u64,
}

/// Durations of the requests of one route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteDurations {
    /// The route template.
    pub route: &'static str,
    /// Seconds from the request head to the end of the response.
    pub request: Histogram,
    /// Seconds from the start of the last attempt to the head of Clerk's response.
    pub upstream: Histogram,
}
