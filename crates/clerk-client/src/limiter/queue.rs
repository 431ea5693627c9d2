//! Queues of all buckets, and which request leaves next. Pure: time and randomness are passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::bucket_limiter::{Admission, BucketLimiter, Ending, LimitConfig};
use super::bucket_queue::{Asked, BucketQueue, Earliest, Turn};
use super::counting_kind::Counting;
use super::distributed::Sharing;
use super::lanes::{Head, LaneId};
use super::sender::{Rank, Sender};
use super::shares::{CallerRules, CallerShare, CallerUsage};
use super::{LimiterOptions, LimiterStats, Shed, ShedReason};
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, CallerId, Moment, Observation};

/// Weight of the moving average of the latency, in requests.
const LATENCIES: u32 = 8;

/// Number of buckets above which idle ones are evicted.
const SWEEP_AT: usize = 4096;

/// A bucket and, for buckets per user, organization or membership, its entity.
pub(super) type Key = (Bucket, Option<Entity>);

/// The bucket that callers have shares of.
const INSTANCE: Key = (Bucket::Instance, None);

/// An admitted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    key: Key,
    /// The lane of its caller, if that has a share.
    lane: Option<LaneId>,
    sent: Moment,
    /// Whether its response reveals how the server counts.
    explores: bool,
    /// Its rank, as long as it has to ask the distributed limiter.
    asks: Option<Rank>,
}

impl Grant {
    pub(super) const fn key(&self) -> Key {
        self.key
    }

    pub(super) const fn set_explores(&mut self, explores: bool) {
        self.explores = explores;
    }
}

/// Result of [`Queue::enqueue`].
#[derive(Debug)]
pub(super) enum Enqueued {
    Go(u64, Grant),
    Wait(u64),
    Shed(Shed),
}

/// Result of [`Queue::poll`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Poll {
    Go(Grant),
    /// Poll again at this moment, or when woken.
    Wait(Option<Look>),
}

/// When a waiting request has to poll again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) at: Moment,
    /// Whether it cannot leave earlier.
    pub(super) is_bound: bool,
}

#[derive(Debug)]
pub(super) struct Queue {
    options: LimiterOptions,
    /// Shares in the limit of the instance's bucket.
    shares: Vec<CallerShare>,
    /// Boxed: a map node reserves room for eleven values.
    queues: BTreeMap<Key, Box<BucketQueue>>,
    /// Keys with waiting requests.
    busy: BTreeSet<Key>,
    sweep_at: usize,
    in_flight: usize,
    /// Responses held back by slow readers.
    held: usize,
    waiting: usize,
    next_id: u64,
    /// Granted requests that have not polled since.
    granted: FxHashMap<u64, Grant>,
    stats: LimiterStats,
    rng: fastrand::Rng,
    sharing: Sharing,
    is_shared: bool,
    /// Start of the last time without the distributed limiter.
    local_since: Moment,
    counting: Counting,
    /// Average time in flight of recent requests.
    latency: Option<Duration>,
}

impl Queue {
    pub(super) fn new(options: LimiterOptions, rng: fastrand::Rng) -> Self {
        Self {
            options,
            shares: Vec::new(),
            queues: BTreeMap::new(),
            busy: BTreeSet::new(),
            sweep_at: SWEEP_AT,
            in_flight: 0,
            held: 0,
            waiting: 0,
            next_id: 0,
            granted: FxHashMap::default(),
            stats: LimiterStats::default(),
            rng,
            sharing: Sharing::new(),
            is_shared: false,
            local_since: Moment::default(),
            counting: Counting::default(),
            latency: None,
        }
    }

    /// Sets whether other processes share the limits.
    pub(super) fn shared(self, is_shared: bool) -> Self {
        Self { is_shared, ..self }
    }

    pub(super) fn reconfigure(&mut self, options: LimiterOptions) {
        for (key, bucket_queue) in &mut self.queues {
            bucket_queue.limiter.set_limit_config(limit_config(&options, key.0));
        }
        self.options = options;
    }

