//! What the ledger knows of one bucket of one instance: its budgets, its closed windows, its latest values.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::forecast::Pace;
use super::histogram::Histogram;
use super::limits::{Bucket, Scope};
use super::recent_requests::RecentRequests;
use super::rolling_max::RollingMax;
use super::route::Entity;
use super::snapshot::{Basis, BucketSnapshot, ClosedWindow};
use super::windows::{GRACE, Reset, Timeline, Window, WindowPosition};
use super::{HeaderDialect, HeaderError, Moment, Observation, Source};

/// Upper bounds of the histogram of windows by their highest use.
pub(super) const USAGE_BOUNDS: [f64; 8] = [0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99];

/// Users, organizations or memberships whose budgets are followed at the same time. More than an instance's own limit
/// lets change in two windows, so that only a misbehaving server reaches it.
const MAX_ENTITIES: usize = 4096;

/// Closed windows that are kept to be looked at: five minutes of 10 s.
const RECENT_WINDOWS: usize = 30;

/// What is configured for a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LimitConfig {
    /// Requests per window, until the server names them.
    pub limit: Option<u64>,
    /// Length of the window, until the server names it.
    pub window: Duration,
    /// A window in which a smaller share than this was left was low.
    pub low_threshold: f64,
    /// A value older than this is no longer shown.
    pub stale_after: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct BucketLedger {
    limit_config: LimitConfig,
    budgets: BTreeMap<Option<Entity>, Budget>,
    window_counts: WindowCounts,
    throttled: [u64; Source::ALL.len()],
    sampled_at: Option<Moment>,
    /// The same, of answers to others than the probes.
    sampled_by_others_at: Option<Moment>,
    peak: RollingMax,
}

/// Counts of closed windows.
#[derive(Debug, Clone, Default)]
struct WindowCounts {
    windows: u64,
    low: u64,
    exhausted: u64,
    /// From the first window on.
    usage: Option<Histogram>,
    /// The last ones, oldest first.
    recent: VecDeque<ClosedWindow>,
    /// Requests of the last one that its headers tell of and nobody here saw, and when it ended.
    unseen: Option<(u64, Moment)>,
}

/// One budget: that of the instance, or of one user, organization or membership.
#[derive(Debug, Clone, Default)]
struct Budget {
    timeline: Timeline,
    own: RecentRequests,
    /// The server's own limit and length of the window, once it has named them.
    limit: Option<u64>,
    window: Option<Duration>,
    latest: Option<Sample>,
    blocked_until: Option<Moment>,
    /// When a 429 last said so.
    blocked_at: Option<Moment>,
}

/// The newest value of a budget.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Moment,
    remaining: Option<u64>,
    reset_at: Option<Moment>,
    from_headers: bool,
    /// End of the window that it was made in.
    window_end: Moment,
    /// A 429 is true until it says that one may come back.
    dies_at: Option<Moment>,
}

impl BucketLedger {
    pub(super) fn new(bucket: Bucket, limit_config: LimitConfig) -> Self {
        let mut ledger = Self {
            limit_config,
            budgets: BTreeMap::new(),
            window_counts: WindowCounts::default(),
            throttled: [0; Source::ALL.len()],
            sampled_at: None,
            sampled_by_others_at: None,
            peak: RollingMax::default(),
        };
        if bucket == Bucket::Instance {
            // The bucket that everybody watches shows its histogram from the start; the others when first used.
            ledger.window_counts.usage = Some(Histogram::new(&USAGE_BOUNDS));
        }
        ledger
    }

    pub(super) const fn set_limit_config(&mut self, limit_config: LimitConfig) {
        self.limit_config = limit_config;
    }

