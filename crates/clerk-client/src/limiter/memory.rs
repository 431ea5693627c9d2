//! The distributed limiter in memory, for tests. It stands in for Redis and uses the given clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::counting_kind::{Counting, CountingKind};
use super::distributed::{
    BucketKey, Claim, DistributedLimiter, Lease, LeaseEnd, LimiterUnreachable, NoRoomFor, Room, SLOTS_PER_WINDOW,
    START_WINDOWS, SharedShares, TakeFuture, Taken, UsageFuture,
};
use super::sliding_counter::SlidingCounterModel;
use clerk_quota::Moment;
use clerk_quota::clock::Clock;
use clerk_quota::fleet::{FleetUsage, StartSlot};

/// The shortest wait returned, and the longest while another request explores.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A distributed limiter in memory. Behaves like `RedisLimiter`, and can be made unreachable.
#[derive(Debug)]
pub struct MemoryDistributedLimiter {
    clock: Arc<Clock>,
    /// Simulated round-trip time.
    latency: Duration,
    processes: u64,
    budgets: Mutex<HashMap<BucketKey, SharedLog>>,
    leases: AtomicU64,
    is_away: AtomicBool,
    asked: AtomicU64,
    counting: Mutex<SharedCounting>,
}

/// How the server counts, as far as any process found out, and the request that explores.
#[derive(Debug, Default)]
struct SharedCounting {
    known: Counting,
    explorer: Option<(u64, u64)>,
}

/// The log of one bucket.
#[derive(Debug, Default)]
struct SharedLog {
    entries: BTreeMap<u64, LogEntry>,
    counter: SlidingCounterModel,
    blocked_until: Moment,
    throttled: u64,
    /// Waiting requests that claim the guarantee of their caller, and until when.
    claims: HashMap<Claim, Moment>,
}

/// What a request may use beside the limit.
#[derive(Debug, Clone, Copy)]
struct ShareState {
    room: Room,
    is_guaranteed: bool,
    guarantee_wait: Duration,
    /// Requests held back for other callers.
    reserved: u64,
    /// Time until the caller is below its cap.
    capped: Option<Duration>,
}

#[derive(Debug, Clone)]
struct LogEntry {
    started: Moment,
    /// `None` while in flight.
    ended: Option<Moment>,
    /// Its caller, if that has a share.
    caller: Option<Arc<str>>,
}

impl SharedLog {
    /// Removes entries too old for any lookup.
    fn settle(&mut self, now: Moment, window: Duration) {
        let kept = window * (START_WINDOWS + 1);
        self.counter.settle(now, window);
        self.entries.retain(|_, entry| entry.ended.is_none_or(|ended| ended.after(kept) > now));
        self.claims.retain(|_, until| *until > now);
    }

    /// Ends of the entries within the window, the earliest first and those in flight last.
    fn used(&self, now: Moment, window: Duration) -> Vec<Option<Moment>> {
        Self::sorted(self.entries.values(), now, window)
    }

    /// The same of one caller.
    fn used_by(&self, caller: &str, now: Moment, window: Duration) -> Vec<Option<Moment>> {
        Self::sorted(self.entries.values().filter(|entry| entry.caller.as_deref() == Some(caller)), now, window)
    }