    /// Replaces the shares of callers. Returns the ids to wake.
    pub(super) fn set_shares(&mut self, shares: Vec<CallerShare>, now: Moment) -> Vec<u64> {
        if shares != self.shares {
            if let Some(bucket_queue) = self.queues.get_mut(&INSTANCE) {
                bucket_queue.lanes.set_shares(&shares);
            }
            self.shares = shares;
        }
        self.dispatch(now)
    }

    /// The shares in requests, and what callers use.
    pub(super) fn caller_usage(&mut self, now: Moment) -> Vec<CallerUsage> {
        if self.shares.is_empty() {
            return Vec::new();
        }
        let bucket_queue = self.bucket_queue(INSTANCE, now);
        let view = bucket_queue.view(now);
        bucket_queue.lanes.usage(view)
    }

    pub(super) fn caller_rules(&self, caller: CallerId) -> CallerRules {
        let share = self.shares.iter().find(|share| share.caller == caller);
        share.map_or(CallerRules::default(), |share| CallerRules { has_share: true, always_waits: share.always_waits })
    }

    /// Refuses a request of a paused caller.
    pub(super) fn check_paused(&mut self, caller: CallerId, now: Moment) -> Result<(), Shed> {
        let mut paused = self.shares.iter().filter(|share| share.caller == caller);
        let until = paused.find_map(|share| share.paused_until.filter(|until| now < *until));
        until.map_or(Ok(()), |until| {
            Err(self.shed(INSTANCE, Some(caller), (ShedReason::CallerPaused, Some(until)), now))
        })
    }

    /// Adds a request at `now` that waits until `deadline`.
    pub(super) fn enqueue(&mut self, key: Key, sender: Sender, now: Moment, deadline: Moment) -> (Enqueued, Vec<u64>) {
        let id = self.next_id;
        self.next_id += 1;
        // If no other request waits, it does not, either.
        let rank = if self.busy.is_empty() { self.may_leave(key, sender, now) } else { None };
        if let Some(rank) = rank {
            return (Enqueued::Go(id, self.admit(key, (sender, rank), now)), Vec::new());
        }
        self.bucket_queue(key, now).lanes.insert(id, sender);
        self.busy.insert(key);
        self.waiting += 1;
        let to_wake = self.dispatch(now);
        if let Some(grant) = self.granted.remove(&id) {
            return (Enqueued::Go(id, grant), to_wake);
        }
        let earliest = self.earliest(key, sender, now);
        let reason = if earliest.at.is_some_and(|at| at > deadline) {
            Some(earliest.reason)
        } else {
            self.is_full_for(key, sender, now, deadline).then_some(ShedReason::QueueFull)
        };
        let Some(reason) = reason else { return (Enqueued::Wait(id), to_wake) };
        self.remove(key, id);
        (Enqueued::Shed(self.shed(key, sender.caller, (reason, earliest.at), now)), to_wake)
    }

    /// Whether the queue has no place for the request that came last. Each caller with a share has a queue of its own, so
    /// that one at its cap leaves the others theirs; and what is guaranteed always has a place.
    fn is_full_for(&mut self, key: Key, sender: Sender, now: Moment, deadline: Moment) -> bool {
        let of_callers = self.queues.get(&INSTANCE).map_or(0, |bucket_queue| bucket_queue.lanes.len_of_callers());
        let most = self.options.max_queue;
        let Some(bucket_queue) = self.queues.get_mut(&key) else { return false };
        match bucket_queue.lanes.lane(sender.caller) {
            Some(lane) => lane.len() > most as u64 && !bucket_queue.is_guaranteed_by(sender, now, deadline),
            None => self.waiting.saturating_sub(of_callers) > most,
        }
    }

    /// Length of the bucket's window, as far as known.
    pub(super) fn window(&self, key: Key) -> Duration {
        let known = self.queues.get(&key).map(|bucket_queue| bucket_queue.limiter.window());
        known.unwrap_or_else(|| limit_config(&self.options, key.0).window)
    }

