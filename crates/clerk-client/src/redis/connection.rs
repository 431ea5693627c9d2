//! The connection for operations with one server.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::RedisClientError;
use super::address::NodeAddress;
use super::connect::Connector;
use super::slots::Node;

/// Minimum age of a connection to a replica before it is replaced, since writes may be frequent.
const RENEW_AFTER: Duration = Duration::from_secs(1);

/// Pause after a connection that became too old could not be replaced.
pub(super) const RETRY_RENEWAL: Duration = Duration::from_secs(60);

/// Ten years: as good as for ever.
const LONGEST_AGE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Timeouts in a row after which a connection is given up: a server that vanished never closes it.
const TOLERATED_TIMEOUTS: u32 = 5;

/// A connection, open or being opened. Opening continues when all waiters are dropped.
pub(super) type Connecting = Shared<BoxFuture<'static, Result<OpenConnection, RedisClientError>>>;

/// A connection, and the address of its server.
#[derive(Clone)]
pub(super) struct OpenConnection {
    pub(super) connection: MultiplexedConnection,
    pub(super) address: NodeAddress,
}

/// Opens the connection on first use, again after it broke, and in time before it is too old.
pub(super) struct ConnectionManager {
    target: Arc<Connector>,
    node: Node,
    max_age: Duration,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    /// Number of connections started.
    begun: u64,
    /// Number of the current one.
    number: u64,
    connection: Option<Connecting>,
    /// When the current one was started.
    since: Option<Instant>,
    /// When the current one is too old.
    ends: Option<Instant>,
    /// Replaces the current one, which is used until then.
    renewal: Option<Connecting>,
    /// Timeouts on the current one, in a row.
    timeouts: u32,
    /// Whether the server refuses `TIME` in scripts.
    refuses_time: bool,
    /// Open and drive connections. They end with the manager.
    tasks: JoinSet<()>,
}

impl ConnectionManager {
    pub(super) fn new(target: Arc<Connector>, node: Node, max_age: Duration) -> Self {
        Self { target, node, max_age, slot: Mutex::default() }
    }

    pub(super) const fn node(&self) -> &Node {
        &self.node
    }

    /// Returns the current connection and its number.
    pub(super) fn connection(&self) -> (u64, Connecting) {
        let mut slot = self.slot.lock();
        let now = Instant::now();
        if slot.connection.is_some() && slot.ends.is_some_and(|ends| ends <= now) {
            self.renew_in_background(&mut slot, now);
        }
        if let Some(connection) = &slot.connection {
            return (slot.number, connection.clone());
        }
        // An old connection may end before it was replaced.
        let renewal = slot.renewal.take().filter(|renewal| !matches!(renewal.clone().now_or_never(), Some(Err(_))));
        let connection = renewal.unwrap_or_else(|| self.open(&mut slot));
        self.install(&mut slot, connection.clone(), now);
        (slot.number, connection)
    }

    fn renew_in_background(&self, slot: &mut Slot, now: Instant) {
        match slot.renewal.clone().map(FutureExt::now_or_never) {
            None => slot.renewal = Some(self.open(slot)),
            Some(None) => {}
            Some(Some(Ok(_))) => {
                if let Some(renewal) = slot.renewal.take() {
                    self.install(slot, renewal, now);
                }
            }
            Some(Some(Err(error))) => {
                tracing::debug!(%error, "cannot replace an old connection to Redis");
                slot.renewal = None;
                slot.ends = Some(now + RETRY_RENEWAL);
            }
        }
    }

    fn install(&self, slot: &mut Slot, connection: Connecting, now: Instant) {
        slot.number += 1;
        slot.connection = Some(connection);
        slot.since = Some(now);
        slot.ends = now.checked_add(jittered(self.max_age));
        slot.timeouts = 0;
        slot.refuses_time = false;
    }

    fn open(&self, slot: &mut Slot) -> Connecting {
        while slot.tasks.try_join_next().is_some() {}
        slot.begun += 1;
        let (sender, receiver) = oneshot::channel();
        let (target, node) = (Arc::clone(&self.target), self.node.clone());
        slot.tasks.spawn(async move {
            let (opened, driver) = match target.open(&node).await {
                Ok((connection, driver, address)) => (Ok(OpenConnection { connection, address }), Some(driver)),
                Err(error) => (Err(error), None),
            };
            // Without a receiver, the connection is closed by being dropped.
            if sender.send(opened).is_ok()
                && let Some(driver) = driver
            {
                driver.await;
            }
        });
        let gone = || Err(RedisClientError::unavailable("connecting was cancelled"));
        receiver.map(move |result| result.unwrap_or_else(|_| gone())).boxed().shared()
    }

    /// Discards this connection.
    pub(super) fn discard(&self, number: u64) {
        let mut slot = self.slot.lock();
        if slot.number == number {
            slot.connection = None;
        }
    }

    /// Discards this connection unless it is new.
    pub(super) fn renew(&self, number: u64) {
        let mut slot = self.slot.lock();
        if slot.number == number && slot.since.is_none_or(|since| since.elapsed() >= RENEW_AFTER) {
            slot.connection = None;
        }
    }

    /// Discards the current connection unless it is still being opened.
    pub(super) fn discard_open(&self) {
        self.slot.lock().discard_open();
    }

    /// An operation on this connection timed out. Returns whether the connection was discarded for that.
    pub(super) fn timed_out(&self, number: u64) -> bool {
        let mut slot = self.slot.lock();
        if slot.number != number {
            return false;
        }
        slot.timeouts += 1;
        slot.timeouts >= TOLERATED_TIMEOUTS && slot.discard_open()
    }

    /// The server of this connection answered.
    pub(super) fn answered(&self, number: u64) {
        let mut slot = self.slot.lock();
        if slot.number == number {
            slot.timeouts = 0;
        }
    }

    /// Whether the server of this connection refuses `TIME` in scripts.
    pub(super) fn refuses_time(&self, number: u64) -> bool {
        let slot = self.slot.lock();
        slot.number == number && slot.refuses_time
    }

    /// Remembers until the next connection that the server refuses `TIME` in scripts.
    pub(super) fn set_refuses_time(&self, number: u64) {
        let mut slot = self.slot.lock();
        if slot.number == number {
            slot.refuses_time = true;
        }
    }

    /// Whether there is a connection that was opened.
    pub(super) fn is_open(&self) -> bool {
        self.slot.lock().connection.as_ref().is_some_and(|connection| matches!(connection.peek(), Some(Ok(_))))
    }

    /// Number of connections started.
    pub(super) fn begun(&self) -> u64 {
        self.slot.lock().begun
    }
}

impl Slot {
    fn discard_open(&mut self) -> bool {
        let is_open = self.connection.as_ref().is_some_and(|connection| connection.peek().is_some());
        if is_open {
            self.connection = None;
        }
        is_open
    }
}

/// Up to a tenth less, so that processes that started together do not connect together.
pub(super) fn jittered(age: Duration) -> Duration {
    age.min(LONGEST_AGE).mul_f64(fastrand::f64().mul_add(-0.1, 1.0))
}
