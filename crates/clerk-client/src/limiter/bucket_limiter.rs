//! When the next request of one bucket may leave. Pure: time and randomness are passed in.
//!
//! How Clerk counts is unknown, so a request must pass all of these:
//!
//! 1. **Our own log**: at most the limit in any period of one window. That alone is safe for fixed windows, sliding
//!    windows and token buckets, if no other client uses the bucket. A sliding counter has a rule of its own
//!    (`sliding_counter`). As long as the server may be one, both rules hold, and what only the log allows leaves one
//!    at a time (`counting_kind`).
//! 2. **The server quota**, if the server sends it: at most the remaining quota, which includes other clients' use.
//! 3. **The AIMD limit**: after a 429 we leave quota to others.
//! 4. **The block** after a 429. When it ends, one request goes ahead (half-open); the others follow once it has
//!    succeeded.
//!
//! Capacity is released with random jitter, and after a block or an exhausted window requests leave one after another,
//! so that neither our waiters nor several processes return in step.

use std::time::Duration;

use super::aimd::AimdLimit;
use super::counting_kind::{Counting, CountingKind};
use super::distributed::{Room, Taken};
use super::server_quota::{QuotaStatement, ServerQuota};
use super::sliding_counter::SlidingCounterModel;
use super::window_log::WindowLog;
use clerk_quota::window_kind::{Reset, WindowKindDetector};
use clerk_quota::{HeaderError, Moment, Observation};

/// Maximum jitter: this part of a window, and at most this time.
const LATE: u32 = 50;
const LATEST: Duration = Duration::from_secs(1);

/// Bounds of a block; the upper one is a window if that is longer. Servers do send `Retry-After: 0` and absurd values.
const SHORTEST_HOLD: Duration = Duration::from_millis(100);
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(300);

/// Block after a 429 that names no time.
pub(super) const NAMELESS_HOLD: Duration = Duration::from_secs(1);

/// While a request explores, others retry after this part of a window at the latest.
const LOOK_AGAIN: u32 = 64;

/// A reset of up to this many documented windows is accepted as the window's length.
const LONGEST_WINDOWS: u32 = 10;

/// What is known of a bucket before the server sends anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitConfig {
    /// Requests per window.
    pub(super) limit: Option<u64>,
    pub(super) window: Duration,
}

/// A part of the limit, with its end if known.
#[derive(Debug, Clone, Copy)]
struct LocalShare {
    part: f64,
    until: Option<Moment>,
    /// Upper bound for the first window: this process' use at the last contact plus its part of the unused quota,
    /// because what others used then still counts.
    at_first: (u64, Moment),
}

/// Whether a request may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Now,
    /// Not before this moment.
    At(Moment),
    /// Not before a response to a request in flight.
    OnAnswer,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending<'a> {
    /// A response arrived.
    Answered(&'a Observation),
    /// It was not sent.
    Unsent,
    /// Unknown: the server may have counted it.
    Lost,
}

#[derive(Debug, Clone)]
pub(super) struct BucketLimiter {
    limit_config: LimitConfig,
    /// The server's own limit and window, once it has sent them.
    limit: Option<u64>,
    window: Option<Duration>,
    resets: WindowKindDetector,
    log: WindowLog,
    counter: SlidingCounterModel,
    /// Known for the whole instance; the queue keeps all buckets in sync.
    counting: Counting,
    /// Whether other processes, which this log does not contain, share the bucket; and their number including this one.
    is_shared: bool,
    processes: u64,
    /// Last known number of 429s of all processes.
    throttled: Option<u64>,
    /// This process' part of the unused quota at the last contact.
    unused: Option<u64>,
    /// The part of the limit that this process may use while the distributed limiter is unreachable.
    local_share: Option<LocalShare>,
    server_quota: Option<ServerQuota>,
    aimd: Option<AimdLimit>,
    blocked_until: Moment,
    /// Whether one request must succeed before others follow.
    half_open: bool,
    /// Until then, requests leave one after another.
    spread_until: Moment,
    next_at: Moment,
}

impl BucketLimiter {
    pub(super) fn new(limit_config: LimitConfig) -> Self {
        Self {
            limit_config,
            limit: None,
            window: None,
            resets: WindowKindDetector::default(),
            log: WindowLog::default(),
            counter: SlidingCounterModel::default(),
            counting: Counting::default(),
            is_shared: false,
            processes: 1,
            throttled: None,
            unused: None,
            local_share: None,
            server_quota: None,
            aimd: None,
            blocked_until: Moment::default(),
            half_open: false,
            spread_until: Moment::default(),
            next_at: Moment::default(),
        }
    }

    pub(super) const fn set_limit_config(&mut self, limit_config: LimitConfig) {
        self.limit_config = limit_config;
    }