    /// Counts a request that was sent before this process started.
    pub(super) fn restore(&mut self, key: Key, sent_and_ended: (Moment, Moment), now: Moment) {
        self.bucket_queue(key, now).limiter.restore(sent_and_ended, now);
    }

    /// How the server counts holds for the whole instance.
    fn set_counting(&mut self, counting: Counting) {
        if std::mem::replace(&mut self.counting, counting) != counting {
            self.queues.values_mut().for_each(|bucket_queue| bucket_queue.limiter.set_counting(counting));
        }
    }

    /// Admits a request at once, whatever the limits.
    pub(super) fn pass(&mut self, key: Key, sender: Sender, now: Moment) -> Grant {
        let random = self.rng.f64();
        let (lane, explores) = self.bucket_queue(key, now).begin(sender, now, random);
        self.in_flight += 1;
        Grant { key, lane, sent: now, explores, asks: None }
    }

    /// Whether a request would have to wait now.
    pub(super) fn would_throttle(&mut self, key: Key, sender: Sender, now: Moment) -> bool {
        self.bucket_queue(key, now).head(now).is_some() || self.may_leave(key, sender, now).is_none()
    }

    /// The rank of a request that may leave now if none waits.
    fn may_leave(&mut self, key: Key, sender: Sender, now: Moment) -> Option<Rank> {
        let options = self.options;
        let has_slot = self.in_flight < options.max_in_flight;
        if has_slot { self.bucket_queue(key, now).admits_first(sender, now, &options) } else { None }
    }

    /// Lets a request leave that may.
    fn admit(&mut self, key: Key, (sender, rank): (Sender, Rank), now: Moment) -> Grant {
        self.stats.admitted[sender.priority.index()] += 1;
        let grant = self.pass(key, sender, now);
        if self.is_shared { self.begin_asking(grant, rank) } else { grant }
    }

    /// State of a waiting request, and the ids to wake.
    pub(super) fn poll(&mut self, key: Key, id: u64, now: Moment) -> (Poll, Vec<u64>) {
        if let Some(grant) = self.granted.remove(&id) {
            return (Poll::Go(grant), Vec::new());
        }
        let bucket_queue = self.queues.get_mut(&key);
        match bucket_queue.and_then(|bucket_queue| bucket_queue.look(id, now, &self.options)) {
            Some(Turn::At(look)) => (Poll::Wait(Some(look)), Vec::new()),
            // Its moment has come since the last dispatch, and nothing else dispatches now.
            Some(Turn::Now) if self.in_flight < self.options.max_in_flight => {
                let to_wake = self.dispatch(now);
                let polled = self.granted.remove(&id).map_or(Poll::Wait(None), Poll::Go);
                (polled, to_wake)
            }
            // The end of a request dispatches.
            Some(Turn::Now) | None => (Poll::Wait(None), Vec::new()),
        }
    }

    /// Removes a request. Returns the ids to wake.
    pub(super) fn leave(&mut self, key: Key, id: u64, now: Moment) -> Vec<u64> {
        if let Some(grant) = self.granted.remove(&id) {
            self.end(grant, Ending::Unsent, now);
            return self.release(|| now);
        }
        self.remove(key, id);
        self.dispatch(now)
    }

    /// Sheds a request whose deadline has passed.
    pub(super) fn expire(&mut self, key: Key, id: u64, sender: Sender, now: Moment) -> (Shed, Vec<u64>) {
        let earliest = self.earliest(key, sender, now);
        let to_wake = self.leave(key, id, now);
        (self.shed(key, sender.caller, (earliest.reason, earliest.at), now), to_wake)
    }

