//! A client-side rate limiter for Clerk's API, with a bounded queue.
//!
//! `bucket_limiter` decides when the next request of one bucket may leave, `queue` which one. Both are pure; this file
//! does the waiting.
//!
//! Guarantee: if all requests to an instance pass one [`Limiter`], none of them gets a 429 from Clerk's rate limiter,
//! however Clerk counts and whether or not it sends quota headers. If other clients use the instance too, 429s are
//! rare, and each one lowers the rate.

mod aimd;
mod bucket_limiter;
mod counting_kind;
mod distributed;
mod dry_run;
#[cfg(feature = "test-util")]
mod memory;
mod options;
mod queue;
#[cfg(feature = "redis")]
mod redis;
mod server_quota;
mod shed;
pub mod simulation;
mod sliding_counter;
mod stats;
mod window_log;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use counting_kind::CountingKind;
pub use distributed::{
    BucketKey, DistributedLimiter, Lease, LeaseEnd, LimiterUnreachable, Room, Sharing, TakeFuture, Taken, UsageFuture,
};
pub use dry_run::ThrottleForecast;
#[cfg(feature = "test-util")]
pub use memory::MemoryDistributedLimiter;
pub use options::{LimiterOptions, MAX_IN_FLIGHT};
#[cfg(feature = "redis")]
pub use redis::RedisLimiter;
pub use shed::{Shed, ShedReason};
pub use stats::LimiterStats;

use bucket_limiter::Ending;
use clerk_quota::clock::Clock;
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, Moment, Observation, Scope};
use distributed::NoRoom;
use dry_run::DryRunQueue;
use queue::{Enqueued, Grant, Key, Poll, Queue};

/// Priority of a request; equal ones leave in order of arrival. Probes bypass the limiter: a late one is useless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Requests that a user waits for.
    #[default]
    High,
    /// Exports and other background work: leaves last, and leaves a reserve.
    Low,
}

impl Priority {
    /// All priorities, the highest first.
    pub const ALL: [Self; 2] = [Self::High, Self::Low];

    /// Returns the name for labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
        }
    }

    /// Returns the position in [`Priority::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the priorities whose fetches a request of this priority may join: none that queue behind it.
    #[must_use]
    pub const fn may_join(self) -> &'static [Self] {
        match self {
            Self::High => &[Self::High],
            Self::Low => &[Self::High, Self::Low],
        }
    }
}

/// Limits the rate of requests to one Clerk instance.
///
/// [`Outbound::send`](crate::outbound::Outbound::send) uses it for each attempt. Use it directly for requests that are
/// sent otherwise.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use clerk_quota::clock::Clock;
/// use clerk_client::limiter::{LimiterOptions, Limiter, Priority};
/// use clerk_quota::{Bucket, Environment};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), clerk_client::limiter::Shed> {
/// let options = LimiterOptions::default().environment(Environment::Development);
/// let limiter = Limiter::new(options, Arc::new(Clock::new()));
/// // Low priority may use 90 of 100 requests in 10 s.
/// for _ in 0..90 {
///     drop(limiter.acquire(Bucket::Instance, None, Priority::Low, Duration::ZERO).await?);
/// }
/// let shed = limiter.acquire(Bucket::Instance, None, Priority::Low, Duration::ZERO).await.unwrap_err();
/// assert!(shed.retry_after > Duration::from_secs(5));
/// assert!(limiter.acquire(Bucket::Instance, None, Priority::High, Duration::ZERO).await.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Limiter {
    clock: Arc<Clock>,
    state: Mutex<State>,
    shared: Option<Arc<dyn DistributedLimiter>>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    waiters: HashMap<u64, Arc<Notify>>,
    /// Created by the first dry run.
    dry_run: Option<Box<DryRunQueue>>,
}

impl State {
    fn notify(&self, to_wake: &[u64]) {
        for waiter in to_wake.iter().filter_map(|id| self.waiters.get(id)) {
            waiter.notify_one();
        }
    }
}

impl Limiter {
    /// Creates a limiter for a single process.
    #[must_use]
    pub fn new(options: LimiterOptions, clock: Arc<Clock>) -> Arc<Self> {
        Self::with_distributed(options, clock, None)
    }

    /// Creates a limiter for a process that shares the instance's limits with other processes.
    #[must_use]
    pub fn sharing(options: LimiterOptions, clock: Arc<Clock>, budget: Arc<dyn DistributedLimiter>) -> Arc<Self> {
        Self::with_distributed(options, clock, Some(budget))
    }

    fn with_distributed(
        options: LimiterOptions,
        clock: Arc<Clock>,
        shared: Option<Arc<dyn DistributedLimiter>>,
    ) -> Arc<Self> {
        let queue = Queue::new(options, fastrand::Rng::new()).shared(shared.is_some());
        Arc::new(Self { clock, state: Mutex::new(State { queue, waiters: HashMap::new(), dry_run: None }), shared })
    }