    pub(super) const fn set_shared(&mut self, is_shared: bool) {
        self.is_shared = is_shared;
    }

    /// Applies the state of the distributed log. A new 429 lowers the limit here, too.
    pub(super) fn apply_shared_state(&mut self, &Taken { processes, throttled, used, .. }: &Taken, now: Moment) {
        self.processes = processes;
        self.unused = self.known_limit().map(|limit| limit.saturating_sub(used).div_ceil(processes.max(1)));
        let is_new = self.throttled.replace(throttled).is_some_and(|before| before < throttled);
        let recently = now.before(self.window() / 2);
        if is_new && self.aimd.is_none_or(|aimd| aimd.is_known_at(recently)) {
            self.aimd = Some(AimdLimit::cut(self.log.used(), self.processes, self.known_limit(), now));
        }
    }

    /// Copies what another limiter knows of the server, but not its use.
    pub(super) fn adopt(&mut self, known: &Self) {
        (self.limit, self.window) = (known.limit, known.window);
        self.resets = known.resets.clone();
    }

    pub(super) const fn counting(&self) -> Counting {
        self.counting
    }

    pub(super) const fn set_counting(&mut self, counting: Counting) {
        self.counting = counting;
    }

    /// The distributed limiter is unreachable: use a part of the limit.
    pub(super) fn use_local_share(&mut self, part: f64, now: Moment) {
        self.settle(now);
        let window = self.window();
        let ours = self.counter.ended_within(now, window);
        let at_first = (self.unused.map_or(u64::MAX, |unused| ours + unused), now.after(window));
        self.local_share = Some(LocalShare { part, until: None, at_first });
    }

    /// The distributed limiter is reachable again. Its log lacks the use meanwhile, so the share stays for a window.
    pub(super) fn leave_local_share(&mut self, now: Moment) {
        let until = now.after(self.window());
        if let Some(share) = &mut self.local_share {
            share.until.get_or_insert(until);
        }
    }

    /// What all processes together may use, leaving a share of `reserve` of the limit.
    pub(super) fn room(&self, reserve: f64) -> Option<Room> {
        let limit = self.known_limit()?;
        let requests = limit.saturating_sub(self.reserved(reserve)).max(1);
        Some(Room { requests, window: self.window(), may_explore: requests == limit })
    }

    /// Whether a request may leave at `now` after `ahead` others, leaving a share of `reserve` of the limit. A returned
    /// moment is a lower bound.
    pub(super) fn admit(&mut self, now: Moment, ahead: u64, reserve: f64) -> Admission {
        self.settle(now);
        if now < self.blocked_until {
            return Admission::At(self.blocked_until);
        }
        if self.half_open && self.log.in_flight() > 0 {
            return Admission::OnAnswer;
        }
        if now < self.spread_until && now < self.next_at {
            return Admission::At(self.next_at);
        }
        let reserved = self.reserved(reserve);
        if let Some(cap) = self.cap(now) {
            let at = self.room_at(now, ahead, cap.saturating_sub(reserved).max(1));
            if let Some(at) = at {
                return Admission::At(at);
            }
        }
        self.apply_server_quota(now, reserved)
    }

    /// When one more request after `ahead` others may leave by our own log; `None` for now.
    fn room_at(&self, now: Moment, ahead: u64, cap: u64) -> Option<Moment> {
        let window = self.window();
        let by_log = || {
            let over = (self.log.used() + ahead + 1).saturating_sub(cap);
            (over > 0).then(|| self.log.returned_at(over, now, window))
        };
        let by_counter = || self.counter.room_at((ahead + 1, self.log.in_flight()), cap, now, window);
        // What only the log allows leaves alone. When a counter would allow it matters only until the next look.
        let alone = || {
            let others = Some(self.log.in_flight()).filter(|others| *others > 0)?;
            let part = 1.0 / f64::from(LOOK_AGAIN);
            let room = self.counter.room_within((ahead + 1, others), cap, now, window, part);
            room.map(|at| at.min(now.after(window / LOOK_AGAIN)))
        };
        match self.counting.kind {
            CountingKind::Exact => by_log(),
            CountingKind::SlidingCounter => by_counter(),
            CountingKind::Unknown if self.counting.may_explore(now) && self.known_limit() == Some(cap) => {
                by_log().or_else(alone)
            }
            CountingKind::Unknown => by_log().max(by_counter()),
        }
    }

    /// Whether a request that leaves now exceeds the safe rate of a sliding counter, but not the log.
    fn explores(&self, now: Moment) -> bool {
        let Some(limit) = self.known_limit().filter(|limit| self.log.used() < *limit) else { return false };
        let is_alone = self.log.in_flight() == 0 && !self.is_shared;
        is_alone && self.counting.may_explore(now) && self.counter.room_at((1, 0), limit, now, self.window()).is_some()
    }

