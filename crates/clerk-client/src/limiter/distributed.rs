//! Rate limits shared by several processes, through a backend that all of them reach.
//!
//! The limiter of each process still orders its requests and keeps its own log. The log of all processes is shared: an
//! entry is added before a request leaves and stays until one window after its response, as in the local log. If the
//! backend is unreachable, each process uses an equal share of the limit, by the last known number of processes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::bucket_limiter::{Ending, LONGEST_HOLD, NAMELESS_HOLD};
use super::bucket_queue::Asked;
use super::counting_kind::CountingKind;
use super::queue::{Grant, Key};
use super::sender::{Rank, Sender};
use super::{Limiter, Permit, key};
use clerk_quota::fleet::FleetUsage;
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, Moment, Scope};

/// Number of processes assumed before the first contact.
const UNKNOWN_PROCESSES: u64 = 2;

/// A rate limiter shared by all processes, for one Clerk instance.
pub trait DistributedLimiter: fmt::Debug + Send + Sync + 'static {
    /// Adds a request to the shared log if there is room. `shares`: of callers in this bucket, if they have any.
    ///
    /// If there is no room, and the request's caller has a guarantee, the request claims it as by
    /// [`DistributedLimiter::claim`]; otherwise its claim ends.
    fn take(&self, budget: BucketKey, room: Room, shares: Option<SharedShares>) -> TakeFuture<'_>;

    /// Adds a request that leaves whether or not there is room. `caller`: the name of its caller, if that has a share. Does
    /// not wait.
    fn enter(&self, budget: BucketKey, window: Duration, caller: Option<Arc<str>>) -> Lease;

    /// Holds back room for a waiting request whose caller has a guarantee. `patience`: how much longer it waits at most;
    /// zero withdraws the claim. Does not wait.
    fn claim(&self, budget: BucketKey, claim: Claim, patience: Duration);

    /// Reports how a request ended. Does not wait. Entries whose end is lost expire after a while.
    fn end(&self, budget: BucketKey, lease: Lease, ended: LeaseEnd);

    /// Returns the use of a bucket by all processes. `window` is the bucket's.
    fn usage(&self, budget: BucketKey, window: Duration) -> UsageFuture<'_>;
}

/// Future of [`DistributedLimiter::take`]. It must resolve soon, even if the backend hangs.
pub type TakeFuture<'a> = Pin<Box<dyn Future<Output = Result<Taken, LimiterUnreachable>> + Send + 'a>>;

/// Future of [`DistributedLimiter::usage`], with the same bound as a [`TakeFuture`].
pub type UsageFuture<'a> = Pin<Box<dyn Future<Output = Result<FleetUsage, LimiterUnreachable>> + Send + 'a>>;

/// Number of slots per window in which request starts are counted.
#[cfg(any(feature = "redis", feature = "test-util"))]
pub(super) const SLOTS_PER_WINDOW: u32 = 16;

/// Number of windows for which request starts are kept.
#[cfg(any(feature = "redis", feature = "test-util"))]
pub(super) const START_WINDOWS: u32 = 3;

/// Identifies a bucket of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketKey {
    /// The bucket.
    pub bucket: Bucket,
    /// The entity, for buckets per user, organization or membership.
    pub entity: Option<Entity>,
}

impl From<Key> for BucketKey {
    fn from((bucket, entity): Key) -> Self {
        Self { bucket, entity }
    }
}

/// How many requests may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Requests of all processes in any period of one window.
    pub requests: u64,
    /// Length of the window.
    pub window: Duration,
    /// Whether the request may leave alone beyond the safe rate of a sliding counter, to find out how the server
    /// counts. Only set if `requests` is the whole limit.
    pub may_explore: bool,
}

/// The shares of callers in a bucket, for a request to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedShares {
    /// The callers with a guarantee, and that of the request.
    pub callers: Vec<SharedCaller>,
    /// Which of them sends the request.
    pub own: Option<usize>,
    /// [`Room::requests`] as long as the request is within its caller's guarantee.
    pub guaranteed_room: u64,
    /// The waiting request, among those of all processes.
    pub ticket: u64,
    /// How much longer it waits at most.
    pub patience: Duration,
}

/// The share of one caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedCaller {
    /// Its name, the same in all processes.
    pub name: Arc<str>,
    /// Guaranteed requests per window, over all processes. Others leave them to its requests that wait.
    pub guarantee: u64,
    /// Most requests in any period of one window, over all processes.
    pub cap: Option<u64>,
}