    /// Takes in an answer to a request of this bucket.
    pub(super) fn record(&mut self, bucket: Bucket, observation: &Observation) {
        if observation.is_throttled() {
            self.throttled[observation.source.index()] += 1;
        }
        if bucket.scope() == Scope::Unlimited || !observation.usable {
            return;
        }
        let quota = &observation.quota;
        let from_headers = quota.dialect.is_some_and(|family| family != HeaderDialect::RetryAfter);
        let named = quota.limit.is_some() || quota.remaining.is_some() || quota.reset.is_some();
        let stale = quota.errors.contains(HeaderError::Stale);
        // Neither an answer from a cache nor an unlimited one nor a failure without quota headers tells anything.
        let tells = named || observation.is_throttled() || (!from_headers && observation.is_counted());
        if stale || !tells {
            return;
        }
        self.sampled_at = self.sampled_at.max(Some(observation.at));
        if observation.source != Source::Probe {
            self.sampled_by_others_at = self.sampled_by_others_at.max(Some(observation.at));
        }
        self.window_counts.usage.get_or_insert_with(|| Histogram::new(&USAGE_BOUNDS));
        let entity = observation.entity.filter(|_| bucket.scope() == Scope::Entity);
        if self.budgets.len() >= MAX_ENTITIES && !self.budgets.contains_key(&entity) {
            self.make_room(observation.at);
        }
        let (limit_config, window_counts) = (self.limit_config, &mut self.window_counts);
        let budget = self.budgets.entry(entity).or_default();
        let used = budget
            .record(observation, from_headers, limit_config, &mut |window| window_counts.close(window, limit_config));
        if let Some(used) = used {
            self.peak.observe(observation.at, used);
        }
    }

    /// Closes the windows that are over.
    pub(super) fn advance(&mut self, now: Moment) {
        let (limit_config, window_counts) = (self.limit_config, &mut self.window_counts);
        self.budgets.retain(|entity, budget| {
            budget.timeline.advance(now, &mut |window| window_counts.close(window, limit_config));
            entity.is_none() || !budget.is_over(now, limit_config)
        });
    }

    /// Forgets the budget that is least interesting, closing its windows.
    fn make_room(&mut self, now: Moment) {
        self.advance(now);
        if self.budgets.len() < MAX_ENTITIES {
            return;
        }
        let oldest = self.budgets.iter().min_by_key(|(_, budget)| budget.latest.map(|sample| sample.at));
        if let Some(entity) = oldest.map(|(entity, _)| *entity)
            && let Some(mut budget) = self.budgets.remove(&entity)
        {
            let (limit_config, window_counts) = (self.limit_config, &mut self.window_counts);
            budget.timeline.close_all(&mut |window| window_counts.close(window, limit_config));
        }
    }

    /// When somebody other than the probes last learned something of this bucket.
    pub(super) const fn sampled_by_others_at(&self) -> Option<Moment> {
        self.sampled_by_others_at
    }

    /// The windows closed last, oldest first.
    pub(super) fn recent_windows(&self) -> impl Iterator<Item = ClosedWindow> + '_ {
        self.window_counts.recent.iter().copied()
    }

    /// End of the Retry-After in force, of the budget that is blocked longest.
    pub(super) fn blocked_until(&self, now: Moment) -> Option<Moment> {
        self.budgets.values().filter_map(|budget| budget.blocked_until).max().filter(|until| *until > now)
    }

    /// Requests of others in the last window. Where windows slide, a window of ours has no use of its own; where each user
    /// has a budget, the last one says nothing of the others.
    fn unseen(&self, bucket: Bucket, now: Moment) -> Option<u64> {
        let budget = self.budgets.get(&None).filter(|_| bucket.scope() == Scope::Instance)?;
        let (unseen, end) = self.window_counts.unseen.filter(|_| !budget.timeline.is_rolling())?;
        (now.since(end) <= self.limit_config.stale_after.max(budget.length(self.limit_config))).then_some(unseen)
    }

    /// The bucket's numbers. Call [`BucketLedger::advance`] first.
    pub(super) fn snapshot(&self, bucket: Bucket, now: Moment) -> BucketSnapshot {
        let limit_config = self.limit_config;
        // Of several budgets, the one that is closest to its end.
        let budget = self
            .budgets
            .values()
            .min_by(|a, b| a.remaining_ratio(now, limit_config).total_cmp(&b.remaining_ratio(now, limit_config)));
        let sample = budget.and_then(|budget| budget.live(now, limit_config));
        let limit = budget.and_then(|budget| budget.limit).or(limit_config.limit);
        BucketSnapshot {
            bucket,
            limit,
            remaining: budget.and_then(|budget| budget.remaining(now, limit_config)),
            reset_at: sample.and_then(|sample| sample.reset_at),
            window: budget.map_or(limit_config.window, |budget| budget.length(limit_config)),
            basis: match budget.and_then(|budget| budget.recent(now, limit_config)) {
                Some(sample) if sample.from_headers => Some(Basis::Headers),
                Some(_) => Some(Basis::Counted),
                None if limit.is_some() => Some(Basis::Configured),
                None => None,
            },
            sampled_at: self.sampled_at,
            unseen: self.unseen(bucket, now),
            usage_peak: self.peak.highest(now),
            blocked_until: self.blocked_until(now),
            to_exhaustion: budget.and_then(|budget| budget.forecast(now, limit_config)),
            windows: self.window_counts.windows,
            low_windows: self.window_counts.low,
            exhausted_windows: self.window_counts.exhausted,
            window_usage: self.window_counts.usage.clone(),
            throttled: self.throttled,
        }
    }
}

