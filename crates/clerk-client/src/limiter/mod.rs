//! Letting requests go no faster than Clerk allows, with a bounded queue for those that must wait.
//!
//! `bucket_limiter` decides for one budget when the next request may leave, `queue` who that is. Both are pure; this file waits.
//!
//! What is promised: as long as all requests to an instance pass one [`Limiter`], none of them meets a 429 of the rate
//! limiter, however Clerk counts and whether or not it sends quota headers. Where others use the instance too, 429s are
//! rare, and each one makes room.

mod aimd;
mod bucket_limiter;
mod counting_kind;
mod distributed;
mod dry_run;
#[cfg(feature = "test-util")]
mod memory;
mod queue;
#[cfg(feature = "redis")]
mod redis;
mod server_quota;
mod shed;
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
#[cfg(feature = "redis")]
pub use redis::RedisLimiter;
pub use shed::{Shed, ShedReason};
pub use stats::LimiterStats;

use bucket_limiter::Ending;
use clerk_quota::clock::Clock;
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, Environment, Limit, Moment, Observation, Scope};
use distributed::NoRoom;
use dry_run::DryRunQueue;
use queue::{Enqueued, Grant, Key, Poll, Queue};

/// Requests that wait for Clerk at the same time, at most, unless configured otherwise.
pub const MAX_IN_FLIGHT: usize = 1024;

/// How an instance is paced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimiterOptions {
    /// Limit of the instance's default bucket until the server names one.
    pub limit: Option<Limit>,
    /// Decides the documented limit where none is given.
    pub environment: Environment,
    /// Share of the limit that bulk work leaves to others, 0 to 0.5.
    pub reserve: f64,
    /// Most requests that wait for Clerk at the same time, over all buckets; at least 1. It bounds connections, and is no
    /// rate: who finds no place waits for one. As many responses again may be held up by whoever reads them.
    pub max_in_flight: usize,
    /// Most requests that wait at the same time, over all buckets.
    pub max_queue: usize,
}

impl Default for LimiterOptions {
    /// Nothing known of the limit; a tenth in reserve, so that bulk work alone never is "less than 10 % left"; 1024 in
    /// flight, 1000 in the queue.
    fn default() -> Self {
        Self {
            limit: None,
            environment: Environment::Unknown,
            reserve: 0.1,
            max_in_flight: MAX_IN_FLIGHT,
            max_queue: 1000,
        }
    }
}

impl LimiterOptions {
    const fn reserve(&self, priority: Priority) -> f64 {
        match priority {
            Priority::High => 0.0,
            Priority::Low => self.reserve,
        }
    }
}

/// Who goes first. Within a priority, who came first. Probes are not paced: one in some seconds, late, tells nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    High,
    /// Exports and the like: goes last, and leaves a reserve.
    Low,
}

impl Priority {
    /// All priorities, the first first.
    pub const ALL: [Self; 2] = [Self::High, Self::Low];

    /// A word for labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
        }
    }

    /// Position in [`Priority::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The priorities of the requests whose fetch this one may wait for: not one that stands in the queue behind it.
    #[must_use]
    pub const fn may_join(self) -> &'static [Self] {
        match self {
            Self::High => &[Self::High],
            Self::Low => &[Self::High, Self::Low],
        }
    }
}

