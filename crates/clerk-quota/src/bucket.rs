//! The ledger of one bucket of one instance: its budgets, closed windows and latest values.

use std::collections::BTreeMap;

use super::budget::{AttemptEnd, Begun, Budget, Context, LimitConfig};
use super::closed_windows::ClosedWindows;
use super::fleet::FleetUsage;
use super::limits::{Bucket, Scope};
use super::rolling_max::{LOOK_BACK, RollingMax};
use super::route::Entity;
use super::snapshot::{Basis, BucketSnapshot, ClosedWindow};
use super::{HeaderDialect, HeaderError, Moment, Observation, Source};

/// Users, organizations or memberships whose budgets are tracked at the same time. An instance's own limit allows
/// fewer changes in two windows, so only a misbehaving server reaches this.
const MAX_ENTITIES: usize = 4096;

#[derive(Debug, Clone)]
pub(super) struct BucketLedger {
    bucket: Bucket,
    limit_config: LimitConfig,
    /// Boxed: a map with one entry allocates space for eleven.
    budgets: BTreeMap<Option<Entity>, Box<Budget>>,
    closed: ClosedWindows,
    throttled: [u64; Source::ALL.len()],
    refused_at: Option<Moment>,
    sampled_at: Option<Moment>,
    /// The same for responses to requests other than probes.
    sampled_by_others_at: Option<Moment>,
    peak: RollingMax,
}

impl BucketLedger {
    pub(super) fn new(bucket: Bucket, limit_config: LimitConfig) -> Self {
        Self {
            bucket,
            limit_config,
            budgets: BTreeMap::new(),
            closed: ClosedWindows::default(),
            throttled: [0; Source::ALL.len()],
            refused_at: None,
            sampled_at: None,
            sampled_by_others_at: None,
            peak: RollingMax::default(),
        }
    }

    pub(super) const fn set_limit_config(&mut self, limit_config: LimitConfig) {
        self.limit_config = limit_config;
    }

    /// Shows the usage histogram from the start. Buckets other than the default one show it once they are used.
    pub(super) fn show_usage(&mut self) {
        self.closed.show_usage();
    }

    /// Counts a request that is being sent.
    pub(super) fn begin(&mut self, at: Moment, entity: Option<Entity>, context: &Context) -> Begun {
        let entity = self.owner(entity);
        if self.bucket.scope() == Scope::Unlimited {
            return Begun::uncounted(at);
        }
        self.make_room(entity, at, context);
        let closed = &mut self.closed;
        let budget = self.budgets.entry(entity).or_default();
        let (begun, used) = budget.begin(at, context, &mut |budget, window| closed.close(budget, window, context));
        if let Some(used) = used {
            self.peak.observe(at, used);
        }
        begun
    }

    /// Ends a request.
    pub(super) fn end(
        &mut self,
        begun: Begun,
        entity: Option<Entity>,
        at: Moment,
        end: AttemptEnd<'_>,
        context: &Context,
    ) {
        let is_informative = matches!(end, AttemptEnd::Answered(observation) if self.is_informative(observation));
        let entity = self.owner(entity);
        let closed = &mut self.closed;
        // The budget was evicted meanwhile.
        let Some(budget) = self.budgets.get_mut(&entity) else { return };
        let used = budget
            .end(begun, at, end, is_informative, context, &mut |budget, window| closed.close(budget, window, context));
        if let Some(used) = used {
            self.peak.observe(at, used);
        }
    }

    /// Counts a 429 to a request that was reported after it ended.
    pub(super) const fn count_throttled(&mut self, source: Source) {
        self.throttled[source.index()] += 1;
    }

    /// Returns whether a response says anything about the budget, and counts it.
    fn is_informative(&mut self, observation: &Observation) -> bool {
        if observation.is_throttled() {
            self.throttled[observation.source.index()] += 1;
            self.refused_at = self.refused_at.max(Some(observation.at));
        }
        if self.bucket.scope() == Scope::Unlimited || !observation.usable {
            return false;
        }
        let quota = &observation.quota;
        let from_headers = quota.dialect.is_some_and(|family| family != HeaderDialect::RetryAfter);
        let named = quota.limit.is_some() || quota.remaining.is_some() || quota.reset.is_some();
        let stale = quota.errors.contains(HeaderError::Stale);
        // Responses from a cache, of unlimited routes, and failures without quota headers say nothing.
        let is_informative = named || observation.is_throttled() || (!from_headers && observation.is_served());
        if stale || !is_informative {
            return false;
        }
        self.sampled_at = self.sampled_at.max(Some(observation.at));
        if observation.source != Source::Probe {
            self.sampled_by_others_at = self.sampled_by_others_at.max(Some(observation.at));
        }
        true
    }

    /// Adds a request from before this process started.
    pub(super) fn restore(&mut self, entity: Option<Entity>, started: Moment, ended: Moment, context: &Context) {
        let entity = self.owner(entity);
        self.make_room(entity, started, context);
        self.budgets.entry(entity).or_default().restore(started, ended, self.limit_config);
    }

    /// Returns whether a request was rejected within the look-back of the peak.
    fn is_refused_lately(&self, now: Moment) -> bool {
        self.refused_at.is_some_and(|at| now.since(at) <= LOOK_BACK)
    }

