//! The shared budget in Redis.
//!
//! One sorted set for each budget: an entry for each request of every process, scored with the server's time, so that the
//! clocks of the processes do not matter. A request stands in it from before it leaves until a window after its answer. A
//! script enters a request only where fewer than the limit stand there, so that no stretch as long as a window sees more,
//! whatever the network does to the order. (The usual GCRA needs a single number, but lets twice the limit through in a
//! window that begins after a pause, or only half of it in the long run. A thousand entries are some 100 kB.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::distributed::{BucketKey, DistributedLimiter, Lease, LeaseEnd, LimiterUnreachable, Room, TakeFuture, Taken};
use crate::redis::{RedisClient, Reply, Script};

/// How long a request stands in the log whose end nobody told, beside the window: its process died, or could not tell.
const GRACE: Duration = Duration::from_secs(30);

/// A process that did not ask for so long is gone.
const PRESENCE: Duration = Duration::from_secs(60);

/// Ends that may wait to be told. What does not fit in ends by itself after [`GRACE`].
const MAX_UNTOLD: usize = 10_000;

/// Enters a request if there is room; else says how long there is none, in microseconds.
const TAKE: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local room, window, grace, presence = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local function text(number) return string.format('%.0f', number) end
redis.call('ZADD', KEYS[3], text(now), ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', text(now - presence))
redis.call('PEXPIRE', KEYS[3], text(presence / 1000))
local processes = redis.call('ZCARD', KEYS[3])
local blocked = redis.call('PTTL', KEYS[2])
if blocked > 0 then return {0, blocked * 1000, processes} end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now - window))
local used = redis.call('ZCARD', KEYS[1])
if used < room then
  redis.call('ZADD', KEYS[1], text(now + grace), ARGV[5])
  redis.call('PEXPIRE', KEYS[1], text((window + grace) / 1000))
  return {1, 0, processes}
end
local first = redis.call('ZRANGE', KEYS[1], used - room, used - room, 'WITHSCORES')
return {0, math.max(1000, math.min(window, first[2] + window - now)), processes}
";

/// Enters, ends or takes away a request, and blocks the budget for a while.
const END: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local what, window, grace = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local function text(number) return string.format('%.0f', number) end
if what == 'enter' then
  redis.call('ZADD', KEYS[1], text(now + grace), ARGV[4])
elseif what == 'counted' then
  redis.call('ZADD', KEYS[1], 'XX', text(now), ARGV[4])
else
  redis.call('ZREM', KEYS[1], ARGV[4])
end
if window > 0 then redis.call('PEXPIRE', KEYS[1], text((window + grace) / 1000)) end
local block = tonumber(ARGV[5])
if block > 0 and redis.call('PTTL', KEYS[2]) < block then
  redis.call('SET', KEYS[2], '1', 'PX', text(block))
end
return 1
";

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
    instance: String,
    /// Of this process, by chance.
    process: String,
    take: Script,
    end: Script,
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
            instance: instance.to_owned(),
            process: format!("{:016x}", fastrand::u64(..)),
            take: Script::new(TAKE),
            end: Script::new(END),
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
        let told = match ended {
            LeaseEnd::Counted { window } => Update { budget, lease, what: "counted", window, block: Duration::ZERO },
            LeaseEnd::NotCounted => {
                Update { budget, lease, what: "uncounted", window: Duration::ZERO, block: Duration::ZERO }
            }
            LeaseEnd::Throttled { wait } => {
                Update { budget, lease, what: "uncounted", window: Duration::ZERO, block: wait }
            }
        };
        self.send(told);
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
        let [log, block] = self.keys(budget);
        let processes = format!("pace:{}:processes", self.instance);
        let arguments = [
            room.requests.to_string(),
            micros(room.window),
            micros(GRACE),
            micros(PRESENCE),
            self.member(lease),
            self.process.clone(),
        ];
        let arguments = arguments.each_ref().map(|argument| argument.as_bytes());
        let reply = self
            .store
            .run(&self.take, &[&log, &block, &processes], &arguments)
            .await
            .map_err(|_| LimiterUnreachable)?;
        let numbers: Vec<_> = reply.into_list().unwrap_or_default().iter().filter_map(Reply::int).collect();
        let [taken, wait, processes] = numbers[..] else { return Err(LimiterUnreachable) };
        let outcome = if taken == 1 { Ok(lease) } else { Err(Duration::from_micros(wait.max(0).unsigned_abs())) };
        Ok(Taken { outcome, processes: processes.max(1).unsigned_abs() })
    }

    fn keys(&self, BucketKey { bucket, entity }: BucketKey) -> [String; 2] {
        let owner = entity.map_or_else(String::new, |entity| format!(":{:016x}", entity.0));
        ["log", "block"].map(|kind| format!("pace:{}:{}{owner}:{kind}", self.instance, bucket.as_str()))
    }

    fn member(&self, lease: Lease) -> String {
        format!("{}:{}", self.process, lease.0)
    }

    async fn send(&self, update: Update) {
        let [log, block] = self.keys(update.budget);
        let arguments = [
            update.what.to_owned(),
            micros(update.window),
            micros(GRACE),
            self.member(update.lease),
            update.block.as_millis().to_string(),
        ];
        let arguments = arguments.each_ref().map(|argument| argument.as_bytes());
        // When it cannot be told, the entry ends by itself, and the store has said what is wrong.
        let _ = self.store.run(&self.end, &[&log, &block], &arguments).await;
    }
}

async fn send_updates(shared: Arc<Inner>, mut ends: mpsc::Receiver<Update>) {
    while let Some(update) = ends.recv().await {
        shared.send(update).await;
    }
}

fn micros(duration: Duration) -> String {
    duration.as_micros().to_string()
}