/// Paces the requests to one Clerk instance.
///
/// [`Outbound::send`](crate::outbound::Outbound::send) does this for each attempt; by itself it is for requests that take another
/// way to Clerk.
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
/// let options = LimiterOptions { environment: Environment::Development, ..LimiterOptions::default() };
/// let pacer = Limiter::new(options, Arc::new(Clock::new()));
/// // 90 of 100 in 10 s are for bulk work.
/// for _ in 0..90 {
///     drop(pacer.acquire(Bucket::Instance, None, Priority::Low, Duration::ZERO).await?);
/// }
/// let shed = pacer.acquire(Bucket::Instance, None, Priority::Low, Duration::ZERO).await.unwrap_err();
/// assert!(shed.retry_after > Duration::from_secs(5));
/// assert!(pacer.acquire(Bucket::Instance, None, Priority::High, Duration::ZERO).await.is_ok());
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
    /// Of those who wait.
    waiters: HashMap<u64, Arc<Notify>>,
    /// From the first question on what pacing would do.
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
    /// A pacer that knows nothing but what is configured.
    #[must_use]
    pub fn new(options: LimiterOptions, clock: Arc<Clock>) -> Arc<Self> {
        Self::with_distributed(options, clock, None)
    }

    /// A pacer of a process that shares the instance with others.
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

    /// Takes over a new configuration; what was learnt stays.
    pub fn reconfigure(&self, options: LimiterOptions) {
        let mut state = self.state.lock();
        state.queue.reconfigure(options);
        if let Some(dry_run) = &mut state.dry_run {
            dry_run.reconfigure(options);
        }
        let to_wake = state.queue.dispatch(self.clock.now());
        state.notify(&to_wake);
    }

    /// Waits until a request of this bucket may leave, at most `max_wait`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// When it may not, or when that is clear at once.
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
            match self.ask_others(self.permit(grant), key, priority).await {
                Ok(mut permit) => {
                    // The time that it takes to ask is no wait.
                    permit.waited = if has_waited { self.clock.now().since(from) } else { Duration::ZERO };
                    self.state.lock().queue.waited(permit.waited);
                    return Ok(permit);
                }
                Err(NoRoom) => entered = AcquireState::Wait(self.put_back(key, id, priority)),
            }
        }
    }

    /// Waits for its turn.
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

    /// Lets a request go at once, and counts it: for probes.
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

    /// Learns from an answer to a request that had no permit.
    pub fn observe(&self, observation: &Observation) {
        let mut state = self.state.lock();
        state.queue.observe(key(observation.bucket, observation.entity), observation);
        let to_wake = state.queue.dispatch(self.clock.now());
        state.notify(&to_wake);
    }

    /// Enters a request that was sent before this process started, so that its quota is not spent once more. Without an
    /// end it is taken as over now. What is older than a window or lies in the future is left out. Processes that share
    /// the budget need not be told: their log outlives a process.
    pub fn restore(&self, bucket: Bucket, entity: Option<Entity>, started: Moment, ended: Option<Moment>) {
        let now = self.clock.now();
        if bucket.scope() == Scope::Unlimited || started > now {
            return;
        }
        let ended = ended.map_or(now, |ended| ended.clamp(started, now));
        self.state.lock().queue.restore(key(bucket, entity), (started, ended), now);
    }

    /// What it did so far and how it stands.
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

    /// Somebody who was let go may not leave yet.
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

/// What becomes of somebody who came in.
enum AcquireState {
    Go(Grant),
    Wait(QueueSlot),
}

/// A place in the queue, given up when dropped.
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

/// Leave for one request. Dropped, the request no longer is in flight; where nothing was said of its end, Clerk may have
/// counted it.
#[derive(Debug)]
#[must_use = "dropping it ends the request"]
pub struct Permit {
    limiter: Arc<Limiter>,
    grant: Grant,
    waited: Duration,
    ended: bool,
    /// Whether its place is given back for as long as its response is held up by whoever reads it.
    is_held: bool,
    /// The entry in the log that is shared with other processes, and how long it stays there after its end.
    lease: Option<(Lease, Duration)>,
}

impl Permit {
    /// How long it was waited for; zero if there was no queue.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// The head of the answer came.
    pub fn answered(&mut self, observation: &Observation) {
        self.end(Ending::Answered(observation));
    }

    /// The response to a request tells of another budget than the one that it was let go for.
    pub fn learn(&self, observation: &Observation) {
        self.limiter.observe(observation);
    }

    /// The request never left this machine.
    pub fn unsent(&mut self) {
        self.end(Ending::Unsent);
    }

    /// The response is held up by whoever reads it: others may have the place meanwhile, as far as not too many
    /// responses are held up already.
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

    /// More of the response is asked for, and has to come from Clerk.
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
            self.limiter.tell_others(self.grant.key(), lease, ending);
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
