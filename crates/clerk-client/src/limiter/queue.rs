//! Who waits for which budget, and who is next. Pure: time and dice are passed in.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::bucket_limiter::{Admission, BucketLimiter, Ending, LimitConfig};
use super::counting_kind::Counting;
use super::distributed::{Room, Sharing, Taken};
use super::{LimiterOptions, LimiterStats, Priority, Shed, ShedReason};
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, Moment, Observation};

/// The mean latency is about that of so many requests.
const LATENCIES: u32 = 8;

/// Budgets that are kept before the idle ones are swept out.
const SWEEP_AT: usize = 4096;

/// One budget: a bucket, and whose it is where each user, organization or membership has one.
pub(super) type Key = (Bucket, Option<Entity>);

/// A request that was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    key: Key,
    sent: Moment,
    /// Whether its answer will tell how the server counts.
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

/// What becomes of somebody who asks.
#[derive(Debug)]
pub(super) enum Enqueued {
    Go(u64, Grant),
    Wait(u64),
    Shed(Shed),
}

/// What somebody who waits finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Poll {
    Go(Grant),
    /// Look again at this moment, or when woken.
    Wait(Option<Moment>),
}

#[derive(Debug)]
pub(super) struct Queue {
    options: LimiterOptions,
    /// Boxed: a map of one entry takes the room of eleven.
    queues: BTreeMap<Key, Box<BucketQueue>>,
    /// The lines in which somebody waits.
    busy: BTreeSet<Key>,
    sweep_at: usize,
    in_flight: usize,
    /// Responses that are held up by whoever reads them.
    held: usize,
    waiting: usize,
    next_id: u64,
    /// Those whose turn has come and who do not know yet.
    granted: HashMap<u64, Grant>,
    stats: LimiterStats,
    rng: fastrand::Rng,
    sharing: Sharing,
    is_shared: bool,
    /// When the others could not be asked any more, the last time.
    local_since: Moment,
    counting: Counting,
    /// How long requests were in flight lately.
    latency: Option<Duration>,
}

#[derive(Debug)]
struct BucketQueue {
    limiter: BucketLimiter,
    /// By priority; numbers rise with time.
    waiting: [VecDeque<u64>; Priority::ALL.len()],
}