    /// Whether the server quota lets a request leave.
    fn apply_server_quota(&self, now: Moment, reserved: u64) -> Admission {
        let Some(server_quota) = &self.server_quota else { return Admission::Now };
        let rolling = self.resets.is_rolling();
        // A sliding counter returns quota within its windows, so the remaining quota does not show when the next
        // request may leave.
        if self.counting.kind == CountingKind::SlidingCounter && !rolling {
            return Admission::Now;
        }
        if server_quota.available(rolling) > reserved || !(rolling || server_quota.has_other_users()) {
            return Admission::Now;
        }
        if !rolling {
            return Admission::At(server_quota.until);
        }
        if now >= server_quota.until {
            return if self.log.in_flight() == 0 { Admission::Now } else { Admission::OnAnswer };
        }
        // A sliding window returns quota after a window; resets in whole seconds are too coarse for that.
        let next = self.log.returned_at(1, now, self.window());
        Admission::At(next.min(server_quota.until))
    }

    /// A request leaves. `random` is from 0 to 1. Returns whether its response reveals how the server counts.
    pub(super) fn begin(&mut self, now: Moment, random: f64) -> bool {
        let explores = self.explores(now);
        self.log.begin();
        if let Some(server_quota) = &mut self.server_quota {
            server_quota.consume();
        }
        if now < self.spread_until {
            // Four times the average rate, plus or minus half.
            let requests = self.cap(now).unwrap_or(100).max(1);
            let apart = self.window().div_f64(requests as f64 * 4.0);
            self.next_at = now.after(apart.mul_f64(0.5 + random));
        }
        explores
    }

    /// The response head of a request sent at `sent` arrived, or none will. `explores` is from [`begin`](Self::begin)
    /// or the distributed log.
    pub(super) fn end(&mut self, ending: Ending<'_>, (sent, explores): (Moment, bool), now: Moment, random: f64) {
        self.settle(now);
        match ending {
            Ending::Unsent => {
                self.log.refund();
                if let Some(server_quota) = &mut self.server_quota {
                    server_quota.refund();
                }
            }
            Ending::Answered(observation) if observation.is_throttled() => {
                self.log.refund();
                self.apply_throttling(observation, (sent, explores), random);
                self.learn(observation, false);
            }
            Ending::Answered(observation) => {
                self.spend(sent, now, random);
                if explores && !self.is_shared {
                    self.learn_from_success(now);
                }
                if sent >= self.blocked_until {
                    self.half_open = false;
                }
                self.learn(observation, true);
            }
            Ending::Lost => self.spend(sent, now, random),
        }
    }

    /// Counts an ended request of a previous process. Without jitter, since its end is known.
    pub(super) fn restore(&mut self, (started, ended): (Moment, Moment), now: Moment) {
        self.settle(now);
        let window = self.window();
        if ended.after(window * 2) > now {
            self.counter.push(started, ended, window);
        }
        if ended.after(window) > now {
            self.log.begin();
            self.log.spend(ended, window);
        }
    }

    fn spend(&mut self, sent: Moment, now: Moment, random: f64) {
        let window = self.window();
        self.log.spend(now.after(self.jitter(random)), window);
        self.counter.push(sent, now, window);
    }

    /// A request that explored was accepted; a sliding counter might have rejected it.
    fn learn_from_success(&mut self, now: Moment) {
        let limit = self.known_limit().unwrap_or(u64::MAX);
        if self.counting.may_explore(now) && self.counter.is_refuted(limit, now, self.window()) {
            self.counting.rule_out_counter();
        }
    }

    /// Applies a response to a request of another client.
    pub(super) fn observe(&mut self, observation: &Observation, random: f64) {
        self.settle(observation.at);
        if observation.is_throttled() {
            self.apply_throttling(observation, (observation.at, false), random);
        }
        self.learn(observation, false);
    }

    /// Whether this limiter can be dropped without losing anything.
    pub(super) fn is_idle(&mut self, now: Moment) -> bool {
        self.settle(now);
        let is_empty = self.log.is_empty() && self.counter.is_empty(now, self.window());
        is_empty && now >= self.blocked_until && self.server_quota.is_none()
    }

    fn settle(&mut self, now: Moment) {
        let window = self.window();
        let returned = self.log.settle(now, window);
        self.counter.settle(now, window);
        let rolling = self.resets.is_rolling();
        if let Some(server_quota) = &mut self.server_quota {
            server_quota.add_returned(returned);
            let over = if rolling { server_quota.until.max(server_quota.at.after(window)) } else { server_quota.until };
            if now >= over {
                if server_quota.available(rolling) == 0 {
                    self.spread_until = over.after(window / 4);
                }
                self.server_quota = None;
            }
        }
    }

