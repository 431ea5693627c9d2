//! The connection for operations.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::RedisClientError;
use super::connect::Connector;

/// Minimum age of a connection to a replica before it is replaced, since writes may be frequent.
const RENEW_AFTER: Duration = Duration::from_secs(1);

/// A connection, open or being opened. Opening continues when all waiters are dropped.
pub(super) type Connecting = Shared<BoxFuture<'static, Result<MultiplexedConnection, RedisClientError>>>;

/// Opens the connection on first use, and again after it broke.
pub(super) struct ConnectionManager {
    target: Arc<Connector>,
    connect_timeout: Duration,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    /// Number of connections started; identifies the current one.
    number: u64,
    connection: Option<Connecting>,
    /// When the current one was started.
    since: Option<Instant>,
    /// Open and drive connections. They end with the manager.
    tasks: JoinSet<()>,
}

impl ConnectionManager {
    pub(super) fn new(target: Arc<Connector>, connect_timeout: Duration) -> Self {
        Self { target, connect_timeout, slot: Mutex::default() }
    }

    /// Returns the current connection and its number.
    pub(super) fn connection(&self) -> (u64, Connecting) {
        let mut slot = self.slot.lock();
        if let Some(connection) = &slot.connection {
            return (slot.number, connection.clone());
        }
        while slot.tasks.try_join_next().is_some() {}
        let (sender, receiver) = oneshot::channel();
        let (target, connect_timeout) = (Arc::clone(&self.target), self.connect_timeout);
        slot.tasks.spawn(async move {
            let opened = timeout(connect_timeout, target.open()).await;
            let opened = opened.unwrap_or(Err(RedisClientError::Timeout { after: connect_timeout }));
            let (connection, driver) = opened.map_or_else(|error| (Err(error), None), |(c, d)| (Ok(c), Some(d)));
            // Without a receiver, the connection is closed by being dropped.
            if sender.send(connection).is_ok()
                && let Some(driver) = driver
            {
                driver.await;
            }
        });
        let gone = || Err(RedisClientError::unavailable("connecting was cancelled"));
        let connection = receiver.map(move |result| result.unwrap_or_else(|_| gone())).boxed().shared();
        slot.number += 1;
        slot.connection = Some(connection.clone());
        slot.since = Some(Instant::now());
        (slot.number, connection)
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
        let mut slot = self.slot.lock();
        if slot.connection.as_ref().is_some_and(|connection| connection.peek().is_some()) {
            slot.connection = None;
        }
    }

    /// Number of connections started.
    pub(super) fn begun(&self) -> u64 {
        self.slot.lock().number
    }
}
