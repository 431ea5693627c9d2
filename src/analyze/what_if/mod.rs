//! What each policy of the gateway would have saved or delayed, each as if it were the only one.
//!
//! The policies' own code decides, in the time of the logs: [`InstancePolicies::decide`] which apply to a route, the cache's
//! rules which responses are kept and what invalidates them, the batches of the dry run which lookups share a request, and
//! the limiter which requests wait.

mod repeats;

use std::time::Duration;

use http::StatusCode;
use rustc_hash::FxHashMap;

use super::account::{AssumedLimit, OnEnd};
use super::input::{LogCall, http_method};
use super::stage::Stage;
use crate::gateway::{InstancePolicies, Mode, RoutePolicies, ShadowBatches};
use clerk_client::cache::simulation::{ReadSimulation, RecordedRead, TagSlots};
use clerk_client::cache::{CacheOptions, CachePolicy};
use clerk_client::limiter::LimiterOptions;
use clerk_client::limiter::simulation::{RecordedRequest, ThrottleSimulation, ThrottleTotals};
use clerk_client::outbound::WriteOutcome;
use clerk_quota::{MethodLabel, Moment};
use repeats::Repeats;

/// The lifetimes that are tried.
pub(crate) const TTLS: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];

/// Coalescing alone, then caching for each of [`TTLS`].
const READ_POLICIES: usize = 1 + TTLS.len();

/// Policies whose saving is counted by route: those of reads, then batching.
const POLICIES: usize = READ_POLICIES + 1;

/// Resources that are remembered, about what the gateway's memory holds by default.
const MAX_RESOURCES: usize = 1 << 16;

/// Kinds of lookups that are batched separately.
const MAX_BATCH_KINDS: usize = 64;

/// How much longer than its attempt's timeout a write may still be executed.
const AFTER_TIMEOUT: Duration = Duration::from_secs(1);

/// Requests of a route that each policy would have saved.
pub(crate) type Saved = [u64; POLICIES];

/// The policies in simulated time.
#[derive(Debug)]
pub(crate) struct WhatIf {
    policies: InstancePolicies,
    reads: ReadSimulation<READ_POLICIES>,
    batches: ShadowBatches<u64, u64>,
    throttle: Stage<RecordedRequest, ThrottleSimulation>,
    repeats: Repeats,
    saved: FxHashMap<(MethodLabel, &'static str), Saved>,
    /// Requests whose response other requests may share.
    pub(crate) shareable: u64,
    /// Writes of which the logs tell what they changed.
    pub(crate) writes: u64,
}

/// What the policies would have done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Savings {
    /// By route, those that save the most first.
    pub(crate) by_route: Vec<(MethodLabel, &'static str, Saved)>,
    pub(crate) total: Saved,
    pub(crate) throttle: ThrottleTotals,
    /// The longest that a request may wait.
    pub(crate) max_wait: Duration,
    pub(crate) shareable: u64,
    /// Reads of what had been read within the longest lifetime before.
    pub(crate) repeated: u64,
    pub(crate) writes: u64,
    /// Resources that were forgotten although a policy may have had use for them: the savings are higher.
    pub(crate) dropped_resources: u64,
}

impl WhatIf {
    pub(crate) fn new(assumed: &AssumedLimit, max_wait: Duration) -> Self {
        let on = Mode::On;
        let all = RoutePolicies { retry: on, coalesce: on, cache: on, batch: on, pace: on, ..RoutePolicies::default() };
        let cached = TTLS.map(|ttl| CachePolicy::fresh_for(ttl).stale_if_error(ttl));
        let [short, middle, long] = cached;
        let reads = [CachePolicy::coalesce_only(), short, middle, long];
        let grace = CacheOptions::new("log").read_after_write_grace;
        let options = LimiterOptions::default().limit(assumed.limit).environment(assumed.environment);
        Self {
            policies: InstancePolicies { policies: all, ..InstancePolicies::default() },
            reads: ReadSimulation::new(reads, grace, MAX_RESOURCES),
            batches: ShadowBatches::new(MAX_BATCH_KINDS),
            throttle: Stage::new(ThrottleSimulation::new(options, max_wait), |throttle, request| {
                throttle.request(&request);
            }),
            repeats: Repeats::default(),
            saved: FxHashMap::default(),
            shareable: 0,
            writes: 0,
        }
    }