    /// `counted`: the response belongs to one of our requests and was counted.
    fn learn(&mut self, observation: &Observation, counted: bool) {
        let (at, quota) = (observation.at, &observation.quota);
        if !observation.usable || quota.errors.contains(HeaderError::Stale) {
            return;
        }
        self.limit = quota.limit.filter(|limit| *limit > 0).or(self.limit);
        self.window = quota.window.filter(|window| !window.is_zero()).or(self.window);
        if let Some(after) = quota.reset {
            self.resets.watch(at, Reset { after, resolution: quota.reset_resolution });
        }
        let Some(remaining) = quota.remaining else { return };
        if self.server_quota.is_some_and(|server_quota| at < server_quota.at) {
            return;
        }
        let in_flight = self.log.in_flight();
        let is_explained = self.explains(remaining, at);
        let statement = QuotaStatement {
            at,
            remaining,
            limit: self.limit,
            reset: quota.reset.map(|reset| reset.min(self.longest_hold())),
            counted,
            in_flight,
            over: self.log.used() - in_flight,
        };
        let mut merged = ServerQuota::merge(self.server_quota, statement, self.resets.is_rolling(), self.window());
        if is_explained {
            merged.set_all_ours();
        }
        self.server_quota = Some(merged);
    }

    /// Whether a sliding counter without other clients explains such a low remaining quota.
    fn explains(&self, remaining: u64, at: Moment) -> bool {
        let may_be_ours = |used: u64| self.counter.may_reach(used, self.log.in_flight(), at, self.window());
        let is_ours = |limit: u64| self.is_shared || may_be_ours(limit.saturating_sub(remaining));
        self.counting.may_be_counter(at) && self.known_limit().is_some_and(is_ours)
    }

    fn apply_throttling(&mut self, observation: &Observation, (sent, explores): (Moment, bool), random: f64) {
        let quota = &observation.quota;
        let named = quota.retry_after.or(quota.reset).unwrap_or(NAMELESS_HOLD);
        let wait = named.clamp(SHORTEST_HOLD, self.longest_hold());
        self.blocked_until = self.blocked_until.max(observation.at.after(wait + self.jitter(random)));
        self.spread_until = self.blocked_until.after(self.window() / 4);
        self.half_open = true;
        if explores && self.counting.may_explore(observation.at) {
            // The request explored: all other kinds would have accepted it.
            self.counting.recognise_counter();
            return;
        }
        self.counting.doubt(observation.at, self.window());
        self.counter.clear_refuted();
        if self.aimd.is_none_or(|aimd| aimd.is_known_at(sent)) {
            self.aimd = Some(AimdLimit::cut(self.log.used(), self.processes, self.known_limit(), observation.at));
        }
    }

    /// Upper bound of a block, whatever the server sends.
    fn longest_hold(&self) -> Duration {
        LONGEST_HOLD.max(self.window())
    }

    /// Random delay of returning quota.
    pub(super) fn jitter(&self, random: f64) -> Duration {
        (self.window() / LATE).min(LATEST).mul_f64(random.clamp(0.0, 1.0))
    }

    pub(super) fn known_limit(&self) -> Option<u64> {
        self.limit.or(self.limit_config.limit)
    }

    /// Requests that may leave per window.
    pub(super) fn limit_at(&mut self, now: Moment) -> Option<u64> {
        self.settle(now);
        self.cap(now)
    }

    /// Requests allowed per window.
    fn cap(&self, now: Moment) -> Option<u64> {
        let limit = self.known_limit();
        let aimd = self.aimd.and_then(|aimd| aimd.requests(limit, now, self.window()));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and `as` saturates")]
        let part_of = |limit: u64, LocalShare { part, at_first: (used, until), .. }: LocalShare| {
            let part = (limit as f64 * part) as u64;
            if now < until { part.min(used).max(1) } else { part.max(1) }
        };
        let share = self.local_share.filter(|share| share.until.is_none_or(|until| now < until));
        let limit = limit.map(|limit| share.map_or(limit, |share| part_of(limit, share)));
        aimd.map_or(limit, |aimd| Some(limit.map_or(aimd, |limit| limit.min(aimd))))
    }

    /// Requests of the limit left for others; at most half, so that low priority still proceeds.
    fn reserved(&self, share: f64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and `as` saturates")]
        let requests = (self.known_limit().unwrap_or(0) as f64 * share.clamp(0.0, 0.5)).ceil() as u64;
        requests
    }

    /// Length of the window: the documented or the server's. Longer if resets show that full recovery takes longer, as
    /// with a token bucket whose burst exceeds its limit.
    pub(super) fn window(&self) -> Duration {
        let nominal = self.window.unwrap_or(self.limit_config.window);
        let longest = self.resets.longest().min(self.limit_config.window * LONGEST_WINDOWS);
        if longest > nominal + Duration::from_secs(1) { longest } else { nominal }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod counter_tests;