    /// Applies the head of a response, or that none will come.
    pub(super) fn end(&mut self, grant: Grant, ending: Ending<'_>, now: Moment) {
        let random = self.rng.f64();
        if matches!(ending, Ending::Answered(_)) {
            let took = now.since(grant.sent);
            self.latency = Some(self.latency.map_or(took, |latency| (latency * (LATENCIES - 1) + took) / LATENCIES));
        }
        if let Some(bucket_queue) = self.queues.get_mut(&grant.key) {
            if let Some(rank) = grant.asks {
                bucket_queue.end_asking(rank, Asked::InVain);
            }
            if let Some(lane) = grant.lane {
                bucket_queue.end_in_lane(lane, &ending, now);
            }
            bucket_queue.limiter.end(ending, (grant.sent, grant.explores), now, random);
            let counting = bucket_queue.limiter.counting();
            self.set_counting(counting);
        }
    }

    /// Releases the slot of a request. The clock is read only if a request waits.
    pub(super) fn release(&mut self, now: impl FnOnce() -> Moment) -> Vec<u64> {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.busy.is_empty() { Vec::new() } else { self.dispatch(now()) }
    }

    /// Releases the slot of a request whose response is read slowly. `None` if too many are held.
    pub(super) fn hold(&mut self, now: impl FnOnce() -> Moment) -> Option<Vec<u64>> {
        if self.held >= self.options.max_in_flight {
            return None;
        }
        self.held += 1;
        Some(self.release(now))
    }

    /// Takes the slot of a held response again.
    pub(super) const fn resume(&mut self) {
        self.held = self.held.saturating_sub(1);
        self.in_flight += 1;
    }

    /// Applies a response to a request without a permit.
    pub(super) fn observe(&mut self, key: Key, observation: &Observation) {
        let random = self.rng.f64();
        let bucket_queue = self.bucket_queue(key, observation.at);
        bucket_queue.limiter.observe(observation, random);
        let counting = bucket_queue.limiter.counting();
        self.set_counting(counting);
    }

    /// Grants all requests that may leave. Returns the ids to wake: those granted, and the heads, which must check the
    /// time again.
    pub(super) fn dispatch(&mut self, now: Moment) -> Vec<u64> {
        let mut to_wake = Vec::new();
        while self.in_flight < self.options.max_in_flight
            && let Some((key, head)) = self.next(now)
        {
            self.remove(key, head.id);
            let grant = self.admit(key, (head.sender, head.rank), now);
            self.granted.insert(head.id, grant);
            to_wake.push(head.id);
        }
        to_wake.extend(self.firsts(now).into_iter().map(|(_, id)| id));
        to_wake
    }

    pub(super) fn shares(&self) -> &[CallerShare] {
        &self.shares
    }

    pub(super) const fn options(&self) -> LimiterOptions {
        self.options
    }

    /// Average time in flight of recent requests; `None` before the first response.
    pub(super) const fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// Copies what another queue knows of the server, but not the use.
    pub(super) fn adopt(&mut self, key: Key, known: &mut Self, now: Moment) {
        self.set_counting(known.counting);
        let known = &known.bucket_queue(key, now).limiter;
        self.bucket_queue(key, now).limiter.adopt(known);
    }

    /// The first requests of all queues: each leaves by itself when its time has come.
    pub(super) fn firsts(&mut self, now: Moment) -> Vec<(Key, u64)> {
        let mut firsts = Vec::new();
        for key in &self.busy {
            let Some(bucket_queue) = self.queues.get_mut(key) else { continue };
            firsts.extend(bucket_queue.firsts(now).map(|id| (*key, id)));
        }
        firsts
    }

    /// Takes all granted requests that have not polled.
    pub(super) fn take_grants(&mut self) -> Vec<(u64, Grant)> {
        if self.granted.is_empty() {
            return Vec::new();
        }
        let mut grants: Vec<_> = self.granted.drain().collect();
        grants.sort_unstable_by_key(|(id, _)| *id);
        grants
    }

    /// Returns a grant that was polled too early.
    pub(super) fn put_grant(&mut self, id: u64, grant: Grant) {
        self.granted.insert(id, grant);
    }

