//! Queues of all buckets, and which request leaves next. Pure: time and randomness are passed in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::bucket_limiter::{Admission, BucketLimiter, Ending, LimitConfig};
use super::counting_kind::Counting;
use super::distributed::{Room, Sharing, Taken};
use super::{LimiterOptions, LimiterStats, Priority, Shed, ShedReason};
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, Moment, Observation};

/// Weight of the moving average of the latency, in requests.
const LATENCIES: u32 = 8;

/// Number of buckets above which idle ones are evicted.
const SWEEP_AT: usize = 4096;

/// A bucket and, for buckets per user, organization or membership, its entity.
pub(super) type Key = (Bucket, Option<Entity>);

/// An admitted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    key: Key,
    sent: Moment,
    /// Whether its response reveals how the server counts.
    explores: bool,
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
    Wait(Option<Moment>),
}

#[derive(Debug)]
pub(super) struct Queue {
    options: LimiterOptions,
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

#[derive(Debug)]
struct BucketQueue {
    limiter: BucketLimiter,
    /// By priority; ids increase with time.
    waiting: [VecDeque<u64>; Priority::ALL.len()],
}

impl BucketQueue {
    /// The next request.
    fn head(&self) -> Option<(Priority, u64)> {
        Priority::ALL.into_iter().find_map(|priority| Some((priority, *self.waiting[priority.index()].front()?)))
    }
}

impl Queue {
    pub(super) fn new(options: LimiterOptions, rng: fastrand::Rng) -> Self {
        Self {
            options,
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

    /// Adds a request at `now` that waits until `deadline`.
    pub(super) fn enqueue(
        &mut self,
        key: Key,
        priority: Priority,
        now: Moment,
        deadline: Moment,
    ) -> (Enqueued, Vec<u64>) {
        let id = self.next_id;
        self.next_id += 1;
        if self.busy.is_empty() && self.may_leave(key, priority, now) {
            // No other request waits, and so it does not, either.
            return (Enqueued::Go(id, self.admit(key, priority, now)), Vec::new());
        }
        self.bucket_queue(key, now).waiting[priority.index()].push_back(id);
        self.busy.insert(key);
        self.waiting += 1;
        let to_wake = self.dispatch(now);
        if let Some(grant) = self.granted.remove(&id) {
            return (Enqueued::Go(id, grant), to_wake);
        }
        let earliest = self.earliest(key, priority, now);
        let reason = if earliest.is_some_and(|at| at > deadline) {
            Some(ShedReason::WaitTooLong)
        } else {
            (self.waiting > self.options.max_queue).then_some(ShedReason::QueueFull)
        };
        let Some(reason) = reason else { return (Enqueued::Wait(id), to_wake) };
        self.remove(key, id);
        (Enqueued::Shed(self.shed(key, reason, earliest, now)), to_wake)
    }

    /// Returns a granted request to its position, after the distributed limiter rejected it.
    pub(super) fn put_back(&mut self, key: Key, id: u64, priority: Priority, now: Moment) -> Vec<u64> {
        let bucket_queue = self.bucket_queue(key, now);
        let waiting = &mut bucket_queue.waiting[priority.index()];
        waiting.insert(waiting.partition_point(|other| *other < id), id);
        self.busy.insert(key);
        self.waiting += 1;
        let admitted = &mut self.stats.admitted[priority.index()];
        *admitted = admitted.saturating_sub(1);
        self.dispatch(now)
    }

    /// What all processes together may use at this priority. `None` if no limit is known.
    pub(super) fn room(&self, key: Key, priority: Priority) -> Option<Room> {
        self.queues.get(&key)?.limiter.room(self.options.reserve_of(priority))
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

    /// Applies the state of the distributed log.
    pub(super) fn apply_shared_state(&mut self, key: Key, taken: &Taken, now: Moment) {
        self.set_counting(self.counting.with_kind(taken.counting));
        if let Some(bucket_queue) = self.queues.get_mut(&key) {
            bucket_queue.limiter.apply_shared_state(taken, now);
        }
    }

    /// How the server counts holds for the whole instance.
    fn set_counting(&mut self, counting: Counting) {
        if std::mem::replace(&mut self.counting, counting) != counting {
            self.queues.values_mut().for_each(|bucket_queue| bucket_queue.limiter.set_counting(counting));
        }
    }

    /// Applies the number of processes from the distributed limiter, `None` if it is unreachable. Returns whether this
    /// process has switched to its local share since the request was granted.
    pub(super) fn set_processes(&mut self, processes: Option<u64>, grant: Grant, now: Moment) -> bool {
        let before = self.sharing;
        self.sharing = Sharing { reachable: processes.is_some(), processes: processes.or(before.processes) };
        match (before.reachable, self.sharing.reachable) {
            (true, false) => {
                let part = self.sharing.part();
                self.queues.values_mut().for_each(|bucket_queue| bucket_queue.limiter.use_local_share(part, now));
                self.local_since = now;
                true
            }
            (false, true) => {
                self.queues.values_mut().for_each(|bucket_queue| bucket_queue.limiter.leave_local_share(now));
                false
            }
            (false, false) => grant.sent < self.local_since,
            (true, true) => false,
        }
    }

    /// How the limits are shared.
    pub(super) const fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// Blocks a bucket for `wait` plus jitter, at most twice `wait`: other processes have used it.
    pub(super) fn wait_for_others(&mut self, key: Key, wait: Duration, now: Moment) {
        let random = self.rng.f64();
        if let Some(bucket_queue) = self.queues.get_mut(&key) {
            let late = bucket_queue.limiter.jitter(random).min(wait);
            bucket_queue.limiter.wait_for_others(now.after(wait + late));
        }
    }

    /// Admits a request at once, whatever the limits.
    pub(super) fn pass(&mut self, key: Key, now: Moment) -> Grant {
        let random = self.rng.f64();
        let explores = self.bucket_queue(key, now).limiter.begin(now, random);
        self.in_flight += 1;
        Grant { key, sent: now, explores }
    }

    /// Whether a request would have to wait now.
    pub(super) fn would_throttle(&mut self, key: Key, priority: Priority, now: Moment) -> bool {
        self.bucket_queue(key, now).head().is_some() || !self.may_leave(key, priority, now)
    }

    /// Whether a request may leave now if none waits.
    fn may_leave(&mut self, key: Key, priority: Priority, now: Moment) -> bool {
        let reserve = self.options.reserve_of(priority);
        self.in_flight < self.options.max_in_flight
            && self.bucket_queue(key, now).limiter.admit(now, 0, reserve) == Admission::Now
    }

    /// Lets a request leave that may.
    fn admit(&mut self, key: Key, priority: Priority, now: Moment) -> Grant {
        self.stats.admitted[priority.index()] += 1;
        self.pass(key, now)
    }

    /// State of a waiting request, and the ids to wake.
    pub(super) fn poll(&mut self, key: Key, id: u64, now: Moment) -> (Poll, Vec<u64>) {
        if let Some(grant) = self.granted.remove(&id) {
            return (Poll::Go(grant), Vec::new());
        }
        match self.admission(key, id, now) {
            Some(Admission::At(at)) => (Poll::Wait(Some(at)), Vec::new()),
            // Its moment has come since the last dispatch, and nothing else dispatches now.
            Some(Admission::Now) if self.in_flight < self.options.max_in_flight => {
                let to_wake = self.dispatch(now);
                let polled = self.granted.remove(&id).map_or(Poll::Wait(None), Poll::Go);
                (polled, to_wake)
            }
            // The end of a request dispatches.
            Some(Admission::Now | Admission::OnAnswer) | None => (Poll::Wait(None), Vec::new()),
        }
    }

    /// Whether the head of a queue may leave.
    fn admission(&mut self, key: Key, id: u64, now: Moment) -> Option<Admission> {
        let bucket_queue = self.queues.get_mut(&key)?;
        let (priority, _) = bucket_queue.head().filter(|(_, head)| *head == id)?;
        Some(bucket_queue.limiter.admit(now, 0, self.options.reserve_of(priority)))
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
    pub(super) fn expire(&mut self, key: Key, id: u64, priority: Priority, now: Moment) -> (Shed, Vec<u64>) {
        let earliest = self.earliest(key, priority, now);
        let to_wake = self.leave(key, id, now);
        (self.shed(key, ShedReason::WaitTooLong, earliest, now), to_wake)
    }

    /// Applies the head of a response, or that none will come.
    pub(super) fn end(&mut self, grant: Grant, ending: Ending<'_>, now: Moment) {
        let random = self.rng.f64();
        if matches!(ending, Ending::Answered(_)) {
            let took = now.since(grant.sent);
            self.latency = Some(self.latency.map_or(took, |latency| (latency * (LATENCIES - 1) + took) / LATENCIES));
        }
        if let Some(bucket_queue) = self.queues.get_mut(&grant.key) {
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
            && let Some((key, priority, id)) = self.next(now)
        {
            self.remove(key, id);
            let grant = self.admit(key, priority, now);
            self.granted.insert(id, grant);
            to_wake.push(id);
        }
        to_wake.extend(self.busy.iter().filter_map(|key| Some(self.queues.get(key)?.head()?.1)));
        to_wake
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

    /// The heads of all queues.
    pub(super) fn heads(&self) -> Vec<(Key, u64)> {
        self.busy.iter().filter_map(|key| Some((*key, self.queues.get(key)?.head()?.1))).collect()
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

    /// Of the heads that may leave, the one with the highest priority; among equals, the oldest.
    fn next(&mut self, now: Moment) -> Option<(Key, Priority, u64)> {
        let mut best: Option<(Key, Priority, u64)> = None;
        for key in &self.busy {
            let Some(bucket_queue) = self.queues.get_mut(key) else { continue };
            let Some((priority, id)) = bucket_queue.head() else { continue };
            if best.is_some_and(|(_, other, first)| (other, first) < (priority, id)) {
                continue;
            }
            if bucket_queue.limiter.admit(now, 0, self.options.reserve_of(priority)) == Admission::Now {
                best = Some((*key, priority, id));
            }
        }
        best
    }

    /// The earliest moment at which the last request of this priority may leave, as far as known.
    pub(super) fn earliest(&mut self, key: Key, priority: Priority, now: Moment) -> Option<Moment> {
        let reserve = self.options.reserve_of(priority);
        let bucket_queue = self.queues.get_mut(&key)?;
        let before = Priority::ALL.into_iter().take_while(|other| *other <= priority);
        let ahead = before.map(|other| bucket_queue.waiting[other.index()].len() as u64).sum::<u64>().saturating_sub(1);
        match bucket_queue.limiter.admit(now, ahead, reserve) {
            Admission::At(at) => Some(at),
            Admission::Now | Admission::OnAnswer => None,
        }
    }

    fn shed(&mut self, key: Key, reason: ShedReason, earliest: Option<Moment>, now: Moment) -> Shed {
        self.stats.shed[reason.index()] += 1;
        let retry_after = earliest.map_or(Duration::from_secs(1), |at| at.since(now));
        Shed { reason, bucket: key.0, retry_after }
    }

    fn remove(&mut self, key: Key, id: u64) {
        let Some(bucket_queue) = self.queues.get_mut(&key) else { return };
        for waiting in &mut bucket_queue.waiting {
            // Ids increase along the queue.
            if let Ok(slot) = waiting.binary_search(&id) {
                waiting.remove(slot);
                self.waiting -= 1;
            }
        }
        if bucket_queue.head().is_none() {
            self.busy.remove(&key);
        }
    }

    fn bucket_queue(&mut self, key: Key, now: Moment) -> &mut BucketQueue {
        if self.queues.len() >= self.sweep_at && !self.queues.contains_key(&key) {
            self.queues.retain(|_, bucket_queue| bucket_queue.head().is_some() || !bucket_queue.limiter.is_idle(now));
            self.sweep_at = SWEEP_AT.max(self.queues.len() * 2);
        }
        let (limit_config, sharing) = (limit_config(&self.options, key.0), self.sharing);
        let (is_shared, counting) = (self.is_shared, self.counting);
        self.queues.entry(key).or_insert_with(|| {
            let mut limiter = BucketLimiter::new(limit_config);
            limiter.set_shared(is_shared);
            limiter.set_counting(counting);
            if !sharing.reachable {
                limiter.use_local_share(sharing.part(), now);
            }
            Box::new(BucketQueue { limiter, waiting: Default::default() })
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

#[cfg(test)]
mod tests;
