//! The shared budget in Redis.
//!
//! One sorted set for each budget: an entry for each request of every process, scored with the server's time, so that the
//! clocks of the processes do not matter. A request stands in it from before it leaves until a window after its answer. A
//! script enters a request only where fewer than the limit stand there, so that no stretch as long as a window sees more,
//! whatever the network does to the order; and only where a sliding counter would let it pass too, as long as the server
//! may be one. What any process finds out of that is known to all. (The usual GCRA needs a single number, but lets twice the limit through in a
//! window that begins after a pause, or only half of it in the long run. A thousand entries are some 100 kB.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::counting_kind::CountingKind;
use super::distributed::{
    BucketKey, DistributedLimiter, Lease, LeaseEnd, LimiterUnreachable, Room, SLOTS_PER_WINDOW, TOLD_WINDOWS,
    TakeFuture, Taken, UsageFuture,
};
use crate::redis::scripts::limiter as scripts;
use crate::redis::{InstanceKeys, RedisClient, RedisKey, Reply, Script};
use clerk_quota::fleet::{FleetUsage, StartSlot};

/// How long a request stands in the log whose end nobody told, beside the window: its process died, or could not tell.
const GRACE: Duration = Duration::from_secs(30);

/// A process that did not ask for so long is gone.
const PRESENCE: Duration = Duration::from_secs(60);

/// Ends that may wait to be told. What does not fit in ends by itself after [`GRACE`].
const MAX_UNTOLD: usize = 10_000;

/// The budgets of one Clerk instance, in Redis.
#[derive(Debug)]
pub struct RedisLimiter {
    shared: Arc<Inner>,
    leases: AtomicU64,
    untold: mpsc::Sender<Update>,
    /// Tells the ends, until this is dropped.
    _teller: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Inner {
    store: RedisClient,
    keys: InstanceKeys,
    /// Of this process, by chance.
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
    /// The budgets of the instance that all processes call by this name. Needs a tokio runtime.
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
        let (untold, ends) = mpsc::channel(MAX_UNTOLD);
        let mut teller = JoinSet::new();
        teller.spawn(send_updates(Arc::clone(&shared), ends));
        Arc::new(Self { shared, leases: AtomicU64::new(0), untold, _teller: Mutex::new(teller) })
    }

    fn lease(&self) -> Lease {
        Lease(self.leases.fetch_add(1, Ordering::Relaxed))
    }

    fn send(&self, update: Update) {
        // What does not fit in ends by itself.
        let _ = self.untold.try_send(update);
    }
}

impl DistributedLimiter for RedisLimiter {
    fn take(&self, budget: BucketKey, room: Room) -> TakeFuture<'_> {
        let lease = self.lease();
        let guard = ReleaseOnDrop { budget: self, told: Some((budget, lease, room.window)) };
        Box::pin(async move {
            let mut guard = guard;
            let taken = self.shared.take(budget, lease, room).await;
            // Where nothing was entered, nothing has to be taken away. After an error nobody knows.
            if taken.is_ok() {
                guard.told = None;
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
        let told = Update { budget, lease, what, window, block };
        self.send(told);
    }

    fn usage(&self, budget: BucketKey, window: Duration) -> UsageFuture<'_> {
        Box::pin(self.shared.usage(budget, window))
    }
}

/// A request that gave up while the script was under way: its entry, if there is one, is taken away.
struct ReleaseOnDrop<'a> {
    budget: &'a RedisLimiter,
    told: Option<(BucketKey, Lease, Duration)>,
}

impl Drop for ReleaseOnDrop<'_> {
    fn drop(&mut self) {
        if let Some((budget, lease, window)) = self.told {
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

    /// What is known of the whole instance.
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
        // When it cannot be told, the entry ends by itself, and the store has said what is wrong.
        let _ = self.store.run(&self.end, &keys, &arguments).await;
    }
}

async fn send_updates(shared: Arc<Inner>, mut ends: mpsc::Receiver<Update>) {
    while let Some(update) = ends.recv().await {
        shared.send(update).await;
    }
}

/// Slots of starts that are kept.
const fn slots() -> u32 {
    SLOTS_PER_WINDOW * TOLD_WINDOWS
}

fn micros(duration: Duration) -> String {
    duration.as_micros().to_string()
}
