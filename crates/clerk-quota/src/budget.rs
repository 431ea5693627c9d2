//! The budget of one instance, user, organization or membership.

mod others;

use std::time::Duration;

use super::forecast::{Pace, sliding_exhaustion};
use super::latest_report::LatestReport;
use super::snapshot::Basis;
use super::usage_log::{LATE_ARRIVAL, UsageLog, weighed};
use super::window::Statement;
use super::windows::{GRACE, Reset, ResetStatement, Timeline, Window, WindowPosition};
use super::{HeaderError, Moment, Observation};
use others::Fleet;

/// A fleet log older than this, or than half a window if that is shorter, is too old to use.
const FLEET_MAX_AGE: Duration = Duration::from_secs(30);

/// The configured limit of a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LimitConfig {
    /// Requests per window, until the server reports a limit.
    pub limit: Option<u64>,
    /// Whether `limit` is Clerk's documented limit and not a configured one.
    pub is_documented: bool,
    /// Length of the window, until the server reports one.
    pub window: Duration,
    /// Windows that end with a smaller share of the limit than this are low.
    pub low_threshold: f64,
    /// Age after which a value is no longer shown.
    pub stale_after: Duration,
}

/// What a budget needs to know about its instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Context {
    pub config: LimitConfig,
    /// Who counts the requests; `None` if the count does not cover all use: only probes, or a part of the requests.
    pub counted_by: Option<Basis>,
    /// Whether other processes use the instance and write to a shared log.
    pub is_fleet: bool,
    /// Whether all requests of the applications are counted, here or in the shared log.
    pub is_whole: bool,
    /// When counting started.
    pub since: Moment,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub enum AttemptEnd<'a> {
    /// A response arrived.
    Answered(&'a Observation),
    /// No response arrived, or the caller stopped waiting: Clerk may have counted the request.
    Unanswered,
    /// The request was certainly not sent.
    NotSent,
}

/// The window and position at which a request was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    pub started: Moment,
    window: u64,
    ordinal: u64,
}

impl Begun {
    /// Creates the value for a request that uses no window: its bucket has no limit, or the window is already closed.
    pub(super) const fn uncounted(started: Moment) -> Self {
        Self { started, window: 0, ordinal: 0 }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Budget {
    pub timeline: Timeline,
    usage: UsageLog,
    latest_report: LatestReport,
    /// Start of the newest request.
    last_started: Moment,
    /// The limit and window length that the server reported.
    pub limit: Option<u64>,
    window: Option<Duration>,
    pub latest: Option<Sample>,
    pub blocked_until: Option<Moment>,
    /// When a 429 last set `blocked_until`.
    blocked_at: Option<Moment>,
    fleet: Option<Fleet>,
}

/// The newest value of a budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub at: Moment,
    /// Remaining requests that the server reported, and the window they belong to.
    remaining: Option<u64>,
    window: u64,
    pub reset_at: Option<Moment>,
    pub from_headers: bool,
    /// Set for a 429: its value expires when it allows the next request.
    dies_at: Option<Moment>,
}

impl Budget {
    /// Counts a request that is being sent. Returns the usage ratio including it, if known.
    pub(super) fn begin(
        &mut self,
        at: Moment,
        context: &Context,
        close: &mut impl FnMut(&Self, &Window),
    ) -> (Begun, Option<f64>) {
        let length = self.length(context.config);
        self.usage.start(at, length);
        self.latest_report.begin(at);
        self.last_started = self.last_started.max(at);
        let begun = match self.place(at, None, context, close) {
            WindowPosition::Closed => Begun::uncounted(at),
            place => {
                let stretch = self.timeline.slides().then(|| self.usage.started(at.before(length), at) + 1);
                let window = self.timeline.window_mut(place);
                window.map_or(Begun::uncounted(at), |window| {
                    window.most_in_stretch = window.most_in_stretch.max(stretch.unwrap_or_default());
                    Begun { started: at, window: window.number, ordinal: window.begin(at) }
                })
            }
        };
        let is_named = self.live(at, context.config).is_some_and(|sample| sample.from_headers);
        let used = (!is_named).then(|| self.counted_ratio(at, context)).flatten();
        (begun, used)
    }

