//! The ledger of one Clerk instance.

mod metered;
mod probes;
mod reports;
mod standby;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::bucket::BucketLedger;
use super::budget::{AttemptEnd, Begun, Context};
use super::condition::{Condition, Trouble};
use super::delayed::Delayed;
use super::fleet::FleetUsage;
use super::limits::{Bucket, Scope};
use super::metered::MeteredCounter;
use super::method::MethodLabel;
use super::probe_stats::ProbeStats;
use super::route_limits::{NamedBy, RouteLimits};
use super::settings::{Coverage, Settings};
use super::snapshot::{Basis, ClosedWindow, InstanceSnapshot};
use super::spending::{CallerId, SpendKey, SpendResult, SpendShare, Spender, Spending};
use super::top::Span;
use super::{Entity, HeaderError, KeyVerdict, Moment, Observation, Quota, QuotaCode, Route, RouteId, Source};

/// How long a limit that a route reported is compared with other routes' limits, at least.
const ROUTE_LIMIT_TTL: Duration = Duration::from_secs(60);

/// A request that was sent and has not ended. Pass it to [`InstanceLedger::end`] exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The bucket that counts the request.
    pub bucket: Bucket,
    /// The owner of the budget, for buckets of [`Scope::Entity`].
    pub entity: Option<Entity>,
    spender: Spender,
    begun: Begun,
    /// Its number in the ledger that runs behind.
    delayed: u64,
    /// The [`InstanceLedger::restarts`] when it began.
    restarts: u32,
}

/// A request that is about to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestStart {
    /// When it is sent.
    pub at: Moment,
    /// The part of the program that sends it.
    pub source: Source,
    /// The caller, as an id that the program assigned.
    pub caller: CallerId,
    /// The route of the request.
    pub route: Route,
    /// The method of the request.
    pub method: MethodLabel,
}

/// The quota use of one instance: counts requests and responses, and returns the numbers.
#[derive(Debug, Clone)]
pub struct InstanceLedger {
    settings: Settings,
    is_standby: bool,
    /// How often it started over.
    restarts: u32,
    /// The documented buckets.
    buckets: [BucketLedger; Bucket::ALL.len()],
    /// Buckets of single routes.
    route_buckets: BTreeMap<RouteId, Box<BucketLedger>>,
    route_limits: RouteLimits,
    /// When counting started.
    since: Option<Moment>,
    spending: Spending,
    metered: MeteredCounter,
    /// Which sources have sent requests, by [`Source::index`].
    has_sent: [bool; Source::ALL.len()],
    up: Option<bool>,
    key_valid: Option<bool>,
    responses: BTreeMap<(Source, u16), u64>,
    header_errors: [u64; HeaderError::ALL.len()],
    quota_exceeded: [u64; QuotaCode::ALL.len()],
    probes: ProbeStats,
    users: Option<u64>,
    users_active_30d: Option<u64>,
    trouble: Option<Trouble>,
    clock_offset_seconds: Option<f64>,
    throttled_at: Option<Moment>,
    observed_at: [Option<Moment>; Source::ALL.len()],
    /// For instances with reported requests.
    delayed: Option<Box<Delayed>>,
}