/// A waiting request that claims the guarantee of its caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The name of the caller.
    pub caller: Arc<str>,
    /// The request, among those of all processes.
    pub ticket: u64,
}

/// A request's entry in the shared log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Unique in this process.
    pub id: u64,
    /// The name of its caller, if that has a share.
    pub caller: Option<Arc<str>>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoomFor {
    /// Time until there may be.
    pub wait: Duration,
    /// Whether only the cap of the caller is used up.
    pub is_capped: bool,
}

/// Result of [`DistributedLimiter::take`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The entry, or why there is none.
    pub outcome: Result<Lease, NoRoomFor>,
    /// Whether the request was within the guarantee of its caller.
    pub is_guaranteed: bool,
    /// Time until the caller is within its guarantee again; zero if it is, or has none.
    pub guarantee_wait: Duration,
    /// Number of recently active processes, including this one.
    pub processes: u64,
    /// Requests of all processes in the log, without this one.
    pub used: u64,
    /// 429s in this bucket that our own use does not explain, over all processes. May restart from 0.
    pub throttled: u64,
    /// How the server counts, as far as any process found out.
    pub counting: CountingKind,
    /// Whether the response reveals how the server counts. No other request is in flight.
    pub explores: bool,
}

/// The distributed limiter is unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("distributed limiter unreachable; each process uses its share of the limit")]
pub struct LimiterUnreachable;

/// There is no room yet.
pub(super) struct NoRoom;

/// How a request in the shared log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// Clerk may have counted it.
    Counted {
        /// How long it stays in the log.
        window: Duration,
        /// Whether Clerk accepted it; unknown without a response.
        answered: bool,
    },
    /// Clerk did not count it.
    NotCounted,
    /// Clerk rejected it with a 429: no process sends until `wait` has passed.
    Throttled {
        /// From now.
        wait: Duration,
        /// Length of the bucket's window.
        window: Duration,
    },
}

/// How the limits are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharing {
    /// Whether the last contact succeeded.
    pub reachable: bool,
    /// Number of processes at the last successful contact.
    pub processes: Option<u64>,
}

impl Sharing {
    pub(super) const fn new() -> Self {
        Self { reachable: true, processes: None }
    }

    /// This process' part of the limit while the backend is unreachable.
    pub(super) fn part(self) -> f64 {
        1.0 / self.processes.unwrap_or(UNKNOWN_PROCESSES).max(1) as f64
    }
}

/// A locally granted request that waits for the distributed limiter. Dropped, it was not sent.
struct PendingPermit(Option<Permit>);

impl PendingPermit {
    /// Completes the permit.
    fn granted(mut self, grant: Grant, lease: Option<(Lease, Duration)>, explores: bool) -> Option<Permit> {
        let mut permit = self.0.take()?;
        permit.set_grant(grant);
        if let Some((lease, window)) = lease {
            permit.set_lease(lease, window);
        }
        permit.set_explores(explores);
        Some(permit)
    }
}

impl Drop for PendingPermit {
    fn drop(&mut self) {
        if let Some(permit) = &mut self.0 {
            permit.unsent();
        }
    }
}

/// A waiting request's claim to its caller's guarantee, where processes share limits. Withdrawn on drop.
#[derive(Debug)]
pub(super) struct ClaimGuard<'a> {
    /// `None` if its caller has no guarantee.
    claim: Option<(&'a Limiter, BucketKey, Claim)>,
    /// Whether it was sent, so that it may arrive late.
    is_sent: bool,
    /// Whether a request for room made it, or may have.
    is_asked: bool,
}

impl ClaimGuard<'_> {
    /// The request waits until `deadline` at most.
    pub(super) fn send(&mut self, deadline: Moment) {
        if let Some((limiter, budget, claim)) = &self.claim
            && let Some(shared) = &limiter.shared
            && !(self.is_sent || self.is_asked)
        {
            let patience = deadline.since(limiter.clock.now());
            if !patience.is_zero() {
                shared.claim(*budget, claim.clone(), patience);
                self.is_sent = true;
            }
        }
    }
}

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        if let Some((limiter, budget, claim)) = self.claim.take()
            && let Some(shared) = &limiter.shared
            && (self.is_sent || self.is_asked)
        {
            shared.claim(budget, claim, Duration::ZERO);
        }
    }
}

