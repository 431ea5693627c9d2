//! A log of all processes in memory: the stand-in for Redis in tests, on the clock that it is given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::distributed::{
    BucketKey, DistributedLimiter, Lease, LeaseEnd, LimiterUnreachable, Room, SLOTS_PER_WINDOW, TOLD_WINDOWS,
    TakeFuture, Taken, UsageFuture,
};
use clerk_quota::Moment;
use clerk_quota::clock::Clock;
use clerk_quota::fleet::{FleetUsage, StartSlot};

/// The budgets of one Clerk instance, in memory. Does what `RedisLimiter` does, and can be cut off.
#[derive(Debug)]
pub struct MemoryDistributedLimiter {
    clock: Arc<Clock>,
    /// How long an answer takes.
    latency: Duration,
    processes: u64,
    budgets: Mutex<HashMap<BucketKey, SharedLog>>,
    leases: AtomicU64,
    is_away: AtomicBool,
    asked: AtomicU64,
}

/// The log of one budget.
#[derive(Debug, Default)]
struct SharedLog {
    entries: BTreeMap<u64, LogEntry>,
    blocked_until: Moment,
}

#[derive(Debug, Clone, Copy)]
struct LogEntry {
    started: Moment,
    /// `None` while it is in flight.
    ended: Option<Moment>,
}

impl SharedLog {
    /// Forgets what is so old that nothing asks for it.
    fn settle(&mut self, now: Moment, window: Duration) {
        let kept = window * (TOLD_WINDOWS + 1);
        self.entries.retain(|_, entry| entry.ended.is_none_or(|ended| ended.after(kept) > now));
    }

    /// Ends of those that use the budget, the earliest first, and those in flight last.
    fn used(&self, now: Moment, window: Duration) -> Vec<Option<Moment>> {
        let mut used: Vec<_> = self.entries.values().map(|entry| entry.ended).collect();
        used.retain(|ended| ended.is_none_or(|ended| ended.after(window) > now));
        used.sort_unstable_by_key(|ended| (ended.is_none(), *ended));
        used
    }

    fn room(&self, now: Moment, room: Room) -> Result<(), Duration> {
        if self.blocked_until > now {
            return Err(self.blocked_until.since(now));
        }
        let used = self.used(now, room.window);
        let over = (used.len() as u64 + 1).saturating_sub(room.requests);
        if over == 0 {
            return Ok(());
        }
        let first = usize::try_from(over - 1).ok().and_then(|place| *used.get(place)?);
        let wait = first.map_or(room.window, |ended| ended.after(room.window).since(now));
        Err(wait.max(Duration::from_millis(1)))
    }

    fn starts(&self, now: Moment, window: Duration) -> Vec<StartSlot> {
        let length = window / SLOTS_PER_WINDOW;
        let from = now.before(window * TOLD_WINDOWS);
        let mut slots: BTreeMap<Moment, u64> = BTreeMap::new();
        for entry in self.entries.values() {
            let began = entry.started.rounded_down(length);
            if began > from {
                *slots.entry(began).or_default() += 1;
            }
        }
        let slots = slots.into_iter();
        slots.map(|(began, requests)| StartSlot { began_ago: now.since(began), length, requests }).collect()
    }
}

impl MemoryDistributedLimiter {
    /// An empty log for so many processes, whose answers take 3 ms.
    #[must_use]
    pub fn new(clock: Arc<Clock>, processes: u64) -> Arc<Self> {
        Arc::new(Self {
            clock,
            latency: Duration::from_millis(3),
            processes,
            budgets: Mutex::default(),
            leases: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
            asked: AtomicU64::new(0),
        })
    }

    /// Lets every question fail, or not any more.
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    /// Requests that asked so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether no request stands in any log.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.budgets.lock().values().all(|log| log.entries.is_empty())
    }

    /// Enters a request if there is room, at once.
    ///
    /// # Errors
    /// How long there will be no room.
    pub fn try_take(&self, budget: BucketKey, room: Room) -> Result<Lease, Duration> {
        let now = self.clock.now();
        let mut budgets = self.budgets.lock();
        let log = budgets.entry(budget).or_default();
        log.settle(now, room.window);
        log.room(now, room)?;
        Ok(self.insert(log, now))
    }

    fn insert(&self, log: &mut SharedLog, now: Moment) -> Lease {
        let lease = self.leases.fetch_add(1, Ordering::Relaxed);
        log.entries.insert(lease, LogEntry { started: now, ended: None });
        Lease(lease)
    }

    async fn answer<T>(&self, answer: impl FnOnce() -> T) -> Result<T, LimiterUnreachable> {
        tokio::time::sleep(self.latency).await;
        if self.is_away.load(Ordering::Relaxed) { Err(LimiterUnreachable) } else { Ok(answer()) }
    }
}

impl DistributedLimiter for MemoryDistributedLimiter {
    fn take(&self, budget: BucketKey, room: Room) -> TakeFuture<'_> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let processes = self.processes;
            self.answer(|| Taken { outcome: self.try_take(budget, room), processes }).await
        })
    }

    fn enter(&self, budget: BucketKey, _: Duration) -> Lease {
        let mut budgets = self.budgets.lock();
        self.insert(budgets.entry(budget).or_default(), self.clock.now())
    }

    fn end(&self, budget: BucketKey, lease: Lease, ended: LeaseEnd) {
        let now = self.clock.now();
        let mut budgets = self.budgets.lock();
        let log = budgets.entry(budget).or_default();
        match ended {
            LeaseEnd::Counted { .. } => {
                if let Some(entry) = log.entries.get_mut(&lease.0) {
                    entry.ended = Some(now);
                }
            }
            LeaseEnd::NotCounted => drop(log.entries.remove(&lease.0)),
            LeaseEnd::Throttled { wait } => {
                log.entries.remove(&lease.0);
                log.blocked_until = log.blocked_until.max(now.after(wait));
            }
        }
    }

    fn usage(&self, budget: BucketKey, window: Duration) -> UsageFuture<'_> {
        Box::pin(self.answer(move || {
            let now = self.clock.now();
            let budgets = self.budgets.lock();
            let Some(log) = budgets.get(&budget) else { return FleetUsage::default() };
            FleetUsage { used: log.used(now, window).len() as u64, starts: log.starts(now, window) }
        }))
    }
}
