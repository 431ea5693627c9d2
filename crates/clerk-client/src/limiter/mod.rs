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
mod bucket_queue;
mod caller_lane;
mod counting_kind;
mod distributed;
mod dry_run;
mod lanes;
#[cfg(feature = "test-util")]
mod memory;
mod options;
mod permit;
mod queue;
#[cfg(feature = "redis")]
mod redis;
mod sender;
mod server_quota;
mod shares;
mod shed;
pub mod simulation;
mod sliding_counter;
mod stats;
mod window_log;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use counting_kind::CountingKind;
pub use distributed::{
    BucketKey, Claim, DistributedLimiter, Lease, LeaseEnd, LimiterUnreachable, NoRoomFor, Room, SharedCaller,
    SharedShares, Sharing, TakeFuture, Taken, UsageFuture,
};
pub use dry_run::ThrottleForecast;
#[cfg(feature = "test-util")]
pub use memory::MemoryDistributedLimiter;
pub use options::{LimiterOptions, MAX_IN_FLIGHT};
pub use permit::Permit;
#[cfg(feature = "redis")]
pub use redis::RedisLimiter;
pub use sender::Sender;
pub use shares::{CallerRules, CallerShare, CallerUsage};
pub use shed::{Shed, ShedReason};
pub use stats::LimiterStats;