    /// Applies new options; what was observed is kept.
    pub fn reconfigure(&self, options: LimiterOptions) {
        let mut state = self.state.lock();
        state.queue.reconfigure(options);
        if let Some(dry_run) = &mut state.dry_run {
            dry_run.reconfigure(options);
        }
        let to_wake = state.queue.dispatch(self.clock.now());
        state.notify(&to_wake);
    }

    /// Waits until a request of this bucket may leave, at most `max_wait`.
    ///
    /// Dropping the future removes the request from the queue.
    ///
    /// # Errors
    ///
    /// Returns an error if the queue is full or the wait is, or would be, longer than `max_wait`.
    pub async fn acquire(
        self: &Arc<Self>,
        bucket: Bucket,
        entity: Option<Entity>,
        priority: Priority,
        max_wait: Duration,
    ) -> Result<Permit, Shed> {
        if bucket.scope() == Scope::Unlimited {
            return Ok(self.pass(bucket, entity));
        }
        let key = key(bucket, entity);
        let from = self.clock.now();
        let deadline = from.after(max_wait);
        let (id, mut entered) = self.enqueue(key, priority, from, deadline)?;
        let mut has_waited = false;
        loop {
            let grant = match entered {
                AcquireState::Go(grant) => grant,
                AcquireState::Wait(slot) => {
                    has_waited = true;
                    self.wait(slot, priority, deadline).await?
                }
            };
            match self.acquire_shared(self.permit(grant), key, priority).await {
                Ok(mut permit) => {
                    // The round trip to the distributed limiter does not count as queueing.
                    permit.waited = if has_waited { self.clock.now().since(from) } else { Duration::ZERO };
                    self.state.lock().queue.waited(permit.waited);
                    return Ok(permit);
                }
                Err(NoRoom) => entered = AcquireState::Wait(self.put_back(key, id, priority)),
            }
        }
    }

    /// Waits for the grant.
    async fn wait(&self, mut slot: QueueSlot, priority: Priority, deadline: Moment) -> Result<Grant, Shed> {
        loop {
            let now = self.clock.now();
            let look = match self.poll(&slot, now) {
                Poll::Go(grant) => {
                    slot.left = true;
                    return Ok(grant);
                }
                Poll::Wait(look) => look,
            };
            if now >= deadline || (self.shared.is_some() && look.is_some_and(|look| look > deadline)) {
                slot.left = true;
                return Err(slot.expire(priority, now));
            }
            let until = look.map_or(deadline, |look| look.min(deadline));
            tokio::select! {
                biased;
                () = slot.waiter.notified() => {}
                () = tokio::time::sleep(until.since(now)) => self.dispatch(),
            }
        }
    }

    fn poll(&self, slot: &QueueSlot, now: Moment) -> Poll {
        let mut state = self.state.lock();
        let (polled, to_wake) = state.queue.poll(slot.key, slot.id, now);
        state.notify(&to_wake);
        polled
    }

    /// Admits a request at once and counts it. For probes.
    pub fn pass(self: &Arc<Self>, bucket: Bucket, entity: Option<Entity>) -> Permit {
        let key = key(bucket, entity);
        let (grant, room) = {
            let mut state = self.state.lock();
            let grant = state.queue.pass(key, self.clock.now());
            (grant, self.shared.as_ref().and_then(|_| state.queue.room(key, Priority::High)))
        };
        let mut permit = self.permit(grant);
        if let (Some(budget), Some(room)) = (&self.shared, room) {
            permit.lease = Some((budget.enter(key.into(), room.window), room.window));
        }
        permit
    }

    /// Applies a response to a request that had no permit.
    pub fn observe(&self, observation: &Observation) {
        let mut state = self.state.lock();
        state.queue.observe(key(observation.bucket, observation.entity), observation);
        let to_wake = state.queue.dispatch(self.clock.now());
        state.notify(&to_wake);
    }

    /// Counts a request that was sent before this process started, so that its quota is not used twice.
    ///
    /// Without an end, it ends now. Requests older than a window or in the future are ignored. A distributed limiter
    /// needs no update: its log outlives the process.
    pub fn restore(&self, bucket: Bucket, entity: Option<Entity>, started: Moment, ended: Option<Moment>) {
        let now = self.clock.now();
        if bucket.scope() == Scope::Unlimited || started > now {
            return;
        }
        let ended = ended.map_or(now, |ended| ended.clamp(started, now));
        self.state.lock().queue.restore(key(bucket, entity), (started, ended), now);
    }

    /// Returns the counters and the current state.
    #[must_use]
    pub fn stats(&self) -> LimiterStats {
        let state = self.state.lock();
        let sharing = self.shared.is_some().then(|| state.queue.sharing());
        LimiterStats { sharing, ..state.queue.stats() }
    }