    /// Adds a request from before this process started.
    pub(super) fn restore(&mut self, started: Moment, ended: Moment, config: LimitConfig) {
        let length = self.length(config);
        self.usage.restore(started, ended, length);
    }

    /// Ends a request. Returns the usage ratio after it, if the response reports it.
    pub(super) fn end(
        &mut self,
        begun: Begun,
        at: Moment,
        end: AttemptEnd<'_>,
        is_informative: bool,
        context: &Context,
        close: &mut impl FnMut(&Self, &Window),
    ) -> Option<f64> {
        // Whether a late response finds its window open must not depend on when the numbers are read.
        self.advance(at, close);
        let length = self.length(context.config);
        let is_counted = match end {
            AttemptEnd::NotSent => false,
            AttemptEnd::Unanswered => true,
            // A response from an intermediate cache: the request did not reach Clerk.
            AttemptEnd::Answered(observation) => {
                observation.is_counted() && !observation.quota.errors.contains(HeaderError::Stale)
            }
        };
        if is_counted {
            match end {
                AttemptEnd::Unanswered => self.usage.end_unanswered(at, length),
                _ => self.usage.end(at, length),
            }
        } else {
            self.usage.refund(begun.started);
            self.latest_report.refund(begun.started);
        }
        let (used, placed) = match end {
            AttemptEnd::Answered(observation) if is_informative => self.respond(begun, observation, context, close),
            _ => (None, None),
        };
        // Requests whose responses report nothing still use quota, if requests are counted.
        let is_use = context.counted_by.is_some()
            && !matches!(end, AttemptEnd::Answered(observation) if observation.quota.dialect.is_some());
        let is_stated =
            is_informative && matches!(end, AttemptEnd::Answered(observation) if observation.quota.remaining.is_some());
        if let Some(window) = self.timeline.numbered(begun.window) {
            window.end_request();
            if !is_counted || (is_stated && placed != Some(begun.window)) {
                window.refund(begun.ordinal);
            } else if !is_stated {
                window.end_unstated();
                if is_use {
                    window.see(begun.started);
                }
            }
        }
        if matches!(end, AttemptEnd::Unanswered) && self.latest.is_none_or(|latest| latest.dies_at.is_none()) {
            // The request was counted, so the count is as new as this request although no response came.
            let from_headers = self.live(at, context.config).is_some_and(|sample| sample.from_headers);
            if !from_headers {
                let window = self.timeline.current().map_or(0, |window| window.number);
                self.latest = Some(Sample { at, remaining: None, window, reset_at: None, from_headers, dies_at: None });
            }
        }
        used
    }