/// A request that was granted by this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) key: Key,
    pub(super) sender: Sender,
    pub(super) ticket: u64,
    pub(super) deadline: Moment,
}

impl Limiter {
    /// The claim of a request, which is not made yet.
    pub(super) fn claim_guard(&self, key: Key, ticket: u64, caller: Option<Arc<str>>) -> ClaimGuard<'_> {
        let caller = caller.filter(|_| self.shared.is_some());
        let claim = caller.map(|caller| (self, key.into(), Claim { caller, ticket }));
        ClaimGuard { claim, is_sent: false, is_asked: false }
    }

    /// Acquires from the distributed limiter. On [`NoRoom`], the request has to wait again.
    pub(super) async fn acquire_shared(
        &self,
        permit: Permit,
        asking: Asking,
        claim: &mut ClaimGuard<'_>,
    ) -> Result<Permit, NoRoom> {
        let Asking { key, sender, ticket, deadline } = asking;
        let Some(budget) = &self.shared else { return Ok(permit) };
        let now = self.clock.now();
        let (room, shares) = {
            let state = self.state.lock();
            let Some(room) = state.queue.room(key, sender.priority.into()) else { return Ok(permit) };
            (room, state.queue.shared_shares(key, sender.caller, (ticket, deadline.since(now)), now))
        };
        let mut grant = permit.grant();
        let pending = PendingPermit(Some(permit));
        claim.is_asked = true;
        let taken = budget.take(key.into(), room, shares).await;
        let now = self.clock.now();
        let mut state = self.state.lock();
        let share_shrank = state.queue.set_processes(taken.as_ref().ok().map(|taken| taken.processes), grant, now);
        if let Ok(taken) = &taken {
            state.queue.apply_shared_state(key, sender.caller, taken, now);
        }
        let explores = taken.as_ref().is_ok_and(|taken| taken.explores);
        let rank = match &taken {
            Ok(taken) if taken.is_guaranteed => Rank::Guaranteed,
            _ => sender.priority.into(),
        };
        let lease = match taken.map(|taken| taken.outcome) {
            Ok(Ok(lease)) => {
                claim.is_asked = false;
                Some((lease, room.window))
            }
            // The caller's cap holds only its own requests; the queue knows of it.
            Ok(Err(NoRoomFor { is_capped: true, .. })) => return Err(NoRoom),
            // Blocks the bucket before the slot is released, so that the next request does not ask in vain.
            Ok(Err(NoRoomFor { wait, .. })) => {
                state.queue.wait_for_others(key, rank, wait, now);
                return Err(NoRoom);
            }
            // Granted by the whole limit: it has to be granted by the share again.
            Err(LimiterUnreachable) if share_shrank => return Err(NoRoom),
            Err(LimiterUnreachable) => None,
        };
        let asked = if lease.is_some() { Asked::Admitted } else { Asked::Unreachable };
        let to_wake = state.queue.end_asking(&mut grant, asked, now);
        state.notify(&to_wake);
        drop(state);
        pending.granted(grant, lease, explores).ok_or(NoRoom)
    }

    /// Returns the use of a bucket by all processes. `None` if limits are not shared or the bucket has none.
    #[must_use]
    pub fn fleet_usage(&self, bucket: Bucket, entity: Option<Entity>) -> Option<UsageFuture<'_>> {
        let budget = self.shared.as_ref().filter(|_| bucket.scope() != Scope::Unlimited)?;
        let key = key(bucket, entity);
        let window = self.state.lock().queue.window(key);
        Some(budget.usage(key.into(), window))
    }

    /// Reports to the distributed limiter how a request ended.
    pub(super) fn report_end(&self, key: Key, (lease, window): (Lease, Duration), ending: Ending<'_>) {
        let Some(budget) = &self.shared else { return };
        let ended = match ending {
            Ending::Answered(observation) if observation.is_throttled() => {
                let wait = observation.quota.retry_after.or(observation.quota.reset).unwrap_or(NAMELESS_HOLD);
                LeaseEnd::Throttled { wait: wait.min(LONGEST_HOLD.max(window)), window }
            }
            Ending::Unsent => LeaseEnd::NotCounted,
            Ending::Answered(_) => LeaseEnd::Counted { window, answered: true },
            Ending::Lost => LeaseEnd::Counted { window, answered: false },
        };
        budget.end(key.into(), lease, ended);
    }
}
