//! Request counters: one lock and a few additions per request.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::caller_registry::CallerRegistry;
use super::decision::{Decision, Saving};
use super::route_key::RouteKey;
use super::stats::{InstanceStats, RequestCount, RouteDurations, ShedCounts};
use clerk_client::limiter::{Priority, ShedReason, ThrottleForecast};
use clerk_quota::{CallerId, Histogram, MethodLabel, route};

/// Upper bounds in seconds. None is a whole number, so that their text is the same in every exposition format.
const DURATION_BOUNDS: [f64; 10] = [0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 0.95, 2.5, 7.5, 30.5];

/// Maximum number of combinations of caller, route, method and status per instance.
const MAX_SERIES: usize = 4000;

/// Counters of one instance. They survive a configuration reload.
#[derive(Debug, Default)]
pub(in crate::gateway) struct RequestCounters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    requests: FxHashMap<RequestKey, u64>,
    durations: FxHashMap<RouteKey, Durations>,
    decisions: [u64; Decision::ALL.len()],
    shed: ShedCounts,
    shadowed: [u64; Decision::ALL.len()],
    saved: [u64; Saving::ALL.len()],
    dropped: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct RequestKey {
    route: RouteKey,
    caller: CallerId,
    method: MethodLabel,
    code: u16,
}

#[derive(Debug)]
struct Durations {
    request: Histogram,
    upstream: Histogram,
}

impl Default for Durations {
    fn default() -> Self {
        Self { request: Histogram::new(&DURATION_BOUNDS), upstream: Histogram::new(&DURATION_BOUNDS) }
    }
}

/// A completed request.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct CompletedRequest {
    pub(in crate::gateway) template: &'static str,
    pub(in crate::gateway) caller: CallerId,
    pub(in crate::gateway) method: MethodLabel,
    pub(in crate::gateway) code: u16,
    pub(in crate::gateway) decision: Decision,
    /// Why the limiter shed the request, if it did. Without a reason, its wait counts as too long.
    pub(in crate::gateway) shed: Option<ShedReason>,
    pub(in crate::gateway) priority: Priority,
    /// From the request head to the end of the response.
    pub(in crate::gateway) duration: Duration,
    /// From the start of the last attempt to the head of its response, if a request was sent upstream.
    pub(in crate::gateway) upstream: Option<Duration>,
    /// What the policies in shadow mode would have done.
    pub(in crate::gateway) dry_run: DryRunCounts,
}

/// What the policies in [shadow](crate::gateway::Mode::Shadow) mode would have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::gateway) struct DryRunCounts {
    pub(in crate::gateway) queued: bool,
    pub(in crate::gateway) shed: bool,
    pub(in crate::gateway) retried: bool,
    pub(in crate::gateway) cache_hit: bool,
    pub(in crate::gateway) coalesced: bool,
    /// Lookups that this request shows to share a list: 2 for a list's second lookup, which also stands for the first.
    pub(in crate::gateway) batched: u32,
}

impl DryRunCounts {
    /// Records the limiter's dry run, if there was one.
    pub(in crate::gateway) fn set_pace(&mut self, forecast: Option<ThrottleForecast>) {
        self.queued = matches!(forecast, Some(ThrottleForecast::Queued { .. }));
        self.shed = matches!(forecast, Some(ThrottleForecast::Shed(_)));
    }

    /// Whether the response would not have needed an upstream request of its own.
    pub(in crate::gateway) const fn is_spared(&self) -> bool {
        self.cache_hit || self.coalesced || self.batched > 0
    }
}

impl RequestCounters {
    pub(in crate::gateway) fn record(&self, done: &CompletedRequest) {
        let mut state = self.0.lock();
        let state = &mut *state;
        let mut key =
            RequestKey { route: RouteKey(done.template), caller: done.caller, method: done.method, code: done.code };
        if state.requests.len() >= MAX_SERIES && !state.requests.contains_key(&key) {
            state.dropped += 1;
            key = RequestKey { route: RouteKey(route::OTHER), caller: CallerId::OTHER, ..key };
        }
        *state.requests.entry(key).or_default() += 1;
        state.decisions[done.decision.index()] += 1;
        if done.decision == Decision::Shed {
            let reason = done.shed.unwrap_or(ShedReason::WaitTooLong);
            state.shed[done.priority as usize][reason.index()] += 1;
        }
        let DryRunCounts { queued, shed, retried, cache_hit, coalesced, batched } = done.dry_run;
        state.shadowed[Decision::Batched.index()] += u64::from(batched);
        for (would, decision) in [
            (queued, Decision::Queued),
            (shed, Decision::Shed),
            (retried, Decision::Retried),
            (cache_hit, Decision::CacheHit),
            (coalesced, Decision::Coalesced),
        ] {
            state.shadowed[decision.index()] += u64::from(would);
        }
        let durations = state.durations.entry(key.route).or_default();
        durations.request.observe(done.duration.as_secs_f64());
        if let Some(upstream) = done.upstream {
            durations.upstream.observe(upstream.as_secs_f64());
        }
    }

    /// Counts upstream requests that were saved.
    pub(in crate::gateway) fn save(&self, saving: Saving, requests: u64) {
        self.0.lock().saved[saving as usize] += requests;
    }

    pub(in crate::gateway) fn stats(&self, callers: &CallerRegistry) -> InstanceStats {
        let mut state = self.0.lock();
        let state = &mut *state;
        let mut requests: HashMap<(CallerId, &'static str, MethodLabel, u16), u64> = HashMap::new();
        for (key, count) in &state.requests {
            *requests.entry((key.caller, key.route.0, key.method, key.code)).or_default() += count;
        }
        let mut requests: Vec<_> = requests
            .into_iter()
            .map(|((caller, route, method, code), count)| RequestCount {
                caller: callers.name(caller),
                route,
                method,
                code,
                count,
            })
            .collect();
        requests.sort_by(|a, b| (&a.caller, a.route, a.method, a.code).cmp(&(&b.caller, b.route, b.method, b.code)));
        let mut routes: HashMap<&'static str, Durations> = HashMap::new();
        for (key, durations) in &state.durations {
            let sum = routes.entry(key.0).or_default();
            sum.request.merge(&durations.request);
            sum.upstream.merge(&durations.upstream);
        }
        let mut durations: Vec<_> = routes
            .into_iter()
            .map(|(route, Durations { request, upstream })| RouteDurations { route, request, upstream })
            .collect();
        durations.sort_by_key(|durations| durations.route);
        InstanceStats {
            requests,
            durations,
            decisions: state.decisions,
            shed: state.shed,
            shadowed: state.shadowed,
            saved: state.saved,
            dropped: state.dropped,
            outbound: None,
            policies: None,
            callers: Vec::new(),
        }
    }
}