impl InstanceLedger {
    /// Creates a ledger that knows only the configuration. All its counters are 0.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut responses = BTreeMap::new();
        for source in &settings.sources {
            // Alerts use these two; other statuses appear with their first response.
            responses.insert((*source, 200), 0);
            responses.insert((*source, 429), 0);
        }
        let mut buckets = Bucket::ALL.map(|bucket| BucketLedger::new(bucket, settings.limit_config(bucket)));
        if settings.coverage != Coverage::Part
            && settings.sources.iter().any(|source| *source != Source::Probe)
            && let Some(instance) = buckets.first_mut()
        {
            instance.show_usage();
        }
        Self {
            is_standby: false,
            restarts: 0,
            buckets,
            route_buckets: BTreeMap::new(),
            route_limits: RouteLimits::default(),
            since: None,
            spending: Spending::default(),
            metered: MeteredCounter::default(),
            has_sent: [false; Source::ALL.len()],
            delayed: Delayed::new(&settings).map(Box::new),
            settings,
            up: None,
            key_valid: None,
            responses,
            header_errors: [0; HeaderError::ALL.len()],
            quota_exceeded: [0; QuotaCode::ALL.len()],
            probes: ProbeStats::default(),
            users: None,
            users_active_30d: None,
            trouble: None,
            clock_offset_seconds: None,
            throttled_at: None,
            observed_at: [None; Source::ALL.len()],
        }
    }

    /// Returns the configuration.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Applies a new configuration of the same instance. Counters and values are kept.
    pub fn reconfigure(&mut self, settings: Settings) {
        for (bucket, ledger) in Bucket::ALL.into_iter().zip(&mut self.buckets) {
            ledger.set_limit_config(settings.limit_config(bucket));
        }
        for source in &settings.sources {
            self.responses.entry((*source, 200)).or_default();
            self.responses.entry((*source, 429)).or_default();
        }
        match &mut self.delayed {
            Some(delayed) if settings.lateness.is_some() => delayed.reconfigure(&settings),
            delayed => *delayed = Delayed::new(&settings).map(Box::new),
        }
        self.settings = settings;
    }

    /// Counts a request that is being sent. It uses quota from now until one window after its end.
    pub fn begin(&mut self, request: &RequestStart) -> Attempt {
        let RequestStart { at, source, caller, route, method } = *request;
        self.since.get_or_insert(at);
        self.has_sent[source.index()] = true;
        let spender = Spender { caller, source, route: route.id, method };
        if route.bucket.scope() != Scope::Unlimited {
            self.spending.begin(at, spender);
        }
        let bucket = self.bucket_of(&route);
        let context = self.context(bucket);
        let begun = self.bucket_mut(bucket).begin(at, route.entity, &context);
        let delayed = if self.delayed.is_some() { self.begin_delayed(request) } else { 0 };
        Attempt { bucket, entity: route.entity, spender, begun, delayed, restarts: self.restarts }
    }

    /// Ends a request at `at`. Returns the bucket that counted it, which the response may have changed.
    pub fn end(&mut self, attempt: Attempt, at: Moment, end: AttemptEnd<'_>) -> Bucket {
        if attempt.restarts != self.restarts {
            // Of a time that the numbers do not include.
            return attempt.bucket;
        }
        if let Some(delayed) = self.delayed.as_mut().filter(|_| attempt.delayed > 0) {
            delayed.end(attempt.delayed, at, end);
        }
        let bucket = self.end_in_bucket(attempt, at, end);
        let result = match end {
            AttemptEnd::NotSent => {
                self.spending.refund(attempt.begun.started, attempt.spender);
                return bucket;
            }
            AttemptEnd::Unanswered => SpendResult::Unknown,
            AttemptEnd::Answered(observation) if observation.is_throttled() => SpendResult::Refused,
            AttemptEnd::Answered(_) => SpendResult::Served,
        };
        if bucket.scope() != Scope::Unlimited {
            self.spending.count(SpendKey { bucket, spender: attempt.spender, result });
        }
        self.count_metered(attempt.spender, at, at, end, 1);
        bucket
    }

    fn end_in_bucket(&mut self, attempt: Attempt, at: Moment, end: AttemptEnd<'_>) -> Bucket {
        let AttemptEnd::Answered(observation) = end else {
            self.end_in(attempt.bucket, &attempt, at, end);
            return attempt.bucket;
        };
        self.record_response(observation);
        if attempt.spender.route.has_own_limit() {
            // Also if its number happens to be that of the other routes.
            self.end_in(attempt.bucket, &attempt, at, end);
            return attempt.bucket;
        }
        let named = observation.quota.limit.filter(|_| matches!(attempt.bucket, Bucket::Instance | Bucket::Route(_)));
        let memory = ROUTE_LIMIT_TTL.max(self.settings.stale_after);
        let named_by = named.map(|limit| self.route_limits.name(attempt.spender.route, limit, at, memory));
        self.retire_routes();
        match (named_by, attempt.bucket) {
            (Some(NamedBy::Route), Bucket::Instance) => {
                // The response reports another limit, so the instance's bucket did not count the request.
                self.end_in(Bucket::Instance, &attempt, at, AttemptEnd::NotSent);
                let bucket = Bucket::Route(attempt.spender.route);
                let context = self.context(bucket);
                let begun = self.bucket_mut(bucket).begin(attempt.begun.started, attempt.entity, &context);
                self.end_in(bucket, &Attempt { bucket, begun, ..attempt }, at, end);
                bucket
            }
            (Some(NamedBy::Ignored), bucket) => {
                let quota = Quota { retry_after: observation.quota.retry_after, ..Quota::default() };
                self.end_in(bucket, &attempt, at, AttemptEnd::Answered(&Observation { quota, ..*observation }));
                bucket
            }
            (Some(NamedBy::Instance), Bucket::Route(_)) => {
                // The routes agree again: the instance's bucket counts the request.
                let context = self.context(Bucket::Instance);
                let instance = self.bucket_mut(Bucket::Instance);
                let begun = instance.begin(attempt.begun.started, attempt.entity, &context);
                self.end_in(Bucket::Instance, &Attempt { bucket: Bucket::Instance, begun, ..attempt }, at, end);
                Bucket::Instance
            }
            (_, bucket) => {
                self.end_in(bucket, &attempt, at, end);
                bucket
            }
        }
    }

    /// Records an exchange of which only the end is known. Observations may arrive late and in any order.
    pub fn record(&mut self, observation: &Observation) {
        let Observation { at, source, route: id, bucket, entity, .. } = *observation;
        let route = Route { id, bucket, entity, ..Route::UNKNOWN };
        let (caller, method) = (CallerId::UNNAMED, MethodLabel::Other);
        let attempt = self.begin(&RequestStart { at, source, caller, route, method });
        self.end(attempt, at, AttemptEnd::Answered(observation));
    }

    /// Returns the bucket that counts a request: the documented one, unless the route turned out to have its own.
    #[must_use]
    pub fn bucket_of(&self, route: &Route) -> Bucket {
        let is_own = route.bucket == Bucket::Instance && self.route_limits.is_own(route.id);
        if is_own { Bucket::Route(route.id) } else { route.bucket }
    }

    /// Adds a request from before this process started, which still uses quota.
    ///
    /// Call it before anything else, then [`InstanceLedger::count_since`].
    pub fn restore(&mut self, bucket: Bucket, entity: Option<Entity>, started: Moment, ended: Moment) {
        let context = self.context(bucket);
        self.bucket_mut(bucket).restore(entity, started, ended, &context);
    }

    /// Sets the time from which the count is complete. It may lie before the start of the process.
    pub fn count_since(&mut self, since: Moment) {
        self.since = Some(since);
        if let Some(delayed) = &mut self.delayed {
            delayed.count_since(since);
        }
    }

    /// Sets that time to `now`, unless it is known.
    pub(super) fn start_counting(&mut self, now: Moment) {
        self.since.get_or_insert(now);
    }

    /// Takes in what all processes that share the instance used of a bucket, from a shared log read at `at`.
    pub fn record_fleet(&mut self, bucket: Bucket, at: Moment, usage: &FleetUsage) {
        if bucket.scope() == Scope::Instance {
            if let Some(delayed) = &mut self.delayed {
                delayed.record_fleet(bucket, at, usage);
            }
            self.bucket_mut(bucket).record_fleet(at, usage);
        }
    }

    /// Sets whether a bucket's limiter is a sliding counter (`Some(true)`) or counts each request on its own.
    ///
    /// `None` if not known.
    pub fn set_sliding(&mut self, bucket: Bucket, is_sliding: Option<bool>) {
        if let Some(delayed) = &mut self.delayed {
            delayed.set_sliding(bucket, is_sliding);
        }
        self.bucket_mut(bucket).set_sliding(is_sliding);
    }

    fn end_in(&mut self, bucket: Bucket, attempt: &Attempt, at: Moment, end: AttemptEnd<'_>) {
        let context = self.context(bucket);
        self.bucket_mut(bucket).end(attempt.begun, attempt.entity, at, end, &context);
    }

    /// Takes in what a response says about the instance, whatever its bucket.
    fn record_response(&mut self, observation: &Observation) {
        let newest = self.observed_at.iter().flatten().all(|latest| *latest <= observation.at);
        let latest = &mut self.observed_at[observation.source.index()];
        *latest = (*latest).max(Some(observation.at));
        self.count_response(observation);
        if newest {
            self.up = Some(observation.usable);
            self.trouble = Trouble::of_response(observation);
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
    }

    /// Counts a response, without conclusions about the instance's state.
    fn count_response(&mut self, observation: &Observation) {
        *self.responses.entry((observation.source, observation.status)).or_default() += 1;
        if !observation.quota.errors.is_empty() {
            for (count, error) in self.header_errors.iter_mut().zip(HeaderError::ALL) {
                *count += u64::from(observation.quota.errors.contains(error));
            }
        }
        if let Some(code) = observation.quota_code {
            self.quota_exceeded[code.index()] += 1;
        }
    }

    /// Retires the buckets of routes whose limit agrees with the others again.
    fn retire_routes(&mut self) {
        if self.route_buckets.is_empty() {
            return;
        }
        let agreeing: Vec<RouteId> = self
            .route_buckets
            .keys()
            .filter(|it| !it.has_own_limit() && !self.route_limits.is_own(**it))
            .copied()
            .collect();
        for route in agreeing {
            let context = self.context(Bucket::Route(route));
            self.bucket_mut(Bucket::Route(route)).retire(&context);
        }
    }

    fn bucket_mut(&mut self, bucket: Bucket) -> &mut BucketLedger {
        match bucket.index() {
            Some(index) => &mut self.buckets[index],
            None => {
                let route = if let Bucket::Route(route) = bucket { route } else { RouteId::OTHER };
                let limit_config = self.settings.limit_config(bucket);
                self.route_buckets.entry(route).or_insert_with(|| Box::new(BucketLedger::new(bucket, limit_config)))
            }
        }
    }

    /// Returns the ledger of a bucket, if there is one.
    fn bucket_ledger(&self, bucket: Bucket) -> Option<&BucketLedger> {
        match (bucket.index(), bucket) {
            (Some(index), _) => self.buckets.get(index),
            (None, Bucket::Route(route)) => self.route_buckets.get(&route).map(|ledger| &**ledger),
            (None, _) => None,
        }
    }

    fn context(&self, bucket: Bucket) -> Context {
        // Traces show all requests of the applications, so the shared log adds nothing.
        let is_fleet = self.settings.coverage == Coverage::Fleet
            && bucket.scope() == Scope::Instance
            && !self.has_sent[Source::Telemetry.index()];
        Context {
            config: self.settings.limit_config(bucket),
            counted_by: self.counted_by(),
            is_fleet,
            is_whole: self.settings.coverage != Coverage::Part,
            since: self.since.unwrap_or_default(),
        }
    }

    /// Returns who counts the use; `None` if only probes were seen or others may send requests that are not counted
    /// here.
    fn counted_by(&self) -> Option<Basis> {
        let sent = |source: Source| self.has_sent[source.index()];
        let fleet =
            self.settings.coverage == Coverage::Fleet && self.buckets.iter().any(BucketLedger::is_used_by_fleet);
        let is_partly = self.settings.coverage == Coverage::Part && !sent(Source::Telemetry);
        let counting = [
            (sent(Source::Gateway) || fleet, Basis::Gateway),
            (sent(Source::Client), Basis::Client),
            (sent(Source::Telemetry), Basis::Telemetry),
        ];
        let mut counting = counting.into_iter().filter(|(counts, _)| *counts && !is_partly).map(|(_, basis)| basis);
        let first = counting.next();
        if counting.next().is_some() { Some(Basis::Mixed) } else { first }
    }

    /// Returns when a response to a request other than a probe last reported on a bucket.
    #[must_use]
    pub fn sampled_by_others_at(&self, bucket: Bucket) -> Option<Moment> {
        self.bucket_ledger(bucket)?.sampled_by_others_at()
    }

    /// Returns the end of the `Retry-After` that blocks a bucket at `now`, at most `cap` after the last 429.
    #[must_use]
    pub fn held_until(&self, bucket: Bucket, now: Moment, cap: Duration) -> Option<Moment> {
        let blocked_until = self.bucket_ledger(bucket)?.blocked_until(now)?;
        Some(blocked_until.min(self.throttled_at?.after(cap)))
    }

    /// Returns the last closed windows of a bucket, oldest first, at most 30.
    #[must_use]
    pub fn recent_windows(&self, bucket: Bucket) -> Vec<ClosedWindow> {
        let ledger = self.delayed.as_ref().map_or(self, |delayed| delayed.ledger());
        ledger.bucket_ledger(bucket).into_iter().flat_map(BucketLedger::recent_windows).collect()
    }

    /// Returns who used the budgets in a time span that ends at `now`, largest share first.
    #[must_use]
    pub fn top(&self, now: Moment, span: Span) -> Vec<SpendShare> {
        self.spending.top(now, span)
    }

    /// Closes the windows that are over.
    pub fn advance(&mut self, now: Moment) {
        self.start_counting(now);
        self.release(now);
        let routes: Vec<Bucket> = self.route_buckets.keys().map(|route| Bucket::Route(*route)).collect();
        for bucket in Bucket::ALL.into_iter().chain(routes) {
            let context = self.context(bucket);
            self.bucket_mut(bucket).advance(now, &context);
        }
    }

    /// Evaluates the instance at `now`, like [`Condition::of`] without building a whole snapshot.
    pub fn condition(&mut self, now: Moment) -> Condition {
        self.advance(now);
        let buckets = self.bucket_snapshots(now).map(Cow::Owned);
        Condition::judge(buckets, self.settings.low_threshold, self.key_valid, self.trouble, now)
    }

    /// Returns the numbers at `now`, after closing the windows that are over.
    pub fn snapshot(&mut self, now: Moment) -> InstanceSnapshot {
        if let Some(nothing) = self.snapshot_of_standby(now) {
            return nothing;
        }
        self.advance(now);
        let buckets = self.bucket_snapshots(now).map(Arc::new).collect();
        InstanceSnapshot {
            name: Arc::clone(&self.settings.name),
            environment: self.settings.environment,
            api_host: Arc::clone(&self.settings.api_host),
            is_standby: self.is_standby,
            up: self.up,
            key_valid: self.key_valid,
            buckets,
            sources: Source::ALL
                .map(|source| self.settings.sources.contains(&source) || self.observed_at[source.index()].is_some()),
            spent: self.spending.counts(),
            spent_folded: self.spending.folded(),
            metered: self.metered.snapshot(now),
            responses: self.responses.clone(),
            header_errors: self.header_errors,
            quota_exceeded: self.quota_exceeded,
            probes: self.probes.clone(),
            users: self.users,
            users_active_30d: self.users_active_30d,
            users_limit: self.settings.users_limit,
            low_threshold: self.settings.low_threshold,
            trouble: self.trouble,
            clock_offset_seconds: self.clock_offset_seconds,
            throttled_at: self.throttled_at,
        }
    }
}