    fn sorted<'a>(entries: impl Iterator<Item = &'a LogEntry>, now: Moment, window: Duration) -> Vec<Option<Moment>> {
        let mut used: Vec<_> = entries.map(|entry| entry.ended).collect();
        used.retain(|ended| ended.is_none_or(|ended| ended.after(window) > now));
        used.sort_unstable_by_key(|ended| (ended.is_none(), *ended));
        used
    }

    fn in_flight(&self) -> u64 {
        self.entries.values().filter(|entry| entry.ended.is_none()).count() as u64
    }

    /// Whether a request may leave and explores; otherwise the wait.
    fn room(&self, now: Moment, room: Room, counting: &SharedCounting) -> Result<bool, Duration> {
        if self.blocked_until > now {
            return Err(self.blocked_until.since(now));
        }
        let kind = counting.known.kind;
        let by_log = (kind != CountingKind::SlidingCounter).then(|| self.log_wait(now, room)).flatten();
        if let Some(wait) = by_log {
            return Err(wait.max(SHORTEST_WAIT));
        }
        let in_flight = self.in_flight();
        let by_counter = || self.counter.room_at((1, in_flight), room.requests, now, room.window);
        let Some(at) = (kind != CountingKind::Exact).then(by_counter).flatten() else { return Ok(false) };
        let wait = at.since(now).max(SHORTEST_WAIT);
        if !(room.may_explore && counting.known.may_explore(now)) {
            return Err(wait);
        }
        if in_flight == 0 && counting.explorer.is_none() { Ok(true) } else { Err(wait.min(LOOK_AGAIN)) }
    }

    /// Time until the log has room; `None` if it has.
    fn log_wait(&self, now: Moment, room: Room) -> Option<Duration> {
        wait_until_below(&self.used(now, room.window), room.requests, now, room.window)
    }

    fn shares(&self, now: Moment, room: Room, shares: Option<&SharedShares>) -> ShareState {
        let mut state =
            ShareState { room, is_guaranteed: false, guarantee_wait: Duration::ZERO, reserved: 0, capped: None };
        let Some(shares) = shares else { return state };
        let own = shares.own.and_then(|own| shares.callers.get(own));
        if let Some(own) = own {
            let used = self.used_by(&own.name, now, room.window);
            state.is_guaranteed = (used.len() as u64) < own.guarantee;
            if own.guarantee > 0 {
                state.guarantee_wait =
                    wait_until_below(&used, own.guarantee, now, room.window).unwrap_or(Duration::ZERO);
            }
            state.capped = own.cap.and_then(|cap| wait_until_below(&used, cap, now, room.window));
        }
        if state.is_guaranteed {
            state.room.requests = shares.guaranteed_room;
            return state;
        }
        for caller in shares.callers.iter().filter(|caller| own.is_none_or(|own| own.name != caller.name)) {
            let claimed = self.claims.keys().filter(|claim| claim.caller == caller.name).count() as u64;
            let used = self.used_by(&caller.name, now, room.window).len() as u64;
            state.reserved += claimed.min(caller.guarantee.saturating_sub(used));
        }
        state.room.requests = room.requests.saturating_sub(state.reserved);
        state.room.may_explore &= state.reserved == 0;
        state
    }

    fn starts(&self, now: Moment, window: Duration) -> Vec<StartSlot> {
        let length = window / SLOTS_PER_WINDOW;
        let from = now.before(window * START_WINDOWS);
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

/// Time until fewer than `most` of these requests count; `None` if that is so now.
fn wait_until_below(used: &[Option<Moment>], most: u64, now: Moment, window: Duration) -> Option<Duration> {
    let over = (used.len() as u64).checked_sub(most)?;
    let first = usize::try_from(over).ok().and_then(|place| *used.get(place)?);
    Some(first.map_or(window, |ended| ended.after(window).since(now)))
}

impl MemoryDistributedLimiter {
    /// Creates an empty log for a number of processes, with round trips of 3 ms.
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
            counting: Mutex::default(),
        })
    }

    /// Makes all requests fail, or work again.
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    /// Returns the number of requests so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Returns whether all logs are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.budgets.lock().values().all(|log| log.entries.is_empty())
    }

    /// Adds a request if there is room, at once.
    ///
    /// # Errors
    ///
    /// Returns the time until there may be room.
    pub fn try_take(&self, budget: BucketKey, room: Room) -> Result<Lease, Duration> {
        let (taken, _) = self.try_explore(budget, room, None);
        taken.map(|(lease, _)| lease).map_err(|full| full.wait)
    }

    /// The same with shares, and whether the request explores.
    fn try_explore(
        &self,
        budget: BucketKey,
        room: Room,
        shares: Option<&SharedShares>,
    ) -> (Result<(Lease, bool), NoRoomFor>, ShareState) {
        let now = self.clock.now();
        let mut budgets = self.budgets.lock();
        let mut counting = self.counting.lock();
        let log = budgets.entry(budget).or_default();
        log.settle(now, room.window);
        let state = log.shares(now, room, shares);
        let own = shares.and_then(|shares| Some((shares.callers.get(shares.own?)?, shares)));
        let claim = own.map(|(own, shares)| Claim { caller: Arc::clone(&own.name), ticket: shares.ticket });
        let by_limit = || match state.room.requests {
            0 => Err(room.window),
            _ => log.room(now, state.room, &counting),
        };
        // What is held back for others may become free sooner.
        let soon = if state.reserved > 0 { room.window / SLOTS_PER_WINDOW } else { Duration::MAX };
        let admitted = match state.capped {
            Some(wait) => Err(NoRoomFor { wait: wait.max(SHORTEST_WAIT), is_capped: true }),
            None => by_limit().map_err(|wait| NoRoomFor { wait: wait.min(soon), is_capped: false }),
        };
        let explores = match admitted {
            Ok(explores) => explores,
            Err(full) => {
                if let (Some(claim), Some((own, shares))) = (claim, own)
                    && own.guarantee > 0
                {
                    log.claims.insert(claim, now.after(shares.patience));
                }
                return (Err(full), state);
            }
        };
        if let Some(claim) = &claim {
            log.claims.remove(claim);
        }
        let lease = self.insert(log, now, claim.map(|claim| claim.caller));
        if explores {
            counting.explorer = Some((lease.id, room.requests));
        }
        (Ok((lease, explores)), state)
    }

    fn insert(&self, log: &mut SharedLog, now: Moment, caller: Option<Arc<str>>) -> Lease {
        let id = self.leases.fetch_add(1, Ordering::Relaxed);
        log.entries.insert(id, LogEntry { started: now, ended: None, caller: caller.clone() });
        Lease { id, caller }
    }

    async fn answer<T>(&self, answer: impl FnOnce() -> T) -> Result<T, LimiterUnreachable> {
        tokio::time::sleep(self.latency).await;
        if self.is_away.load(Ordering::Relaxed) { Err(LimiterUnreachable) } else { Ok(answer()) }
    }
}

