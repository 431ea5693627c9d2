//! The distributed limiter in Redis.
//!
//! Each bucket has a sorted set with one entry per request of any process, scored by the server's time, so that the
//! clocks of the processes do not matter. An entry stays from before the request leaves until one window after its
//! response. A script adds an entry only if fewer than the limit exist, so that no period of one window contains more,
//! however the network reorders requests. As long as the server may be a sliding counter, that must allow the request
//! too. All processes share what any of them finds out about it.
//!
//! GCRA would need a single number, but allows twice the limit in a window that begins after a pause, or only half of
//! it in the long run. A thousand entries take about 100 kB.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::counting_kind::CountingKind;
use super::distributed::{
    BucketKey, DistributedLimiter, Lease, LeaseEnd, LimiterUnreachable, Room, SLOTS_PER_WINDOW, START_WINDOWS,
    TakeFuture, Taken, UsageFuture,
};
use crate::redis::scripts::limiter as scripts;
use crate::redis::{InstanceKeys, RedisClient, RedisKey, Reply, Script};
use clerk_quota::fleet::{FleetUsage, StartSlot};

/// How long an entry without an end stays, beyond the window: its process died or could not report.
const GRACE: Duration = Duration::from_secs(30);

/// A process without a request for this long is considered gone.
const PRESENCE: Duration = Duration::from_secs(60);

/// Maximum number of queued updates. A dropped update expires after [`GRACE`].
const MAX_UPDATES: usize = 10_000;

/// Rate limits of one Clerk instance, shared through Redis.
#[derive(Debug)]
pub struct RedisLimiter {
    shared: Arc<Inner>,
    leases: AtomicU64,
    updates: mpsc::Sender<Update>,
    /// Sends the updates until it is dropped.
    _sender: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Inner {
    store: RedisClient,
    keys: InstanceKeys,
    /// Random id of this process.
    process: String,
    take: Script,
    end: Script,
    usage: Script,
}

#[derive(Debug, Clone, Copy)]
struct Update {
    budget: BucketKey,
    lease: Lease,
    what: &'static str,
    window: Duration,
    block: Duration,
}

impl RedisLimiter {
    /// Creates a limiter. All processes must use the same name for the instance. Needs a tokio runtime.
    #[must_use]
    pub fn new(store: RedisClient, instance: &str) -> Arc<Self> {
        let shared = Arc::new(Inner {
            store,
            keys: InstanceKeys::new(instance),
            process: format!("{:016x}", fastrand::u64(..)),
            take: Script::new(&scripts::take()),
            end: Script::new(&scripts::end()),
            usage: Script::new(scripts::USAGE),
        });
        let (updates, ends) = mpsc::channel(MAX_UPDATES);
        let mut sender = JoinSet::new();
        sender.spawn(send_updates(Arc::clone(&shared), ends));
        Arc::new(Self { shared, leases: AtomicU64::new(0), updates, _sender: Mutex::new(sender) })
    }

    fn lease(&self) -> Lease {
        Lease(self.leases.fetch_add(1, Ordering::Relaxed))
    }

    fn send(&self, update: Update) {
        // A dropped update expires by itself.
        let _ = self.updates.try_send(update);
    }
}

impl DistributedLimiter for RedisLimiter {
    fn take(&self, budget: BucketKey, room: Room) -> TakeFuture<'_> {
        let lease = self.lease();
        let guard = ReleaseOnDrop { budget: self, entry: Some((budget, lease, room.window)) };
        Box::pin(async move {
            let mut guard = guard;
            let taken = self.shared.take(budget, lease, room).await;
            // On success nothing is left to remove. After an error, the entry may exist.
            if taken.is_ok() {
                guard.entry = None;
            }
            taken
        })
    }

    fn enter(&self, budget: BucketKey, window: Duration) -> Lease {
        let lease = self.lease();
        self.send(Update { budget, lease, what: "enter", window, block: Duration::ZERO });
        lease
    }

    fn end(&self, budget: BucketKey, lease: Lease, ended: LeaseEnd) {
        let (what, window, block) = match ended {
            LeaseEnd::Counted { window, answered: true } => ("counted", window, Duration::ZERO),
            LeaseEnd::Counted { window, answered: false } => ("lost", window, Duration::ZERO),
            LeaseEnd::NotCounted => ("uncounted", Duration::ZERO, Duration::ZERO),
            LeaseEnd::Throttled { wait, window } => ("throttled", window, wait),
        };
        self.send(Update { budget, lease, what, window, block });
    }

    fn usage(&self, budget: BucketKey, window: Duration) -> UsageFuture<'_> {
        Box::pin(self.shared.usage(budget, window))
    }
}

/// Removes the entry of a request that was dropped while the script ran.
struct ReleaseOnDrop<'a> {
    budget: &'a RedisLimiter,
    entry: Option<(BucketKey, Lease, Duration)>,
}