impl WindowCounts {
    /// Counts a window that is over, by its highest use.
    fn close(&mut self, window: &Window, limit_config: LimitConfig) {
        let left = window.remaining_ratio(limit_config);
        let exhausted = window.throttled || window.min_remaining(limit_config) == Some(0);
        let low = exhausted || left.is_some_and(|left| left < limit_config.low_threshold);
        let used = if exhausted { Some(1.0) } else { left.map(used_of_left) };
        self.windows += 1;
        self.low += u64::from(low);
        self.exhausted += u64::from(exhausted);
        if self.recent.len() == RECENT_WINDOWS {
            self.recent.pop_front();
        }
        // A 429 says that the limit is used up, and not by how much.
        let limit = window.limit.filter(|_| !window.throttled);
        self.unseen = limit.zip(window.least_remaining).map(|(limit, least)| {
            // In fixed windows what was before is over, and is left out all the same: a sliding one looks the same as
            // long as requests come in bursts. What others used is rather told too low than made up.
            let ours = window.counted + window.counted_before;
            (limit.saturating_sub(least).saturating_sub(ours), window.end)
        });
        self.recent.push_back(ClosedWindow { seen: window.seen, usage: used, low, exhausted });
        if let Some(used) = used {
            self.usage.get_or_insert_with(|| Histogram::new(&USAGE_BOUNDS)).observe(used);
        }
    }
}

impl Window {
    /// Fewest requests left: by the server's word, else by our count.
    fn min_remaining(&self, limit_config: LimitConfig) -> Option<u64> {
        if self.throttled {
            return Some(0);
        }
        self.least_remaining.or_else(|| Some(self.limit.or(limit_config.limit)?.saturating_sub(self.counted)))
    }

    /// The smallest share of the limit that was left. A server that allows bursts may have more than the limit left.
    fn remaining_ratio(&self, limit_config: LimitConfig) -> Option<f64> {
        share(self.min_remaining(limit_config)?, self.limit.or(limit_config.limit)?)
    }
}