impl BucketQueue {
    /// The one who is next.
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
            granted: HashMap::new(),
            stats: LimiterStats::default(),
            rng,
            sharing: Sharing::new(),
            is_shared: false,
            local_since: Moment::default(),
            counting: Counting::default(),
            latency: None,
        }
    }

    /// A queue of a process that shares its budgets with others, or not.
    pub(super) fn shared(self, is_shared: bool) -> Self {
        Self { is_shared, ..self }
    }

    pub(super) fn reconfigure(&mut self, options: LimiterOptions) {
        for (key, bucket_queue) in &mut self.queues {
            bucket_queue.limiter.set_limit_config(terms(&options, key.0));
        }
        self.options = options;
    }

    /// Somebody asks at `now` and would wait until `deadline`.
    pub(super) fn enqueue(
        &mut self,
        key: Key,
        priority: Priority,
        now: Moment,
        deadline: Moment,
    ) -> (Enqueued, Vec<u64>) {
        let id = self.next_id;
        self.next_id += 1;
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

    /// Somebody who was let go may not leave yet, for others: back to where they stood in the line.
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

    /// What this priority may take of a budget, of all processes together. `None` where no limit is known.
    pub(super) fn room(&self, key: Key, priority: Priority) -> Option<Room> {
        self.queues.get(&key)?.limiter.room(self.options.reserve(priority))
    }

    /// Length of a budget's window, as far as that is known.
    pub(super) fn window(&self, key: Key) -> Duration {
        let known = self.queues.get(&key).map(|bucket_queue| bucket_queue.limiter.window());
        known.unwrap_or_else(|| terms(&self.options, key.0).window)
    }

    /// Enters a request that another process sent before this one started.
    pub(super) fn restore(&mut self, key: Key, sent_and_ended: (Moment, Moment), now: Moment) {
        self.bucket_queue(key, now).limiter.restore(sent_and_ended, now);
    }

    /// What the log of all processes says beside whether there is room.
    pub(super) fn hear_of_others(&mut self, key: Key, taken: &Taken, now: Moment) {
        self.set_counting(self.counting.with_kind(taken.counting));
        if let Some(bucket_queue) = self.queues.get_mut(&key) {
            bucket_queue.limiter.hear_of_others(taken, now);
        }
    }

    /// What is learnt of one budget holds for the whole instance.
    fn set_counting(&mut self, counting: Counting) {
        if std::mem::replace(&mut self.counting, counting) != counting {
            self.queues.values_mut().for_each(|bucket_queue| bucket_queue.limiter.set_counting(counting));
        }
    }

    /// The others were asked for a request that was let go, and so many processes there are; or they could not be. Says
    /// whether our share has become less since the request was let go.
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

    /// How the budget is shared.
    pub(super) const fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// Nothing leaves a budget for so long, and a little longer, at most twice: others have used it.
    pub(super) fn wait_for_others(&mut self, key: Key, wait: Duration, now: Moment) {
        let random = self.rng.f64();
        if let Some(bucket_queue) = self.queues.get_mut(&key) {
            let late = bucket_queue.limiter.jitter(random).min(wait);
            bucket_queue.limiter.wait_for_others(now.after(wait + late));
        }
    }

    /// Somebody leaves at once, whatever the limits say.
    pub(super) fn pass(&mut self, key: Key, now: Moment) -> Grant {
        let random = self.rng.f64();
        let explores = self.bucket_queue(key, now).limiter.begin(now, random);
        self.in_flight += 1;
        Grant { key, sent: now, explores }
    }

    /// Whether somebody who asked now would have to wait.
    pub(super) fn would_throttle(&mut self, key: Key, priority: Priority, now: Moment) -> bool {
        let reserve = self.options.reserve(priority);
        let is_full = self.in_flight >= self.options.max_in_flight;
        let bucket_queue = self.bucket_queue(key, now);
        is_full || bucket_queue.head().is_some() || bucket_queue.limiter.admit(now, 0, reserve) != Admission::Now
    }

    /// How it stands with somebody who waits, and who is to be woken.
    pub(super) fn poll(&mut self, key: Key, id: u64, now: Moment) -> (Poll, Vec<u64>) {
        if let Some(grant) = self.granted.remove(&id) {
            return (Poll::Go(grant), Vec::new());
        }
        match self.admission(key, id, now) {
            Some(Admission::At(at)) => (Poll::Wait(Some(at)), Vec::new()),
            // Its moment came since the last call, and nobody else will call.
            Some(Admission::Now) if self.in_flight < self.options.max_in_flight => {
                let to_wake = self.dispatch(now);
                let polled = self.granted.remove(&id).map_or(Poll::Wait(None), Poll::Go);
                (polled, to_wake)
            }
            // The end of a request calls.
            Some(Admission::Now | Admission::OnAnswer) | None => (Poll::Wait(None), Vec::new()),
        }
    }

    /// Whether somebody may leave who is first in a line.
    fn admission(&mut self, key: Key, id: u64, now: Moment) -> Option<Admission> {
        let bucket_queue = self.queues.get_mut(&key)?;
        let (priority, _) = bucket_queue.head().filter(|(_, head)| *head == id)?;
        Some(bucket_queue.limiter.admit(now, 0, self.options.reserve(priority)))
    }

    /// Somebody gives up; says who is to be woken.
    pub(super) fn leave(&mut self, key: Key, id: u64, now: Moment) -> Vec<u64> {
        if let Some(grant) = self.granted.remove(&id) {
            self.end(grant, Ending::Unsent, now);
            return self.release(|| now);
        }
        self.remove(key, id);
        self.dispatch(now)
    }

    /// Somebody's time is over.
    pub(super) fn expire(&mut self, key: Key, id: u64, priority: Priority, now: Moment) -> (Shed, Vec<u64>) {
        let earliest = self.earliest(key, priority, now);
        let to_wake = self.leave(key, id, now);
        (self.shed(key, ShedReason::WaitTooLong, earliest, now), to_wake)
    }

    /// The head of an answer came, or will not come.
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

    /// A request no longer occupies Clerk. The clock is only asked where somebody waits.
    pub(super) fn release(&mut self, now: impl FnOnce() -> Moment) -> Vec<u64> {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.busy.is_empty() { Vec::new() } else { self.dispatch(now()) }
    }

    /// A response is held up by whoever reads it: its request no longer occupies Clerk. None where too many are.
    pub(super) fn hold(&mut self, now: impl FnOnce() -> Moment) -> Option<Vec<u64>> {
        if self.held >= self.options.max_in_flight {
            return None;
        }
        self.held += 1;
        Some(self.release(now))
    }

    /// More of a response that was held up is asked for.
    pub(super) const fn resume(&mut self) {
        self.held = self.held.saturating_sub(1);
        self.in_flight += 1;
    }

    /// Takes in an answer to a request that did not come through here.
    pub(super) fn observe(&mut self, key: Key, observation: &Observation) {
        let random = self.rng.f64();
        let bucket_queue = self.bucket_queue(key, observation.at);
        bucket_queue.limiter.observe(observation, random);
        let counting = bucket_queue.limiter.counting();
        self.set_counting(counting);
    }

    /// Calls those whose turn has come. Says whom to wake: them, and those who are next and must look at the time anew.
    pub(super) fn dispatch(&mut self, now: Moment) -> Vec<u64> {
        let mut to_wake = Vec::new();
        while self.in_flight < self.options.max_in_flight
            && let Some((key, priority, id)) = self.next(now)
        {
            self.remove(key, id);
            let grant = self.pass(key, now);
            self.stats.admitted[priority.index()] += 1;
            self.granted.insert(id, grant);
            to_wake.push(id);
        }
        to_wake.extend(self.busy.iter().filter_map(|key| Some(self.queues.get(key)?.head()?.1)));
        to_wake
    }

    pub(super) const fn options(&self) -> LimiterOptions {
        self.options
    }

    /// How long requests were in flight lately; `None` before the first answer.
    pub(super) const fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// Takes over what another queue knows of the server, but not what was used.
    pub(super) fn adopt(&mut self, key: Key, known: &mut Self, now: Moment) {
        self.set_counting(known.counting);
        let known = &known.bucket_queue(key, now).limiter;
        self.bucket_queue(key, now).limiter.adopt(known);
    }

    /// Those who are next, each in its line.
    pub(super) fn heads(&self) -> Vec<(Key, u64)> {
        self.busy.iter().filter_map(|key| Some((*key, self.queues.get(key)?.head()?.1))).collect()
    }

    /// All whose turn has come and who do not know yet.
    pub(super) fn take_grants(&mut self) -> Vec<Grant> {
        let mut grants: Vec<_> = self.granted.drain().collect();
        grants.sort_unstable_by_key(|(id, _)| *id);
        grants.into_iter().map(|(_, grant)| grant).collect()
    }

    /// Gives a turn back that was told too early.
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

    /// Of those who are first in their lines and may leave, the most urgent one, and of those the one who came first.
    fn next(&mut self, now: Moment) -> Option<(Key, Priority, u64)> {
        let mut best: Option<(Key, Priority, u64)> = None;
        for key in &self.busy {
            let Some(bucket_queue) = self.queues.get_mut(key) else { continue };
            let Some((priority, id)) = bucket_queue.head() else { continue };
            if best.is_some_and(|(_, other, first)| (other, first) < (priority, id)) {
                continue;
            }
            if bucket_queue.limiter.admit(now, 0, self.options.reserve(priority)) == Admission::Now {
                best = Some((*key, priority, id));
            }
        }
        best
    }

    /// The earliest moment at which the last one of this priority in a line may leave, as far as that is known.
    pub(super) fn earliest(&mut self, key: Key, priority: Priority, now: Moment) -> Option<Moment> {
        let reserve = self.options.reserve(priority);
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
            // Numbers rise along the line.
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
        let (limit_config, sharing) = (terms(&self.options, key.0), self.sharing);
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

/// The instance's own limit comes from the configuration, the others' from Clerk's documentation.
fn terms(options: &LimiterOptions, bucket: Bucket) -> LimitConfig {
    let configured = options.limit.filter(|_| bucket == Bucket::Instance);
    LimitConfig {
        limit: configured.map(|limit| limit.requests).or_else(|| bucket.limit(options.environment)),
        window: configured.map_or_else(|| bucket.window(), |limit| limit.window),
    }
}

#[cfg(test)]
mod tests;
