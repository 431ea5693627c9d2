//! What the gateway counted, as plain data for metrics and pages.

use std::sync::Arc;

use super::credential_shape::{CredentialShape, UnknownCredentialCount};
use super::decision::{Decision, Saving};
use crate::gateway::config::policy::RoutePolicies;
use clerk_client::cache::{self, TierStats};
use clerk_client::limiter::Priority;
use clerk_client::redis::RedisStats;
use clerk_client::{outbound, webhook};
use clerk_quota::{Histogram, MethodLabel, Source, Span};

/// The label `clerk_instance` of requests whose key belongs to no configured instance.
pub const UNKNOWN_KEYS: &str = "other";

/// The numbers of all instances, and of requests that belong to none.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayStats {
    /// By alias, in the order of the configuration; last those of [`crate::gateway::accounting::stats::UNKNOWN_KEYS`].
    pub instances: Vec<(Arc<str>, InstanceStats)>,
    /// Requests whose caller has no name of its own, for want of a place.
    pub dropped_callers: u64,
    /// Requests with an unknown credential, or none, by its shape.
    pub unknown_credentials: [UnknownCredentialCount; CredentialShape::ALL.len()],
    /// Of the caches of all instances together; none where no policy uses one.
    pub cache: Option<CacheTotals>,
    /// Of the Redis that gateways share, where there is one.
    pub redis: Option<RedisStats>,
    /// Of the endpoint for webhooks, where there is one.
    pub webhooks: Option<webhook::WebhookStats>,
}

/// What caches did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheTotals {
    /// In this process.
    pub memory: TierStats,
    /// In Redis, where there is one.
    pub redis: Option<TierStats>,
    /// Answers in memory now.
    pub entries: u64,
    /// Their size in bytes, with keys and headers.
    pub bytes: u64,
    /// Invalidations, asked for here or told by other processes.
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
            // One webhook asks all instances: the most that one of them was asked.
            invalidations: self.invalidations.max(cache.invalidations + cache.heard),
        }
    }
}

/// The numbers of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceStats {
    /// Requests that are over, sorted.
    pub requests: Vec<RequestCount>,
    /// By route, sorted.
    pub durations: Vec<RouteDurations>,
    /// What became of them, in the order of [`Decision::ALL`].
    pub decisions: [u64; Decision::ALL.len()],
    /// Of those that were shed, by the priority of their callers, in the order of [`Priority::ALL`].
    pub shed: [u64; Priority::ALL.len()],
    /// What would have become of them if the policies in shadow were on, in the order of [`Decision::ALL`].
    pub shadowed: [u64; Decision::ALL.len()],
    /// Requests to Clerk that were not needed, in the order of [`Saving::ALL`].
    pub saved: [u64; Saving::ALL.len()],
    /// Requests that were counted as of another route and caller, for want of a place.
    pub dropped: u64,
    /// Attempts, retries and the queue on the way to Clerk, those of probes and of the client library included; none for
    /// strangers that are refused.
    pub outbound: Option<outbound::RequestStats>,
    /// Which policies requests get, unless their route says otherwise; none for strangers that are refused.
    pub policies: Option<RoutePolicies>,
    /// Who used the budget, most first, in the order of [`Span::ALL`].
    pub top: [Vec<Share>; Span::ALL.len()],
}

/// A part of the requests of a time that Clerk may have counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The method.
    pub method: MethodLabel,
    /// The template, as it was sent.
    pub route: &'static str,
    /// Who called.
    pub caller: Arc<str>,
    /// Which part of the program sent it.
    pub source: Source,
    /// Requests.
    pub requests: u64,
    /// Of all requests of that time, from 0 to 1.
    pub ratio: f64,
}

/// Requests of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestCount {
    /// A configured name, or that of an SDK.
    pub caller: Arc<str>,
    /// The template.
    pub route: &'static str,
    /// The method.
    pub method: MethodLabel,
    /// Status of the answer; [`crate::gateway::CLIENT_GONE`] if the client did not wait for it.
    pub code: u16,
    /// How many.
    pub count: u64,
}

/// How long the requests of a route took.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteDurations {
    /// The template.
    pub route: &'static str,
    /// Seconds from the head of the request to the end of the answer.
    pub request: Histogram,
    /// Seconds from the start of the last attempt to the head of Clerk's answer.
    pub upstream: Histogram,
}
