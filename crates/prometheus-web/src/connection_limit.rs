//! Limits the number of connections and evicts some when the limit is reached.
//!
//! With a plain cap, 512 clients that send nothing would block all others until their timeouts end. A client that
//! waits for a permit therefore gets the permit of the connection that has been idle longest. A connection is idle
//! without a request in flight: between two requests, with half a head sent, or in its TLS handshake. If none is idle,
//! the client gets the permit of the connection whose requests have all been waiting for their client longest, for at
//! least [`SLOW_AFTER`]. A connection with a request that waits for the server is never evicted.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::connection_state::ConnectionState;

/// How long a client with a request in flight may read nothing, or less than 16 KiB, before its connection can be
/// evicted.
pub(super) const SLOW_AFTER: Duration = Duration::from_secs(1);

/// How often a client that waits for a permit looks for such a connection.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Issues connection permits.
#[derive(Clone)]
pub(super) struct ConnectionLimit {
    shared: Arc<Shared>,
}

struct Shared {
    permits: Arc<Semaphore>,
    queue: Mutex<Queue>,
    /// All connections. Not locked while a connection is dropped, which locks it, too.
    connections: Mutex<HashMap<u64, Weak<ConnectionState>>>,
}

#[derive(Default)]
struct Queue {
    /// Idle connections in the order in which they became idle; the first is evicted first.
    idle: BTreeMap<u64, Arc<Notice>>,
    last_key: u64,
    /// Accepted clients that wait for a permit.
    waiting: usize,
    /// Waiting clients for which no connection has been evicted yet. At most `waiting`.
    unserved: usize,
}

/// Signals one connection to close.
#[derive(Default)]
struct Notice {
    given: AtomicBool,
    wake: Notify,
}