    /// Processes a response. Returns the usage ratio after it and the number of its window.
    fn respond(
        &mut self,
        begun: Begun,
        observation: &Observation,
        context: &Context,
        close: &mut impl FnMut(&Self, &Window),
    ) -> (Option<f64>, Option<u64>) {
        let (at, quota) = (observation.at, &observation.quota);
        self.limit = quota.limit.or(self.limit);
        self.window = quota.window.or(self.window);
        if let Some(remaining) = quota.remaining {
            self.latest_report.report(begun.started, remaining);
        }
        let reset = quota.reset.map(|after| Reset { after, resolution: quota.reset_resolution });
        let is_named = quota.limit.is_some() || quota.remaining.is_some() || reset.is_some();
        let statement = reset.map(|reset| ResetStatement {
            reset,
            remaining: quota.remaining,
            limit: quota.limit.or(self.limit),
            started: begun.started,
        });
        // A request belongs to the window in which it was started, unless the server names another one.
        let is_open = self.timeline.numbered(begun.window).is_some();
        let placed_at = if statement.is_none() && is_open { begun.started } else { at };
        let place = self.place(placed_at, statement, context, close);
        let (limit, length) = (self.limit.or(context.config.limit), self.length(context.config));
        let known = self.timeline.window_mut(place).and_then(|window| window.evidence).map(|evidence| evidence.others);
        let evidence = self.evidence(begun, observation, limit, length, context, known);
        // The server may name a later window than the one in which the request was counted.
        let is_later = self.timeline.window_mut(place).is_some_and(|window| window.number > begun.window);
        let unreported = if is_later { self.unreported_after(begun) } else { 0 };
        // A rejection blocks, whichever window it belongs to.
        let window_end = self.timeline.window_mut(place).map_or_else(|| at.after(length), |window| window.end);
        let until = self.block(observation, window_end);
        let dies_at = until.map(|until| until.max(quota.reset.map_or(until, |reset| at.after(reset))));
        let Some(window) = self.timeline.window_mut(place) else {
            // The window is already closed, but the value was true when it was sent.
            let left = quota.remaining.zip(limit).and_then(|(remaining, limit)| share(remaining, limit));
            return (left.map(used_of_left), None);
        };
        window.see(at);
        window.throttled |= observation.is_throttled();
        if let Some(evidence) = evidence {
            window.add_evidence(evidence);
        }
        if let Some(remaining) = quota.remaining {
            // The value was true at some time since the request was sent.
            let took = at.since(begun.started);
            let end = reset.map(|reset| (at.after(reset.after), reset.resolution.saturating_add(took)));
            let (ordinal, unreported) = if window.number == begun.window {
                (begun.ordinal, 0)
            } else {
                // The server names another window than the one in which the request was counted.
                window.counted += u64::from(observation.is_counted());
                (0, unreported)
            };
            let sure_end = reset.map(|reset| begun.started.after(reset.after).before(reset.resolution));
            let statement = Statement { at, remaining, limit: quota.limit, end, sure_end, unreported };
            window.report(&statement, ordinal);
        }
        let (number, left) = (window.number, window.left());
        // Requests are served again despite the 429. Requests that were in flight at the 429 do not count as evidence.
        if observation.is_served() && self.blocked_at.is_some_and(|blocked| at >= blocked.after(GRACE)) {
            self.blocked_until = None;
            self.blocked_at = None;
        }
        let is_named = is_named
            || observation.is_throttled() && self.live(at, context.config).is_some_and(|sample| sample.from_headers);
        // The reported value stays valid when a route's response reports nothing.
        let reported =
            self.live(at, context.config).filter(|sample| sample.from_headers && !is_named && dies_at.is_none());
        if place == WindowPosition::Current && reported.is_none() && self.latest.is_none_or(|latest| latest.at <= at) {
            let reset_at = quota.reset.map(|reset| at.after(reset));
            let remaining = if observation.is_throttled() { Some(0) } else { left };
            self.latest = Some(Sample { at, remaining, window: number, reset_at, from_headers: is_named, dies_at });
        }
        let left = left.into_iter().chain(quota.remaining).min();
        let remaining = if observation.is_throttled() { Some(0) } else { quota.remaining.and(left) };
        // A rejection means full use, but only where the use is known.
        let is_known = is_named || context.counted_by.is_some();
        let left = remaining.zip(limit).filter(|_| is_known).and_then(|(remaining, limit)| share(remaining, limit));
        (left.map(used_of_left), Some(number))
    }

    /// Returns the requests of its window that were sent after this one and not reported on.
    fn unreported_after(&mut self, begun: Begun) -> u64 {
        self.timeline.numbered(begun.window).map_or(0, |window| window.unreported_after(begun.ordinal))
    }

    /// Blocks until the time that a rejection names, else until `window_end`. Returns that time.
    fn block(&mut self, observation: &Observation, window_end: Moment) -> Option<Moment> {
        if !observation.is_throttled() {
            return None;
        }
        let (at, quota) = (observation.at, &observation.quota);
        let until = quota.retry_after.or(quota.reset).map_or(window_end, |wait| at.after(wait));
        self.blocked_until = self.blocked_until.max(Some(until));
        self.blocked_at = self.blocked_at.max(Some(at));
        Some(until)
    }