    /// A request starts. Those that ended before must have ended here, too. Returns whether it would have been sent with
    /// coalescing.
    pub(crate) fn start(&mut self, call: &LogCall) -> bool {
        let policies = self.policies.decide(&http_method(call.method), &call.route);
        if policies.pace.is_on() {
            let (bucket, entity) = (call.route.bucket, call.route.entity);
            let took = call.took.unwrap_or_default();
            self.throttle.push(RecordedRequest { bucket, entity, started: call.started, took });
        }
        let Some(read) = call.read.as_ref().filter(|_| call.route.bucket.is_limited()) else { return true };
        self.shareable += 1;
        self.repeats.read(read.resource, call.started);
        let keeps = policies.cache.is_on() && (read.is_tagged || policies.is_explicit);
        let recorded = RecordedRead {
            resource: read.resource,
            tags: &read.tags,
            started: call.started,
            ended: call.ended(),
            status: call.status.and_then(|status| StatusCode::from_u16(status).ok()),
        };
        let outcomes = self.reads.read(&recorded, [policies.coalesce.is_on(), keeps, keeps, keeps]);
        // A user that is not in the list is requested again.
        let kind = read.batch.filter(|_| policies.batch.is_on() && call.status != Some(404));
        let shares = kind.is_some_and(|kind| self.batches.look_up(kind, read.resource, call.started) > 0);
        let savings = outcomes.map(|outcome| outcome.is_saved());
        if shares || savings.contains(&true) {
            let saved = self.saved.entry((call.method, call.route.template)).or_default();
            for (count, is_saved) in saved.iter_mut().zip(savings.into_iter().chain([shares])) {
                *count += u64::from(is_saved);
            }
        }
        !savings[0]
    }

    /// A webhook changed something. What ended before must have ended here, too.
    pub(crate) fn webhook(&mut self, changes: &TagSlots, at: Moment) {
        self.reads.invalidate(changes, at, Duration::ZERO);
    }

    /// What the policies would have done, at the end of the logs.
    pub(crate) fn finish(self, last: Moment, max_wait: Duration) -> Savings {
        let mut throttle = self.throttle.finish();
        throttle.advance(last.after(max_wait).after(Duration::from_secs(3600)));
        let mut by_route: Vec<_> =
            self.saved.into_iter().map(|((method, route), saved)| (method, route, saved)).collect();
        by_route.sort_unstable_by(|a, b| b.2[2].cmp(&a.2[2]).then_with(|| (a.1, a.0).cmp(&(b.1, b.0))));
        let mut total = [0; POLICIES];
        for (_, _, saved) in &by_route {
            for (sum, count) in total.iter_mut().zip(saved) {
                *sum += count;
            }
        }
        Savings {
            by_route,
            total,
            throttle: throttle.totals(),
            max_wait,
            shareable: self.shareable,
            repeated: self.repeats.count(),
            writes: self.writes,
            dropped_resources: self.reads.dropped(),
        }
    }
}

impl OnEnd for WhatIf {
    /// A write changes what was read before, and so does a response that says that a resource is gone.
    fn ended(&mut self, call: &LogCall) {
        let Some(changes) = &call.changes else { return };
        let is_read = call.method == MethodLabel::Get;
        self.writes += u64::from(!is_read);
        let status = call.status.and_then(|status| StatusCode::from_u16(status).ok());
        // Each line is an attempt of its own.
        let outcome = status.map_or(WriteOutcome::Unknown, |status| WriteOutcome::of_status(status, !call.is_repeat));
        let doubt = match outcome {
            _ if is_read => Duration::ZERO,
            WriteOutcome::NotExecuted => return,
            WriteOutcome::Executed => Duration::ZERO,
            WriteOutcome::Unknown => self.policies.attempt_timeout + AFTER_TIMEOUT,
        };
        self.reads.invalidate(changes, call.ended(), doubt);
    }
}