impl DistributedLimiter for MemoryDistributedLimiter {
    fn take(&self, budget: BucketKey, room: Room, shares: Option<SharedShares>) -> TakeFuture<'_> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let processes = self.processes;
            self.answer(|| {
                let (taken, state) = self.try_explore(budget, room, shares.as_ref());
                let counting = self.counting.lock().known.kind;
                let now = self.clock.now();
                let used = self.budgets.lock().get(&budget).map_or(0, |log| log.used(now, room.window).len() as u64);
                let used = used.saturating_sub(u64::from(taken.is_ok()));
                let throttled = self.budgets.lock().get(&budget).map_or(0, |log| log.throttled);
                let explores = taken.as_ref().is_ok_and(|(_, explores)| *explores);
                Taken {
                    outcome: taken.map(|(lease, _)| lease),
                    is_guaranteed: state.is_guaranteed,
                    guarantee_wait: state.guarantee_wait,
                    processes,
                    used,
                    throttled,
                    counting,
                    explores,
                }
            })
            .await
        })
    }

    fn enter(&self, budget: BucketKey, _: Duration, caller: Option<Arc<str>>) -> Lease {
        let mut budgets = self.budgets.lock();
        self.insert(budgets.entry(budget).or_default(), self.clock.now(), caller)
    }

    fn claim(&self, budget: BucketKey, claim: Claim, patience: Duration) {
        let mut budgets = self.budgets.lock();
        let log = budgets.entry(budget).or_default();
        if patience.is_zero() {
            log.claims.remove(&claim);
        } else {
            log.claims.insert(claim, self.clock.now().after(patience));
        }
    }

    fn end(&self, budget: BucketKey, lease: Lease, ended: LeaseEnd) {
        let now = self.clock.now();
        let mut budgets = self.budgets.lock();
        let mut counting = self.counting.lock();
        let log = budgets.entry(budget).or_default();
        let explored = counting.explorer.take_if(|(explorer, _)| *explorer == lease.id);
        match ended {
            LeaseEnd::Counted { window, answered } => {
                if let Some(entry) = log.entries.get_mut(&lease.id) {
                    entry.ended = Some(now);
                    log.counter.push(entry.started, now, window);
                }
                let limit = explored.filter(|_| answered && counting.known.may_explore(now)).map(|(_, limit)| limit);
                if limit.is_some_and(|limit| log.counter.is_refuted(limit, now, window)) {
                    counting.known.rule_out_counter();
                }
            }
            LeaseEnd::NotCounted => drop(log.entries.remove(&lease.id)),
            LeaseEnd::Throttled { wait, window } => {
                log.entries.remove(&lease.id);
                log.blocked_until = log.blocked_until.max(now.after(wait));
                if explored.is_some() && counting.known.may_explore(now) {
                    counting.known.recognise_counter();
                } else {
                    counting.known.doubt(now, window);
                    log.counter.clear_refuted();
                    log.throttled += 1;
                }
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
