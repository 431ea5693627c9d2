//! One budget for several processes: each asks the others, over something that all of them reach, before a request leaves.
//!
//! The pacer of each process still decides who is next and keeps its own log. What is shared is the log of all: a request
//! is entered when it leaves and stays until a window after its answer, as in the pacer's own. When the others cannot be
//! asked, each process takes its share of the limit: an equal part for all that were there when they last could be asked.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::bucket_limiter::{Ending, LONGEST_HOLD, NAMELESS_HOLD};
use super::counting_kind::CountingKind;
use super::queue::Key;
use super::{Limiter, Permit, Priority, key};
use clerk_quota::fleet::FleetUsage;
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, Scope};

/// Processes that are assumed where nobody could be asked yet.
const UNKNOWN_PROCESSES: u64 = 2;

/// What all processes ask before a request leaves. Each implementation stands for one Clerk instance.
pub trait DistributedLimiter: fmt::Debug + Send + Sync + 'static {
    /// Enters a request into the log of all, if there is room.
    fn take(&self, budget: BucketKey, room: Room) -> TakeFuture<'_>;

    /// Enters a request that leaves whether or not there is room. Does not wait.
    fn enter(&self, budget: BucketKey, window: Duration) -> Lease;

    /// Says how an entered request ended. Does not wait; what is lost on the way ends by itself after a while.
    fn end(&self, budget: BucketKey, lease: Lease, ended: LeaseEnd);

    /// What all processes use of a budget whose window is so long.
    fn usage(&self, budget: BucketKey, window: Duration) -> UsageFuture<'_>;
}

/// The answer to come. It comes soon, whatever happens to those who are asked.
pub type TakeFuture<'a> = Pin<Box<dyn Future<Output = Result<Taken, LimiterUnreachable>> + Send + 'a>>;

/// What all processes use, to come as soon as a [`TakeFuture`].
pub type UsageFuture<'a> = Pin<Box<dyn Future<Output = Result<FleetUsage, LimiterUnreachable>> + Send + 'a>>;

/// Into so many slots of equal length a window is divided to tell when requests started.
#[cfg(any(feature = "redis", feature = "test-util"))]
pub(super) const SLOTS_PER_WINDOW: u32 = 16;

/// So many windows back it is told when requests started.
#[cfg(any(feature = "redis", feature = "test-util"))]
pub(super) const TOLD_WINDOWS: u32 = 3;

/// Which budget of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketKey {
    /// The bucket.
    pub bucket: Bucket,
    /// Whose it is, where each user, organization or membership has one.
    pub entity: Option<Entity>,
}

impl From<Key> for BucketKey {
    fn from((bucket, entity): Key) -> Self {
        Self { bucket, entity }
    }
}

/// How much may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Requests of all processes in any stretch as long as a window.
    pub requests: u64,
    /// Length of the window.
    pub window: Duration,
    /// Whether the request may go alone beyond what a sliding counter surely allows, where it is not known how the server
    /// counts: only where `requests` is the whole limit.
    pub may_explore: bool,
}

/// A request's entry in the log of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease(pub u64);

/// What becomes of a request that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its entry, or how long there will be no room.
    pub outcome: Result<Lease, Duration>,
    /// Processes that asked lately, this one included.
    pub processes: u64,
    /// Requests of all processes that stood in the log when this one asked, without it.
    pub used: u64,
    /// 429s that any process met in this budget and that nothing of our own explains. May start again from 0.
    pub throttled: u64,
    /// How the server counts, as far as any process found out.
    pub counting: CountingKind,
    /// Whether the answer to this request will tell more of that. No other is in flight.
    pub explores: bool,
}

/// The others cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shared budget cannot be reached; each process keeps to its share")]
pub struct LimiterUnreachable;

/// There is no room yet.
pub(super) struct NoRoom;

/// How an entered request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// It may stand in Clerk's books.
    Counted {
        /// How long it stays in ours.
        window: Duration,
        /// Whether Clerk let it pass: without an answer that is not known.
        answered: bool,
    },
    /// It does not.
    NotCounted,
    /// Clerk refused it with a 429: nobody sends before this time has passed.
    Throttled {
        /// From now.
        wait: Duration,
        /// Length of the budget's window.
        window: Duration,
    },
}

/// How the budget is shared now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharing {
    /// Whether the others could be asked, the last time.
    pub reachable: bool,
    /// Processes when they could be asked last.
    pub processes: Option<u64>,
}

impl Sharing {
    pub(super) const fn new() -> Self {
        Self { reachable: true, processes: None }
    }

    /// The part of the limit that this process takes while the others cannot be asked.
    pub(super) fn part(self) -> f64 {
        1.0 / self.processes.unwrap_or(UNKNOWN_PROCESSES).max(1) as f64
    }
}

/// A request that was let go here and waits for the word of the others. Dropped, it never left.
struct Asking(Option<Permit>);

impl Asking {
    /// The request leaves.
    fn granted(mut self, lease: Option<(Lease, Duration)>, explores: bool) -> Option<Permit> {
        let mut permit = self.0.take()?;
        permit.lease = lease;
        permit.grant.set_explores(explores);
        Some(permit)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(permit) = &mut self.0 {
            permit.unsent();
        }
    }
}

impl Limiter {
    /// Asks the others. An error is that there is no room yet; the limiter knows since when there is.
    pub(super) async fn ask_others(&self, permit: Permit, key: Key, priority: Priority) -> Result<Permit, NoRoom> {
        let Some(budget) = &self.shared else { return Ok(permit) };
        let Some(room) = self.state.lock().queue.room(key, priority) else { return Ok(permit) };
        let grant = permit.grant;
        let asking = Asking(Some(permit));
        let taken = budget.take(key.into(), room).await;
        let now = self.clock.now();
        let mut state = self.state.lock();
        let share_shrank = state.queue.set_processes(taken.as_ref().ok().map(|taken| taken.processes), grant, now);
        if let Ok(taken) = &taken {
            state.queue.hear_of_others(key, taken, now);
        }
        let explores = taken.as_ref().is_ok_and(|taken| taken.explores);
        let lease = match taken.map(|taken| taken.outcome) {
            Ok(Ok(lease)) => Some((lease, room.window)),
            // Told before this one gives up its place, so that the next one need not ask.
            Ok(Err(wait)) => {
                state.queue.wait_for_others(key, wait, now);
                return Err(NoRoom);
            }
            // Let go by the whole limit: it has to pass by the share once more.
            Err(LimiterUnreachable) if share_shrank => return Err(NoRoom),
            Err(LimiterUnreachable) => None,
        };
        drop(state);
        asking.granted(lease, explores).ok_or(NoRoom)
    }

    /// What all processes together use of a bucket. `None` where the budget is not shared, or has no limit.
    #[must_use]
    pub fn fleet_usage(&self, bucket: Bucket, entity: Option<Entity>) -> Option<UsageFuture<'_>> {
        let budget = self.shared.as_ref().filter(|_| bucket.scope() != Scope::Unlimited)?;
        let key = key(bucket, entity);
        let window = self.state.lock().queue.window(key);
        Some(budget.usage(key.into(), window))
    }

    /// Tells the others how a request ended.
    pub(super) fn tell_others(&self, key: Key, (lease, window): (Lease, Duration), ending: Ending<'_>) {
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