    pub(super) fn waited(&mut self, wait: Duration) {
        self.stats.waited_seconds.observe(wait.as_secs_f64());
    }

    pub(super) fn stats(&self) -> LimiterStats {
        let (waiting, in_flight, counting) = (self.waiting, self.in_flight + self.held, self.counting.kind);
        LimiterStats { waiting, in_flight, counting, ..self.stats.clone() }
    }

    /// Of the heads that may leave, the one with the highest rank; among equals, the oldest.
    fn next(&mut self, now: Moment) -> Option<(Key, Head)> {
        let mut best: Option<(Key, Head)> = None;
        for key in &self.busy {
            let Some(bucket_queue) = self.queues.get_mut(key) else { continue };
            let Some(head) = bucket_queue.head(now) else { continue };
            if best.is_some_and(|(_, other)| (other.rank, other.id) < (head.rank, head.id)) {
                continue;
            }
            if bucket_queue.admit(now, 0, head.rank, &self.options) == Admission::Now {
                best = Some((*key, head));
            }
        }
        best
    }

    /// The earliest moment at which the last waiting request of this sender may leave, as far as known.
    pub(super) fn earliest(&mut self, key: Key, sender: Sender, now: Moment) -> Earliest {
        let bucket_queue = self.queues.get_mut(&key);
        let earliest = bucket_queue.map(|bucket_queue| bucket_queue.earliest(sender, now, &self.options));
        earliest.unwrap_or(Earliest { at: None, reason: ShedReason::WaitTooLong })
    }

    fn shed(
        &mut self,
        key: Key,
        caller: Option<CallerId>,
        (reason, earliest): (ShedReason, Option<Moment>),
        now: Moment,
    ) -> Shed {
        self.stats.shed[reason.index()] += 1;
        let retry_after = earliest.map_or(Duration::from_secs(1), |at| at.since(now));
        let is_capped = reason == ShedReason::CallerCap;
        let bucket_queue = self.queues.get_mut(&key).filter(|_| is_capped);
        let cap = bucket_queue.and_then(|bucket_queue| bucket_queue.cap_of(caller, now));
        Shed { reason, bucket: key.0, cap, retry_after }
    }

    fn remove(&mut self, key: Key, id: u64) {
        let Some(bucket_queue) = self.queues.get_mut(&key) else { return };
        self.waiting -= usize::from(bucket_queue.lanes.remove(id));
        if bucket_queue.lanes.is_empty() {
            self.busy.remove(&key);
        }
    }

    fn bucket_queue(&mut self, key: Key, now: Moment) -> &mut BucketQueue {
        if self.queues.len() >= self.sweep_at && !self.queues.contains_key(&key) {
            self.queues.retain(|_, queue| !queue.lanes.is_empty() || !queue.limiter.is_idle(now));
            self.sweep_at = SWEEP_AT.max(self.queues.len() * 2);
        }
        let (limit_config, sharing) = (limit_config(&self.options, key.0), self.sharing);
        let shares = if key == INSTANCE { &*self.shares } else { &[] };
        let (is_shared, counting) = (self.is_shared, self.counting);
        self.queues.entry(key).or_insert_with(|| {
            let mut limiter = BucketLimiter::new(limit_config);
            limiter.set_shared(is_shared);
            limiter.set_counting(counting);
            if !sharing.reachable {
                limiter.use_local_share(sharing.part(), now);
            }
            Box::new(BucketQueue::new(limiter, shares))
        })
    }
}

/// The limit of the default bucket is configured; the others are those of Clerk's documentation.
fn limit_config(options: &LimiterOptions, bucket: Bucket) -> LimitConfig {
    let configured = options.limit.filter(|_| bucket == Bucket::Instance);
    LimitConfig {
        limit: configured.map(|limit| limit.requests).or_else(|| bucket.limit(options.environment)),
        window: configured.map_or_else(|| bucket.window(), |limit| limit.window),
    }
}

mod sharing;

#[cfg(test)]
mod tests;