    fn enqueue(
        self: &Arc<Self>,
        key: Key,
        priority: Priority,
        now: Moment,
        deadline: Moment,
    ) -> Result<(u64, AcquireState), Shed> {
        let mut state = self.state.lock();
        let (entry, to_wake) = state.queue.enqueue(key, priority, now, deadline);
        state.notify(&to_wake);
        match entry {
            Enqueued::Go(id, grant) => Ok((id, AcquireState::Go(grant))),
            Enqueued::Shed(shed) => Err(shed),
            Enqueued::Wait(id) => Ok((id, AcquireState::Wait(self.slot(&mut state, key, id)))),
        }
    }

    /// Requeues a granted request that the distributed limiter rejected.
    fn put_back(self: &Arc<Self>, key: Key, id: u64, priority: Priority) -> QueueSlot {
        let mut state = self.state.lock();
        let slot = self.slot(&mut state, key, id);
        let to_wake = state.queue.put_back(key, id, priority, self.clock.now());
        state.notify(&to_wake);
        slot
    }

    fn slot(self: &Arc<Self>, state: &mut State, key: Key, id: u64) -> QueueSlot {
        let waiter = Arc::new(Notify::new());
        state.waiters.insert(id, Arc::clone(&waiter));
        QueueSlot { limiter: Arc::clone(self), key, id, waiter, left: false }
    }

    fn permit(self: &Arc<Self>, grant: Grant) -> Permit {
        Permit { limiter: Arc::clone(self), grant, waited: Duration::ZERO, ended: false, is_held: false, lease: None }
    }

    fn dispatch(&self) {
        let mut state = self.state.lock();
        let to_wake = state.queue.dispatch(self.clock.now());
        state.notify(&to_wake);
    }
}

fn key(bucket: Bucket, entity: Option<Entity>) -> Key {
    (bucket, entity.filter(|_| bucket.scope() == Scope::Entity))
}

/// State of a request in [`Limiter::acquire`].
enum AcquireState {
    Go(Grant),
    Wait(QueueSlot),
}

/// A slot in the queue, released on drop.
#[derive(Debug)]
struct QueueSlot {
    limiter: Arc<Limiter>,
    key: Key,
    id: u64,
    waiter: Arc<Notify>,
    left: bool,
}

impl QueueSlot {
    fn expire(&self, priority: Priority, now: Moment) -> Shed {
        let mut state = self.limiter.state.lock();
        let (shed, to_wake) = state.queue.expire(self.key, self.id, priority, now);
        state.notify(&to_wake);
        shed
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        let mut state = self.limiter.state.lock();
        state.waiters.remove(&self.id);
        if !self.left {
            let to_wake = state.queue.leave(self.key, self.id, self.limiter.clock.now());
            state.notify(&to_wake);
        }
    }
}

/// Permission to send one request. The request is in flight until the permit is dropped.
///
/// If it is dropped without an outcome, Clerk may have counted the request.
#[derive(Debug)]
#[must_use = "dropping it ends the request"]
pub struct Permit {
    limiter: Arc<Limiter>,
    grant: Grant,
    waited: Duration,
    ended: bool,
    /// Whether its slot is released while the reader of the response is slow.
    is_held: bool,
    /// Entry in the distributed log, and how long it stays there after its end.
    lease: Option<(Lease, Duration)>,
}

impl Permit {
    /// Returns the time spent in the queue; zero if it was admitted at once.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// Reports the head of the response.
    pub fn answered(&mut self, observation: &Observation) {
        self.end(Ending::Answered(observation));
    }

    /// Reports a response that belongs to another bucket than the permit's.
    pub fn learn(&self, observation: &Observation) {
        self.limiter.observe(observation);
    }

    /// Reports that the request was not sent.
    pub fn unsent(&mut self) {
        self.end(Ending::Unsent);
    }

    /// Releases the slot while the reader of the response is slow.
    ///
    /// Does nothing if too many responses are held already.
    pub fn hold(&mut self) {
        if self.is_held {
            return;
        }
        let mut state = self.limiter.state.lock();
        if let Some(to_wake) = state.queue.hold(|| self.limiter.clock.now()) {
            self.is_held = true;
            state.notify(&to_wake);
        }
    }

    /// Takes the slot again: the reader continues, and more data must come from Clerk.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.is_held) {
            self.limiter.state.lock().queue.resume();
        }
    }

    fn end(&mut self, ending: Ending<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(lease) = self.lease.take() {
            self.limiter.report_end(self.grant.key(), lease, ending);
        }
        let mut state = self.limiter.state.lock();
        let now = self.limiter.clock.now();
        state.queue.end(self.grant, ending, now);
        let to_wake = state.queue.dispatch(now);
        state.notify(&to_wake);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(Ending::Lost);
        let mut state = self.limiter.state.lock();
        if self.is_held {
            state.queue.resume();
        }
        let to_wake = state.queue.release(|| self.limiter.clock.now());
        state.notify(&to_wake);
    }
}
