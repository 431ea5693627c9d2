//! The distributed limiter in Redis.
//!
//! Each bucket has a sorted set with one entry per request of any process, scored by the server's time, so that the
//! clocks of the processes do not matter. An entry stays from before the request leaves until one window after its
//! response. A script adds an entry only if fewer than the limit exist, so that no period of one window contains more,
//! however the network reorders requests. As long as the server may be a sliding counter, that must allow the request
//! too. All processes share what any of them finds out about it.
//!
//! If callers have shares, the instance's bucket has further sorted sets for each of them: the caller's part of the log, and
//! its waiting requests that claim its guarantee. One script looks at all of them.
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
    BucketKey, Claim, DistributedLimiter, Lease, LeaseEnd, LimiterUnreachable, NoRoomFor, Room, SLOTS_PER_WINDOW,
    START_WINDOWS, SharedShares, TakeFuture, Taken, UsageFuture,
};
use crate::redis::scripts::limiter as scripts;
use crate::redis::{InstanceKeys, RedisClient, RedisClientError, RedisKey, Reply, Script};
use clerk_quota::fleet::{FleetUsage, StartSlot};

/// How long an entry without an end stays, beyond the window: its process died or could not report.
const GRACE: Duration = Duration::from_secs(30);

/// A process without a request for this long is considered gone.
const PRESENCE: Duration = Duration::from_secs(60);

/// Maximum number of queued updates. A dropped update expires after [`GRACE`].
const MAX_UPDATES: usize = 10_000;

/// In the place of a cap.
const NO_CAP: &str = "-1";

/// Rate limits of one Clerk instance, shared through Redis.
#[derive(Debug)]
pub struct RedisLimiter {
    shared: Arc<Inner>,
    leases: AtomicU64,
    updates: mpsc::Sender<Update>,
    /// Apart from the updates of the log, which must not wait for claims or be dropped because of them.
    claims: mpsc::Sender<Update>,
    /// Send the updates until it is dropped.
    _senders: Mutex<JoinSet<()>>,
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
    claim: Script,
}

#[derive(Debug)]
enum Update {
    /// Of an entry in the log.
    Entry {
        budget: BucketKey,
        lease: Lease,
        what: &'static str,
        window: Duration,
        block: Duration,
    },
    Claim {
        claim: Claim,
        patience: Duration,
    },
}

impl RedisLimiter {
    /// Creates a limiter. All processes must use the same name for the instance. Needs a tokio runtime.
    #[must_use]
    pub fn new(store: RedisClient, instance: &str) -> Arc<Self> {
        let shared = Arc::new(Inner {
            store,
            keys: InstanceKeys::new(instance),
            process: format!("{:016x}", fastrand::u64(..)),
            take: scripts::take(),
            end: scripts::end(),
            usage: scripts::usage(),
            claim: scripts::claim(),
        });
        let mut senders = JoinSet::new();
        let [updates, claims] = [(); 2].map(|()| {
            let (updates, received) = mpsc::channel(MAX_UPDATES);
            senders.spawn(send_updates(Arc::clone(&shared), received));
            updates
        });
        Arc::new(Self { shared, leases: AtomicU64::new(0), updates, claims, _senders: Mutex::new(senders) })
    }

    fn lease(&self, caller: Option<Arc<str>>) -> Lease {
        Lease { id: self.leases.fetch_add(1, Ordering::Relaxed), caller }
    }

    fn send(&self, update: Update) {
        // A dropped update expires by itself.
        let _ = self.updates.try_send(update);
    }
}

impl DistributedLimiter for RedisLimiter {
    fn take(&self, budget: BucketKey, room: Room, shares: Option<SharedShares>) -> TakeFuture<'_> {
        let own = shares.as_ref().and_then(|shares| shares.callers.get(shares.own?));
        let lease = self.lease(own.map(|caller| Arc::clone(&caller.name)));
        let guard = ReleaseOnDrop { budget: self, entry: Some((budget, lease.clone(), room.window)) };
        Box::pin(async move {
            let mut guard = guard;
            let taken = self.shared.take(budget, lease, room, shares).await;
            // On success nothing is left to remove. After an error, the entry may exist.
            if taken.is_ok() {
                guard.entry = None;
            }
            taken
        })
    }

    fn enter(&self, budget: BucketKey, window: Duration, caller: Option<Arc<str>>) -> Lease {
        let lease = self.lease(caller);
        self.send(Update::Entry { budget, lease: lease.clone(), what: "enter", window, block: Duration::ZERO });
        lease
    }

    fn claim(&self, _: BucketKey, claim: Claim, patience: Duration) {
        // A dropped claim makes a request wait longer, and a dropped withdrawal ends with the wait.
        let _ = self.claims.try_send(Update::Claim { claim, patience });
    }

    fn end(&self, budget: BucketKey, lease: Lease, ended: LeaseEnd) {
        let (what, window, block) = match ended {
            LeaseEnd::Counted { window, answered: true } => ("counted", window, Duration::ZERO),
            LeaseEnd::Counted { window, answered: false } => ("lost", window, Duration::ZERO),
            LeaseEnd::NotCounted => ("uncounted", Duration::ZERO, Duration::ZERO),
            LeaseEnd::Throttled { wait, window } => ("throttled", window, wait),
        };
        self.send(Update::Entry { budget, lease, what, window, block });
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
        if let Some((budget, lease, window)) = self.entry.take() {
            self.budget.send(Update::Entry { budget, lease, what: "uncounted", window, block: Duration::ZERO });
        }
    }
}