    fn place(
        &mut self,
        at: Moment,
        statement: Option<ResetStatement>,
        context: &Context,
        close: &mut impl FnMut(&Self, &Window),
    ) -> WindowPosition {
        let nominal = self.window.unwrap_or(context.config.window);
        self.closing(close, |timeline, closed| {
            timeline.place(at, statement, nominal, &mut |window| closed.push(window.clone()))
        })
    }

    /// Closes the windows that are over.
    pub(super) fn advance(&mut self, now: Moment, close: &mut impl FnMut(&Self, &Window)) {
        self.closing(close, |timeline, closed| timeline.advance(now, &mut |window| closed.push(window.clone())));
    }

    /// Closes all open windows, whatever the time.
    pub(super) fn close_all(&mut self, close: &mut impl FnMut(&Self, &Window)) {
        self.closing(close, |timeline, closed| timeline.close_all(&mut |window| closed.push(window.clone())));
    }

    /// Runs `work` on the timeline and passes each window that it closed to `close`.
    fn closing<T>(
        &mut self,
        close: &mut impl FnMut(&Self, &Window),
        work: impl FnOnce(&mut Timeline, &mut Vec<Window>) -> T,
    ) -> T {
        let mut closed = Vec::new();
        let done = work(&mut self.timeline, &mut closed);
        closed.iter().for_each(|window| close(self, window));
        done
    }

    pub(super) fn length(&self, config: LimitConfig) -> Duration {
        self.timeline.length(self.window.unwrap_or(config.window))
    }

    /// Returns the newest value, unless it is stale.
    pub(super) fn recent(&self, now: Moment, config: LimitConfig) -> Option<&Sample> {
        let keep = config.stale_after.max(self.length(config));
        self.latest.as_ref().filter(|sample| now.since(sample.at) <= keep)
    }

    /// Returns the newest value, unless it is stale or expired.
    pub(super) fn live(&self, now: Moment, config: LimitConfig) -> Option<&Sample> {
        self.recent(now, config).filter(|sample| sample.dies_at.is_none_or(|end| now < end))
    }

    pub(super) fn is_blocked(&self, now: Moment) -> bool {
        self.blocked_until.is_some_and(|until| until > now)
    }

    /// Returns where the numbers come from, if there are any.
    pub(super) fn basis(&self, now: Moment, context: &Context) -> Option<Basis> {
        match self.recent(now, context.config) {
            Some(sample) if sample.from_headers => Some(Basis::Headers),
            Some(_) if self.counts(now, context) => context.counted_by,
            Some(_) => Some(Basis::Probe),
            None => None,
        }
    }

    /// Returns whether the count covers a whole window and everyone who shares the instance.
    fn counts(&self, now: Moment, context: &Context) -> bool {
        let is_complete = !context.is_fleet
            || self
                .fleet
                .as_ref()
                .is_some_and(|fleet| now.since(fleet.at) <= FLEET_MAX_AGE.min(self.length(context.config) / 2));
        context.counted_by.is_some() && is_complete && now >= context.since.after(self.length(context.config))
    }

    /// Returns the requests that may be used, of all that are counted.
    fn counted_used(&self, now: Moment, context: &Context) -> u64 {
        let length = self.length(context.config);
        let fleet = self.fleet.as_ref().filter(|_| context.is_fleet);
        let theirs = fleet.map_or(0, |fleet| fleet.used_by_others);
        let used = self.usage.used(now, length) + theirs;
        if !self.timeline.is_sliding_counter() {
            return used;
        }
        // A sliding counter also weighs a part of the previous window.
        let start = now.rounded_down(length);
        let weight = start.after(length).since(now);
        let before = start.before(length)..now.before(length);
        let theirs_before = fleet.map_or(0, |fleet| {
            let inside = |(begin, end, _): &&(Moment, Moment, u64)| *end > before.start && *begin < before.end;
            let all: u64 = fleet.starts.iter().filter(inside).map(|(_, _, requests)| requests).sum();
            all.saturating_sub(self.usage.started(before.start, before.end))
        });
        let theirs = theirs + weighed(theirs_before, weight, length);
        used.max(self.usage.used_by_counter(now, length, start, weight) + theirs)
    }