impl Budget {
    /// Returns the use after this answer, as a ratio.
    fn record(
        &mut self,
        observation: &Observation,
        from_headers: bool,
        limit_config: LimitConfig,
        close: &mut impl FnMut(&Window),
    ) -> Option<f64> {
        let (at, quota) = (observation.at, &observation.quota);
        self.limit = quota.limit.or(self.limit);
        self.window = quota.window.or(self.window);
        let reset = quota.reset.map(|after| Reset { after, resolution: quota.reset_resolution });
        let place = self.timeline.place(at, reset, self.window.unwrap_or(limit_config.window), close);
        let fixed = !self.timeline.is_rolling();
        let (limit, length) = (self.limit.or(limit_config.limit), self.length(limit_config));
        let window = self.timeline.window_mut(place)?;
        if observation.is_counted() {
            self.own.add(at, window.number, length);
        }
        window.limit = quota.limit.or(window.limit);
        window.counted += u64::from(observation.is_counted());
        window.throttled |= observation.is_throttled();
        if let Some(remaining) = quota.remaining {
            let number = window.number;
            window.said(remaining, || self.own.before(number, at.before(length), length));
        }
        let window_end = window.end;
        let remaining = if observation.is_throttled() {
            Some(0)
        } else if from_headers {
            // In a fixed window nothing comes back, so that the fewest is the newest, whatever order answers come in.
            if fixed { window.least_remaining } else { quota.remaining }
        } else {
            limit.map(|limit| limit.saturating_sub(window.counted))
        };
        let mut dies_at = None;
        if observation.is_throttled() {
            let until = match (quota.retry_after, quota.reset) {
                (Some(wait), _) | (None, Some(wait)) => at.after(wait),
                (None, None) => window_end,
            };
            self.blocked_until = self.blocked_until.max(Some(until));
            self.blocked_at = self.blocked_at.max(Some(at));
            dies_at = Some(until.max(quota.reset.map_or(until, |reset| at.after(reset))));
        }
        // Whatever a 429 said, requests are served again. Those that were under way then are no sign of it.
        if observation.is_counted() && self.blocked_at.is_some_and(|blocked| at >= blocked.after(GRACE)) {
            self.blocked_until = None;
            self.blocked_at = None;
        }
        if place == WindowPosition::Current && self.latest.is_none_or(|latest| latest.at <= at) {
            let reset_at = quota.reset.map(|reset| at.after(reset));
            self.latest = Some(Sample { at, remaining, reset_at, from_headers, window_end, dies_at });
        }
        share(remaining?, limit?).map(used_of_left)
    }

    fn length(&self, limit_config: LimitConfig) -> Duration {
        self.timeline.length(self.window.unwrap_or(limit_config.window))
    }

    /// The newest answer, unless it is old.
    fn recent(&self, now: Moment, limit_config: LimitConfig) -> Option<Sample> {
        let keep = limit_config.stale_after.max(self.length(limit_config));
        self.latest.filter(|sample| now.since(sample.at) <= keep)
    }

    /// The newest value, unless it cannot be true any more.
    fn live(&self, now: Moment, limit_config: LimitConfig) -> Option<Sample> {
        self.recent(now, limit_config).filter(|sample| sample.dies_at.is_none_or(|end| now < end))
    }

    fn is_blocked(&self, now: Moment) -> bool {
        self.blocked_until.is_some_and(|until| until > now)
    }

    fn remaining(&self, now: Moment, limit_config: LimitConfig) -> Option<u64> {
        if self.is_blocked(now) {
            return Some(0);
        }
        let sample = self.live(now, limit_config)?;
        // Our own count begins anew with each window, whether something was seen in it or not.
        if !sample.from_headers && now >= sample.window_end {
            self.limit.or(limit_config.limit)
        } else {
            sample.remaining
        }
    }

    /// For comparing budgets: the share of the limit that is left, more than any share where it is not known.
    fn remaining_ratio(&self, now: Moment, limit_config: LimitConfig) -> f64 {
        let remaining = self.remaining(now, limit_config);
        let left = remaining.and_then(|remaining| share(remaining, self.limit.or(limit_config.limit)?));
        left.unwrap_or(if remaining == Some(0) { 0.0 } else { f64::MAX })
    }

    fn forecast(&self, now: Moment, limit_config: LimitConfig) -> Option<Duration> {
        let (window, sample) = (self.timeline.current()?, self.live(now, limit_config)?);
        let pace = Pace {
            at: sample.at,
            start: window.start,
            end: window.end,
            limit: self.limit.or(limit_config.limit)?,
            remaining: self.remaining(now, limit_config)?,
        };
        pace.to_exhaustion(now)
    }

    /// Whether nothing of this budget matters any more.
    fn is_over(&self, now: Moment, limit_config: LimitConfig) -> bool {
        self.timeline.is_idle() && !self.is_blocked(now) && self.live(now, limit_config).is_none()
    }
}

/// Share of the limit that is left; `None` where there is no limit to have a share of.
fn share(remaining: u64, limit: u64) -> Option<f64> {
    match limit {
        0 => (remaining == 0).then_some(0.0),
        // Division of exact integers: 10 of 100 is exactly the threshold 0.1, and not below it.
        limit => Some(remaining as f64 / limit as f64),
    }
}

fn used_of_left(left: f64) -> f64 {
    (1.0 - left).max(0.0)
}