use clerk_quota::clock::Clock;
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, CallerId, Moment, Observation, Scope};
use distributed::{Asking, NoRoom};
use dry_run::DryRunQueue;
use queue::{Enqueued, Grant, Key, Poll, Queue};
use sender::Rank;

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
    /// Whether any caller has a share, for a look without the lock.
    has_shares: AtomicBool,
    /// Random: where processes share limits, none has the tickets of another.
    first_ticket: u64,
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
        // Not of the generator that tests seed.
        let first_ticket = RandomState::new().hash_one(0_u8);
        let state = Mutex::new(State { queue, waiters: HashMap::new(), dry_run: None });
        Arc::new(Self { clock, state, shared, has_shares: AtomicBool::new(false), first_ticket })
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
        sender: impl Into<Sender>,
        max_wait: Duration,
    ) -> Result<Permit, Shed> {
        let sender = sender.into();
        if bucket.scope() == Scope::Unlimited {
            return Ok(self.pass(bucket, entity, sender));
        }
        let key = key(bucket, entity);
        let from = self.clock.now();
        let deadline = from.after(max_wait);
        let Acquiring { id, guaranteed, state: mut entered } = self.enqueue(key, sender, from, deadline)?;
        let ticket = self.first_ticket.wrapping_add(id);
        let mut claim = self.claim_guard(key, ticket, guaranteed);
        let mut has_waited = false;
        loop {
            let grant = match entered {
                AcquireState::Go(grant) => grant,
                AcquireState::Wait(slot) => {
                    has_waited = true;
                    claim.send(deadline);
                    self.wait(slot, sender, deadline).await?
                }
            };
            let asking = Asking { key, sender, ticket, deadline };
            match self.acquire_shared(self.permit(grant), asking, &mut claim).await {
                Ok(mut permit) => {
                    // The round trip to the distributed limiter does not count as queueing.
                    let waited = if has_waited { self.clock.now().since(from) } else { Duration::ZERO };
                    permit.set_waited(waited);
                    self.state.lock().queue.waited(waited);
                    return Ok(permit);
                }
                Err(NoRoom) => entered = AcquireState::Wait(self.put_back(key, id, sender)),
            }
        }
    }

    /// Waits for the grant.
    async fn wait(&self, mut slot: QueueSlot, sender: Sender, deadline: Moment) -> Result<Grant, Shed> {
        loop {
            let now = self.clock.now();
            let look = match self.poll(&slot, now) {
                Poll::Go(grant) => {
                    slot.left = true;
                    return Ok(grant);
                }
                Poll::Wait(look) => look,
            };
            let is_vain = look.is_some_and(|look| look.is_bound && look.at > deadline);
            if now >= deadline || (self.shared.is_some() && is_vain) {
                slot.left = true;
                return Err(slot.expire(sender, now));
            }
            let until = look.map_or(deadline, |look| look.at.min(deadline));
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

    /// Admits a request at once and counts it. For probes, and for applications whose requests do not wait.
    pub fn pass(self: &Arc<Self>, bucket: Bucket, entity: Option<Entity>, sender: impl Into<Sender>) -> Permit {
        let (key, sender) = (key(bucket, entity), sender.into());
        let (grant, room, caller) = {
            let mut state = self.state.lock();
            let grant = state.queue.pass(key, sender, self.clock.now());
            let room = self.shared.as_ref().and_then(|_| state.queue.room(key, Rank::High));
            (grant, room, room.and_then(|_| state.queue.name_of_share(key, sender.caller)))
        };
        let mut permit = self.permit(grant);
        if let (Some(budget), Some(room)) = (&self.shared, room) {
            permit.set_lease(budget.enter(key.into(), room.window, caller), room.window);
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

    /// Replaces the shares of all callers, in the limit of the instance's bucket. What they have used is kept.
    ///
    /// A caller within its guarantee is sent first, and waits at most a window for what was lent to others. A caller at its
    /// cap waits, and holds up no other. Callers without a share have no guarantee and no cap.
    pub fn set_shares(&self, shares: Vec<CallerShare>) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if let Some(dry_run) = &mut state.dry_run {
            dry_run.set_shares(shares.clone(), now);
        }
        self.has_shares.store(!shares.is_empty(), Ordering::Relaxed);
        let to_wake = state.queue.set_shares(shares, now);
        state.notify(&to_wake);
    }

    /// Returns what a caller's share means for its requests.
    #[must_use]
    pub fn caller_rules(&self, caller: CallerId) -> CallerRules {
        if !self.has_shares.load(Ordering::Relaxed) {
            return CallerRules::default();
        }
        self.state.lock().queue.caller_rules(caller)
    }

    /// Refuses a request of a paused caller. A pause ends by itself.
    ///
    /// # Errors
    ///
    /// Returns an error, which also counts, if the caller is paused.
    pub fn check_paused(&self, caller: CallerId) -> Result<(), Shed> {
        if !self.has_shares.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.state.lock().queue.check_paused(caller, self.clock.now())
    }

    /// Returns the shares of all callers in requests, and what they use.
    #[must_use]
    pub fn caller_usage(&self) -> Vec<CallerUsage> {
        self.state.lock().queue.caller_usage(self.clock.now())
    }

    /// Returns the counters and the current state.
    #[must_use]
    pub fn stats(&self) -> LimiterStats {
        let state = self.state.lock();
        let sharing = self.shared.is_some().then(|| state.queue.sharing());
        LimiterStats { sharing, ..state.queue.stats() }
    }

    fn enqueue(self: &Arc<Self>, key: Key, sender: Sender, now: Moment, deadline: Moment) -> Result<Acquiring, Shed> {
        let mut state = self.state.lock();
        let (entry, to_wake) = state.queue.enqueue(key, sender, now, deadline);
        state.notify(&to_wake);
        let (id, entered) = match entry {
            Enqueued::Go(id, grant) => (id, AcquireState::Go(grant)),
            Enqueued::Shed(shed) => return Err(shed),
            Enqueued::Wait(id) => (id, AcquireState::Wait(self.slot(&mut state, key, id))),
        };
        let guaranteed = self.shared.as_ref().and_then(|_| state.queue.name_of_guarantee(key, sender.caller));
        Ok(Acquiring { id, guaranteed, state: entered })
    }

    /// Requeues a granted request that the distributed limiter rejected.
    fn put_back(self: &Arc<Self>, key: Key, id: u64, sender: Sender) -> QueueSlot {
        let mut state = self.state.lock();
        let slot = self.slot(&mut state, key, id);
        let to_wake = state.queue.put_back(key, id, sender, self.clock.now());
        state.notify(&to_wake);
        slot
    }

    fn slot(self: &Arc<Self>, state: &mut State, key: Key, id: u64) -> QueueSlot {
        let waiter = Arc::new(Notify::new());
        state.waiters.insert(id, Arc::clone(&waiter));
        QueueSlot { limiter: Arc::clone(self), key, id, waiter, left: false }
    }

    fn permit(self: &Arc<Self>, grant: Grant) -> Permit {
        Permit::new(Arc::clone(self), grant)
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

/// A request in [`Limiter::acquire`].
struct Acquiring {
    id: u64,
    /// The name of its caller, if that has a guarantee that other processes must know of.
    guaranteed: Option<Arc<str>>,
    state: AcquireState,
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
    fn expire(&self, sender: Sender, now: Moment) -> Shed {
        let mut state = self.limiter.state.lock();
        let (shed, to_wake) = state.queue.expire(self.key, self.id, sender, now);
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