impl ConnectionLimit {
    /// Creates a limit of `permits` connections, at least 1.
    pub(super) fn new(permits: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                permits: Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS))),
                queue: Mutex::default(),
                connections: Mutex::default(),
            }),
        }
    }

    /// Returns a permit if one is free.
    pub(super) fn try_admit(&self) -> Option<ConnectionPermit> {
        let permit = Arc::clone(&self.shared.permits).try_acquire_owned().ok()?;
        Some(self.permit(permit))
    }

    /// Waits for a permit; evicts the longest idle connection if none is free.
    pub(super) async fn admit(&self) -> ConnectionPermit {
        if let Some(permit) = self.try_admit() {
            return permit;
        }
        let waiting = Waiting::new(&self.shared);
        let mut permit = std::pin::pin!(Arc::clone(&self.shared.permits).acquire_owned());
        let permit = loop {
            if waiting.is_unserved() && self.evict_slowest() {
                waiting.mark_served();
            }
            match timeout(POLL_INTERVAL, permit.as_mut()).await {
                Ok(permit) => break permit,
                // The evicted connection may have stayed, for example because a request just arrived.
                Err(_) => waiting.wait_again(),
            }
        };
        drop(waiting);
        match permit {
            Ok(permit) => self.permit(permit),
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Evicts the longest idle or slowest connection, when the process is out of file descriptors. Returns whether
    /// there was one.
    pub(super) fn evict_one(&self) -> bool {
        let has_evicted = self.shared.queue.lock().evict_longest_idle();
        has_evicted || self.evict_slowest()
    }

    /// Returns all connections.
    pub(super) fn connections(&self) -> Vec<Arc<ConnectionState>> {
        self.shared.connections.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Evicts the connection that has been slow longest.
    fn evict_slowest(&self) -> bool {
        let now = Instant::now();
        let slow = self.connections().into_iter().filter(|connection| !connection.permit().is_evicted());
        let slow = slow.filter_map(|connection| Some((connection.slow_since()?, connection)));
        let slowest = slow.filter(|(since, _)| now - *since >= SLOW_AFTER).min_by_key(|(since, _)| *since);
        if let Some((_, connection)) = &slowest {
            connection.permit().notice.give();
        }
        slowest.is_some()
    }

    fn permit(&self, permit: OwnedSemaphorePermit) -> ConnectionPermit {
        let permit = ConnectionPermit {
            shared: Arc::clone(&self.shared),
            notice: Arc::default(),
            id: Mutex::new(None),
            position: AtomicU64::new(0),
            _permit: permit,
        };
        permit.set_idle();
        permit
    }
}

impl Queue {
    /// A new key, from 1.
    fn next_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    fn evict_for_waiting(&mut self) {
        while self.unserved > 0 && self.evict_longest_idle() {
            self.unserved -= 1;
        }
    }

    fn evict_longest_idle(&mut self) -> bool {
        let Some((_, notice)) = self.idle.pop_first() else {
            return false;
        };
        notice.give();
        true
    }
}

impl Notice {
    fn give(&self) {
        self.given.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

/// Counts a waiting client while it waits, also if its wait is cancelled.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mut queue = shared.queue.lock();
        queue.waiting += 1;
        queue.unserved += 1;
        queue.evict_for_waiting();
        drop(queue);
        Self(shared)
    }

    /// Returns whether a waiting client has no evicted connection yet.
    fn is_unserved(&self) -> bool {
        self.0.queue.lock().unserved > 0
    }

    /// Records that a connection was evicted.
    fn mark_served(&self) {
        let mut queue = self.0.queue.lock();
        queue.unserved = queue.unserved.saturating_sub(1);
    }

    fn wait_again(&self) {
        let mut queue = self.0.queue.lock();
        queue.unserved = (queue.unserved + 1).min(queue.waiting);
        queue.evict_for_waiting();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.waiting -= 1;
        queue.unserved = queue.unserved.min(queue.waiting);
    }
}

/// The permit of one connection. Idle at first.
pub(super) struct ConnectionPermit {
    shared: Arc<Shared>,
    notice: Arc<Notice>,
    /// Key among all connections.
    id: Mutex<Option<u64>>,
    /// Key in the queue of idle connections while idle, otherwise 0. Changed under the queue's lock.
    position: AtomicU64,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPermit {
    /// Marks the connection as having no request in flight.
    pub(super) fn set_idle(&self) {
        let mut queue = self.shared.queue.lock();
        if self.position.load(Ordering::Relaxed) != 0 || self.notice.given.load(Ordering::Relaxed) {
            return;
        }
        let key = queue.next_key();
        queue.idle.insert(key, Arc::clone(&self.notice));
        self.position.store(key, Ordering::Relaxed);
        queue.evict_for_waiting();
    }

    /// Marks the connection as having a request in flight.
    pub(super) fn set_busy(&self) {
        let mut queue = self.shared.queue.lock();
        let key = self.position.load(Ordering::Relaxed);
        if key != 0 {
            queue.idle.remove(&key);
            self.position.store(0, Ordering::Relaxed);
        }
    }

    /// Assigns the permit to a connection.
    pub(super) fn assign_to(&self, connection: &Arc<ConnectionState>) {
        let id = self.shared.queue.lock().next_key();
        *self.id.lock() = Some(id);
        self.shared.connections.lock().insert(id, Arc::downgrade(connection));
    }

    /// Returns whether the connection was evicted.
    pub(super) fn is_evicted(&self) -> bool {
        self.notice.given.load(Ordering::Relaxed)
    }

    /// Evicts the connection.
    pub(super) fn evict(&self) {
        self.set_busy();
        self.notice.give();
    }

    /// Resolves when the connection is evicted.
    pub(super) async fn evicted(&self) {
        self.notice.wake.notified().await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.set_busy();
        if let Some(id) = self.id.get_mut().take() {
            self.shared.connections.lock().remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(permit: &ConnectionPermit) -> bool {
        permit.is_evicted()
    }

    #[tokio::test]
    async fn longest_idle_connection_is_evicted_for_a_new_one() {
        let admission = ConnectionLimit::new(3);
        let first = admission.admit().await;
        let second = admission.admit().await;
        let third = admission.admit().await;
        // The first is the most recently active now; the second has been idle longest.
        first.set_busy();
        first.set_idle();
        assert!(admission.try_admit().is_none());

        let mut waiter = std::pin::pin!(admission.admit());
        assert!(poll_once(waiter.as_mut()).is_none());
        second.evicted().await;
        assert!(!is_evicted(&first) && !is_evicted(&third));
        drop(second);
        waiter.await;
    }

    #[tokio::test]
    async fn busy_connection_stays_until_it_is_idle() {
        let admission = ConnectionLimit::new(1);
        let busy = admission.admit().await;
        busy.set_busy();
        let mut waiter = std::pin::pin!(admission.admit());
        assert!(poll_once(waiter.as_mut()).is_none());
        assert!(!is_evicted(&busy));
        busy.set_idle();
        assert!(is_evicted(&busy));
        drop(busy);
        waiter.await;
    }

    #[tokio::test]
    async fn one_waiting_client_evicts_one_connection() {
        let admission = ConnectionLimit::new(2);
        let first = admission.admit().await;
        let second = admission.admit().await;
        let mut waiter = std::pin::pin!(admission.admit());
        assert!(poll_once(waiter.as_mut()).is_none());
        second.set_busy();
        second.set_idle();
        assert!(is_evicted(&first) && !is_evicted(&second));
    }

    #[tokio::test]
    async fn cancelled_wait_evicts_no_connection() {
        let admission = ConnectionLimit::new(1);
        let busy = admission.admit().await;
        busy.set_busy();
        {
            let mut waiter = std::pin::pin!(admission.admit());
            assert!(poll_once(waiter.as_mut()).is_none());
        }
        busy.set_idle();
        assert!(!is_evicted(&busy));
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