    fn counted_ratio(&self, now: Moment, context: &Context) -> Option<f64> {
        let limit = self.limit.or(context.config.limit).filter(|_| self.counts(now, context))?;
        share(limit.saturating_sub(self.counted_used(now, context)), limit).map(used_of_left)
    }

    /// Returns the remaining requests.
    pub(super) fn remaining(&self, now: Moment, context: &Context) -> Option<u64> {
        let knows = self.basis(now, context).is_some_and(Basis::knows_use);
        if self.is_blocked(now) {
            return knows.then_some(0);
        }
        let sample = self.live(now, context.config)?;
        if !sample.from_headers {
            let limit = self.limit.or(context.config.limit).filter(|_| self.counts(now, context))?;
            return Some(limit.saturating_sub(self.counted_used(now, context)));
        }
        let left = match self.timeline.current() {
            Some(window) if window.number == sample.window => window.left().or(sample.remaining)?,
            current => {
                // The report is about an earlier window. Requests sent since then may be used and are not in it.
                let reported = self.timeline.previous().filter(|window| window.number == sample.window);
                let reported = reported.and_then(Window::left).or(sample.remaining)?;
                let since = current.filter(|window| window.number > sample.window).map_or(0, |window| window.counted);
                let used = self.usage.used(now, self.length(context.config));
                let counted = self.limit.or(context.config.limit).map_or(reported, |limit| limit.saturating_sub(used));
                reported.saturating_sub(since).min(counted)
            }
        };
        // A request is counted some time after it was sent, and a sliding counter remembers one more window.
        let length = self.length(context.config);
        let longer = if self.timeline.may_be_sliding_counter() { length } else { LATE_ARRIVAL };
        let newest = self.latest_report.left(now, length.saturating_add(longer));
        Some(newest.map_or(left, |newest| newest.min(left)))
    }

    /// Returns the remaining share of the limit for comparing budgets; `f64::MAX` if it is not known.
    pub(super) fn remaining_ratio(&self, now: Moment, context: &Context) -> f64 {
        let remaining = self.remaining(now, context);
        let left = remaining.and_then(|remaining| share(remaining, self.limit.or(context.config.limit)?));
        left.unwrap_or(if remaining == Some(0) || self.is_blocked(now) { 0.0 } else { f64::MAX })
    }

    pub(super) fn forecast(&self, now: Moment, context: &Context) -> Option<Duration> {
        let sample = self.live(now, context.config)?;
        let limit = self.limit.or(context.config.limit)?;
        let remaining = self.remaining(now, context)?;
        if !sample.from_headers && !self.is_blocked(now) {
            let window = self.length(context.config);
            let used = self.counted_used(now, context);
            return sliding_exhaustion(&self.usage, now, window, limit, used);
        }
        let window = self.timeline.current()?;
        // Requests sent since the newest report are used, too.
        let at = sample.at.max(self.last_started).min(now);
        Pace { at, start: window.start, end: window.end, limit, remaining }.to_exhaustion(now)
    }

    /// Returns whether the budget can be dropped.
    pub(super) fn is_over(&self, now: Moment, context: &Context) -> bool {
        self.timeline.is_idle()
            && !self.is_blocked(now)
            && self.live(now, context.config).is_none()
            && self.usage.is_over(now, self.length(context.config))
    }
}

/// Returns the remaining share of the limit; `None` for a limit of 0 with requests left.
pub(super) fn share(remaining: u64, limit: u64) -> Option<f64> {
    match limit {
        0 => (remaining == 0).then_some(0.0),
        // Division of exact integers: 10 of 100 is exactly the threshold 0.1, not below it.
        limit => Some(remaining as f64 / limit as f64),
    }
}

pub(super) fn used_of_left(left: f64) -> f64 {
    (1.0 - left).max(0.0)
}