    /// Takes in what all processes that share the instance used.
    pub(super) fn record_fleet(&mut self, at: Moment, usage: &FleetUsage) {
        let limit_config = self.limit_config;
        self.budgets.entry(None).or_default().record_fleet(at, usage, limit_config);
    }

    /// Returns whether other processes used anything recently.
    pub(super) fn is_used_by_fleet(&self) -> bool {
        self.budgets.get(&None).is_some_and(|budget| budget.is_used_by_fleet())
    }

    /// Sets whether the limiter is a sliding counter; `None` if not known.
    pub(super) fn set_sliding(&mut self, is_sliding: Option<bool>) {
        self.budgets.entry(None).or_default().timeline.set_sliding(is_sliding);
    }

    /// Closes the windows that are over.
    pub(super) fn advance(&mut self, now: Moment, context: &Context) {
        let closed = &mut self.closed;
        self.budgets.retain(|entity, budget| {
            budget.advance(now, &mut |budget, window| closed.close(budget, window, context));
            entity.is_none() || !budget.is_over(now, context)
        });
    }

    /// Closes all windows and drops the values, because the route no longer has its own limit.
    pub(super) fn retire(&mut self, context: &Context) {
        let closed = &mut self.closed;
        for budget in self.budgets.values_mut() {
            budget.close_all(&mut |budget, window| closed.close(budget, window, context));
        }
        self.budgets.clear();
    }

    fn owner(&self, entity: Option<Entity>) -> Option<Entity> {
        entity.filter(|_| self.bucket.scope() == Scope::Entity)
    }

    /// Makes room for a budget by evicting the one with the oldest value and closing its windows.
    fn make_room(&mut self, entity: Option<Entity>, now: Moment, context: &Context) {
        if self.budgets.len() < MAX_ENTITIES || self.budgets.contains_key(&entity) {
            return;
        }
        self.advance(now, context);
        if self.budgets.len() < MAX_ENTITIES {
            return;
        }
        let oldest = self.budgets.iter().min_by_key(|(_, budget)| budget.latest.map(|sample| sample.at));
        if let Some(entity) = oldest.map(|(entity, _)| *entity)
            && let Some(mut budget) = self.budgets.remove(&entity)
        {
            let closed = &mut self.closed;
            budget.close_all(&mut |budget, window| closed.close(budget, window, context));
        }
    }

    /// Returns when a response to a request other than a probe last reported on this bucket.
    pub(super) const fn sampled_by_others_at(&self) -> Option<Moment> {
        self.sampled_by_others_at
    }

    /// Returns the last closed windows, oldest first.
    pub(super) fn recent_windows(&self) -> impl Iterator<Item = ClosedWindow> + '_ {
        self.closed.recent()
    }

    /// Returns the end of the `Retry-After` in force, of the budget that is blocked longest.
    pub(super) fn blocked_until(&self, now: Moment) -> Option<Moment> {
        self.budgets.values().filter_map(|budget| budget.blocked_until).max().filter(|until| *until > now)
    }

    /// Returns other clients' requests in the last window; `None` for buckets with several budgets.
    fn unseen(&self, now: Moment) -> Option<u64> {
        let budget = self.budgets.get(&None).filter(|_| self.bucket.scope() == Scope::Instance)?;
        let (unseen, end) = self.closed.unseen?;
        let lasts = self.limit_config.stale_after.max(budget.length(self.limit_config));
        (now.since(end) <= lasts).then_some(unseen)
    }

    /// Returns the bucket's numbers. Call [`BucketLedger::advance`] first.
    pub(super) fn snapshot(&self, now: Moment, context: &Context) -> BucketSnapshot {
        let limit_config = self.limit_config;
        // The budget that is closest to its limit.
        let budget = self
            .budgets
            .values()
            .min_by(|a, b| a.remaining_ratio(now, context).total_cmp(&b.remaining_ratio(now, context)));
        let sample = budget.and_then(|budget| budget.live(now, limit_config));
        let limit = budget.and_then(|budget| budget.limit).or(limit_config.limit);
        let basis = budget.and_then(|budget| budget.basis(now, context));
        BucketSnapshot {
            bucket: self.bucket,
            limit,
            remaining: budget.and_then(|budget| budget.remaining(now, context)),
            reset_at: sample.and_then(|sample| sample.reset_at),
            window: budget.map_or(limit_config.window, |budget| budget.length(limit_config)),
            basis: basis.or_else(|| limit.map(|_| Basis::Configured)),
            sampled_at: self.sampled_at,
            unseen: self.unseen(now),
            refused_at: self.refused_at,
            low_at: self.closed.low_at,
            usage_peak: self.peak.highest(now).map(|peak| if self.is_refused_lately(now) { 1.0 } else { peak }),
            blocked_until: self.blocked_until(now),
            to_exhaustion: budget.and_then(|budget| budget.forecast(now, context)),
            windows: self.closed.windows,
            low_windows: self.closed.low,
            exhausted_windows: self.closed.exhausted,
            last_window: self.closed.recent().next_back(),
            window_usage: self.closed.usage.clone(),
            throttled: self.throttled,
        }
    }
}