impl Inner {
    async fn take(
        &self,
        budget: BucketKey,
        lease: Lease,
        room: Room,
        shares: Option<SharedShares>,
    ) -> Result<Taken, LimiterUnreachable> {
        let [log, block, starts, _, throttled, _] = self.keys(budget);
        let [counting, calm, explorer, processes] = self.instance_keys();
        let mut keys = vec![log, block, starts, counting, calm, explorer, throttled, processes];
        let mut arguments = vec![
            room.requests.to_string(),
            micros(room.window),
            micros(GRACE),
            micros(PRESENCE),
            self.member(lease.id),
            self.process.clone(),
            micros(room.window / SLOTS_PER_WINDOW),
            slots().to_string(),
            u8::from(room.may_explore).to_string(),
        ];
        if let Some(shares) = shares {
            let own = shares.own.map_or(0, |own| own + 1);
            let cap = shares.own.and_then(|own| shares.callers.get(own)?.cap);
            let cap = cap.map_or_else(|| NO_CAP.to_owned(), |cap| cap.to_string());
            arguments.extend([own.to_string(), cap, shares.guaranteed_room.to_string()]);
            arguments.extend([shares.ticket.to_string(), micros(shares.patience)]);
            for caller in &shares.callers {
                keys.extend(["log", "claims"].map(|kind| self.caller_key(&caller.name, kind)));
                arguments.push(caller.guarantee.to_string());
            }
        }
        let keys: Vec<&RedisKey> = keys.iter().collect();
        let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
        let reply = self.run(&self.take, &keys, &arguments).await.map_err(|_| LimiterUnreachable)?;
        let numbers: Vec<_> = reply.into_list().unwrap_or_default().iter().filter_map(Reply::int).collect();
        let [taken, wait, processes, kind, throttled, used, is_guaranteed, guarantee_wait] = numbers[..] else {
            return Err(LimiterUnreachable);
        };
        let duration = |micros: i64| Duration::from_micros(micros.max(0).unsigned_abs());
        let outcome = if taken > 0 { Ok(lease) } else { Err(NoRoomFor { wait: duration(wait), is_capped: taken < 0 }) };
        let counting = match kind {
            1 => CountingKind::Exact,
            2 => CountingKind::SlidingCounter,
            _ => CountingKind::Unknown,
        };
        Ok(Taken {
            outcome,
            is_guaranteed: is_guaranteed == 1,
            guarantee_wait: duration(guarantee_wait),
            processes: processes.max(1).unsigned_abs(),
            used: used.max(0).unsigned_abs(),
            throttled: throttled.max(0).unsigned_abs(),
            counting,
            explores: taken == 2,
        })
    }

    async fn usage(&self, budget: BucketKey, window: Duration) -> Result<FleetUsage, LimiterUnreachable> {
        let [log, _, starts, ..] = self.keys(budget);
        let arguments = [micros(window), slots().to_string()];
        let arguments = arguments.each_ref().map(|argument| argument.as_bytes());
        let reply = self.run(&self.usage, &[&log, &starts], &arguments).await.map_err(|_| LimiterUnreachable)?;
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

    /// Where the server refuses `TIME`, the processes agree on the time by their newest request.
    async fn run(&self, script: &Script, keys: &[&RedisKey], arguments: &[&[u8]]) -> Result<Reply, RedisClientError> {
        let [.., processes] = self.instance_keys();
        self.store.run_by_log(script, keys, &processes, arguments).await
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

    /// A key of a caller with a share.
    fn caller_key(&self, caller: &str, kind: &str) -> RedisKey {
        self.keys.key(&["pace", "callers", caller, kind])
    }

    fn member(&self, number: u64) -> String {
        format!("{}:{number}", self.process)
    }

    async fn send(&self, update: Update) {
        match update {
            Update::Entry { budget, lease, what, window, block } => {
                self.send_entry(budget, lease, what, (window, block)).await;
            }
            Update::Claim { claim, patience } => {
                let key = self.caller_key(&claim.caller, "claims");
                let arguments = [claim.ticket.to_string(), micros(patience)];
                let arguments = arguments.each_ref().map(|argument| argument.as_bytes());
                // If it fails, the request still leaves, but not before others.
                let _ = self.run(&self.claim, &[&key], &arguments).await;
            }
        }
    }

    async fn send_entry(&self, budget: BucketKey, lease: Lease, what: &str, (window, block): (Duration, Duration)) {
        let [log, block_key, starts, unsure, throttled, refuted] = self.keys(budget);
        let [counting, calm, explorer, _] = self.instance_keys();
        let caller = lease.caller.as_ref().map(|caller| self.caller_key(caller, "log"));
        let mut keys = vec![&log, &block_key, &starts, &counting, &calm, &explorer, &throttled, &unsure, &refuted];
        keys.extend(&caller);
        let arguments = [
            what.to_owned(),
            micros(window),
            micros(GRACE),
            self.member(lease.id),
            block.as_millis().to_string(),
            micros(window / SLOTS_PER_WINDOW),
            slots().to_string(),
        ];
        let arguments = arguments.each_ref().map(|argument| argument.as_bytes());
        // If it fails, the entry expires by itself; the Redis client has logged the error.
        let _ = self.run(&self.end, &keys, &arguments).await;
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