impl Drop for ReleaseOnDrop<'_> {
    fn drop(&mut self) {
        if let Some((budget, lease, window)) = self.entry {
            self.budget.send(Update { budget, lease, what: "uncounted", window, block: Duration::ZERO });
        }
    }
}

impl Inner {
    async fn take(&self, budget: BucketKey, lease: Lease, room: Room) -> Result<Taken, LimiterUnreachable> {
        let [log, block, starts, _, throttled, _] = self.keys(budget);
        let [counting, calm, explorer, processes] = self.instance_keys();
        let keys = [&log, &block, &starts, &counting, &calm, &explorer, &throttled, &processes];
        let arguments = [
            room.requests.to_string(),
            micros(room.window),
            micros(GRACE),
            micros(PRESENCE),
            self.member(lease),
            self.process.clone(),
            micros(room.window / SLOTS_PER_WINDOW),
            slots().to_string(),
            u8::from(room.may_explore).to_string(),
        ];
        let arguments = arguments.each_ref().map(|argument| argument.as_bytes());
        let reply = self.store.run(&self.take, &keys, &arguments).await.map_err(|_| LimiterUnreachable)?;
        let numbers: Vec<_> = reply.into_list().unwrap_or_default().iter().filter_map(Reply::int).collect();
        let [taken, wait, processes, kind, throttled, used] = numbers[..] else { return Err(LimiterUnreachable) };
        let outcome = if taken == 0 { Err(Duration::from_micros(wait.max(0).unsigned_abs())) } else { Ok(lease) };
        let counting = match kind {
            1 => CountingKind::Exact,
            2 => CountingKind::SlidingCounter,
            _ => CountingKind::Unknown,
        };
        let (processes, throttled) = (processes.max(1).unsigned_abs(), throttled.max(0).unsigned_abs());
        let used = used.max(0).unsigned_abs();
        Ok(Taken { outcome, processes, used, throttled, counting, explores: taken == 2 })
    }

    async fn usage(&self, budget: BucketKey, window: Duration) -> Result<FleetUsage, LimiterUnreachable> {
        let [log, _, starts, ..] = self.keys(budget);
        let arguments = [micros(window), slots().to_string()];
        let arguments = arguments.each_ref().map(|argument| argument.as_bytes());
        let reply = self.store.run(&self.usage, &[&log, &starts], &arguments).await.map_err(|_| LimiterUnreachable)?;
        let numbers: Vec<_> = reply.into_list().unwrap_or_default().iter().filter_map(Reply::int).collect();
        let [used, length, slots @ ..] = &numbers[..] else { return Err(LimiterUnreachable) };
        let length = Duration::from_micros(length.max(&0).unsigned_abs());
        let mut starts: Vec<_> = slots
            .chunks_exact(2)
            .map(|slot| StartSlot {
                began_ago: Duration::from_micros(slot[0].max(0).unsigned_abs()),
                length,
                requests: slot[1].max(0).unsigned_abs(),
            })
            .collect();
        starts.sort_unstable_by_key(|slot| std::cmp::Reverse(slot.began_ago));
        Ok(FleetUsage { used: used.max(&0).unsigned_abs(), starts })
    }

    fn keys(&self, BucketKey { bucket, entity }: BucketKey) -> [RedisKey; 6] {
        let owner = entity.map_or_else(String::new, |entity| format!("{:016x}", entity.0));
        let key = |kind| self.keys.key(&["pace", bucket.as_str(), &owner, kind]);
        ["log", "block", "starts", "unsure", "throttled", "refuted"].map(key)
    }

    /// Keys for the whole instance.
    fn instance_keys(&self) -> [RedisKey; 4] {
        ["counting", "calm", "explorer", "processes"].map(|kind| self.keys.key(&["pace", kind]))
    }

    fn member(&self, lease: Lease) -> String {
        format!("{}:{}", self.process, lease.0)
    }

    async fn send(&self, update: Update) {
        let [log, block, starts, unsure, throttled, refuted] = self.keys(update.budget);
        let [counting, calm, explorer, _] = self.instance_keys();
        let keys = [&log, &block, &starts, &counting, &calm, &explorer, &throttled, &unsure, &refuted];
        let arguments = [
            update.what.to_owned(),
            micros(update.window),
            micros(GRACE),
            self.member(update.lease),
            update.block.as_millis().to_string(),
            micros(update.window / SLOTS_PER_WINDOW),
            slots().to_string(),
        ];
        let arguments = arguments.each_ref().map(|argument| argument.as_bytes());
        // If it fails, the entry expires by itself; the Redis client has logged the error.
        let _ = self.store.run(&self.end, &keys, &arguments).await;
    }
}

async fn send_updates(shared: Arc<Inner>, mut ends: mpsc::Receiver<Update>) {
    while let Some(update) = ends.recv().await {
        shared.send(update).await;
    }
}

/// Number of slots in which request starts are kept.
const fn slots() -> u32 {
    SLOTS_PER_WINDOW * START_WINDOWS
}

fn micros(duration: Duration) -> String {
    duration.as_micros().to_string()
}
