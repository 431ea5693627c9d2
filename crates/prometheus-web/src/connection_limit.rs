//! How many connections there may be, and who has to go when there are too many.
//!
//! A plain cap would let 512 clients that send nothing keep everybody else out until their timeouts end. So a client
//! that waits for a place gets the place of the connection that has been idle longest: one without a request in
//! flight, whether it rests between two requests, has sent half a head, or is still in its TLS handshake. If there is
//! none, it gets the place of the one whose requests all wait for their client, and have done so longest: for
//! [`SLOW_AFTER`] at least. A connection with a request that waits for us is never closed for another one.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::connection_state::ConnectionState;

/// How long a client with a request in flight may take nothing, or less than 16 KiB, before others can have its place.
pub(super) const SLOW_AFTER: Duration = Duration::from_secs(1);

/// How often a client that waits for a place looks for such a connection.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Hands out places for connections.
#[derive(Clone)]
pub(super) struct ConnectionLimit {
    shared: Arc<Shared>,
}

struct Shared {
    places: Arc<Semaphore>,
    queue: Mutex<Queue>,
    /// All connections. Never locked while a connection is let go: it would lock it, too.
    connections: Mutex<HashMap<u64, Weak<ConnectionState>>>,
}

#[derive(Default)]
struct Queue {
    /// Idle connections in the order in which they became idle: the first one goes first.
    idle: BTreeMap<u64, Arc<Notice>>,
    next: u64,
    /// Clients that are accepted and wait for a place.
    waiting: usize,
    /// Those of them for whom nobody has been told to go yet. At most `waiting`.
    unserved: usize,
}

/// Tells one connection to close.
#[derive(Default)]
struct Notice {
    given: AtomicBool,
    wake: Notify,
}

impl ConnectionLimit {
    /// `places`: the greatest number of connections at one time, at least 1.
    pub(super) fn new(places: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))),
                queue: Mutex::default(),
                connections: Mutex::default(),
            }),
        }
    }

    /// A place if there is a free one.
    pub(super) fn try_admit(&self) -> Option<ConnectionPermit> {
        let permit = Arc::clone(&self.shared.places).try_acquire_owned().ok()?;
        Some(self.place(permit))
    }

    /// A place as soon as there is one; the longest idle connection has to leave for it.
    pub(super) async fn admit(&self) -> ConnectionPermit {
        if let Some(place) = self.try_admit() {
            return place;
        }
        let waiting = Waiting::new(&self.shared);
        let mut permit = std::pin::pin!(Arc::clone(&self.shared.places).acquire_owned());
        let permit = loop {
            if waiting.is_unserved() && self.dismiss_slowest() {
                waiting.is_served();
            }
            match timeout(LOOK_EVERY, permit.as_mut()).await {
                Ok(permit) => break permit,
                // Whoever was told to go may not have gone: perhaps a request came in just then.
                Err(_) => waiting.wait_again(),
            }
        };
        drop(waiting);
        match permit {
            Ok(permit) => self.place(permit),
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Makes the longest idle or slowest connection leave, for when the process has run out of file descriptors. Says
    /// whether there was one.
    pub(super) fn shed_one(&self) -> bool {
        let has_shed = self.shared.queue.lock().dismiss_longest_idle();
        has_shed || self.dismiss_slowest()
    }

    /// All connections there are.
    pub(super) fn connections(&self) -> Vec<Arc<ConnectionState>> {
        self.shared.connections.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Makes the connection leave that has been slow longest.
    fn dismiss_slowest(&self) -> bool {
        let now = Instant::now();
        let slow = self.connections().into_iter().filter(|connection| !connection.place().is_dismissed());
        let slow = slow.filter_map(|connection| Some((connection.slow_since()?, connection)));
        let slowest = slow.filter(|(since, _)| now - *since >= SLOW_AFTER).min_by_key(|(since, _)| *since);
        if let Some((_, connection)) = &slowest {
            connection.place().notice.give();
        }
        slowest.is_some()
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> ConnectionPermit {
        let place = ConnectionPermit {
            shared: Arc::clone(&self.shared),
            notice: Arc::default(),
            id: Mutex::new(None),
            position: Mutex::new(None),
            _permit: permit,
        };
        place.becomes_idle();
        place
    }
}

impl Queue {
    fn make_room(&mut self) {
        while self.unserved > 0 && self.dismiss_longest_idle() {
            self.unserved -= 1;
        }
    }

    fn dismiss_longest_idle(&mut self) -> bool {
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

/// Counts a waiting client for as long as it waits, also when its wait is cancelled.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mut queue = shared.queue.lock();
        queue.waiting += 1;
        queue.unserved += 1;
        queue.make_room();
        drop(queue);
        Self(shared)
    }

    /// Whether nobody has been told to go for one of those who wait.
    fn is_unserved(&self) -> bool {
        self.0.queue.lock().unserved > 0
    }

    /// Somebody has been told to go.
    fn is_served(&self) {
        let mut queue = self.0.queue.lock();
        queue.unserved = queue.unserved.saturating_sub(1);
    }

    fn wait_again(&self) {
        let mut queue = self.0.queue.lock();
        queue.unserved = (queue.unserved + 1).min(queue.waiting);
        queue.make_room();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.waiting -= 1;
        queue.unserved = queue.unserved.min(queue.waiting);
    }
}

/// The right of one connection to exist. Idle at first.
pub(super) struct ConnectionPermit {
    shared: Arc<Shared>,
    notice: Arc<Notice>,
    /// Key among all connections.
    id: Mutex<Option<u64>>,
    /// Key in the queue of idle connections while idle.
    position: Mutex<Option<u64>>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPermit {
    /// The connection has no request in flight from now on.
    pub(super) fn becomes_idle(&self) {
        let mut position = self.position.lock();
        let mut queue = self.shared.queue.lock();
        if position.is_some() || self.notice.given.load(Ordering::Relaxed) {
            return;
        }
        let key = queue.next;
        queue.next += 1;
        queue.idle.insert(key, Arc::clone(&self.notice));
        *position = Some(key);
        queue.make_room();
    }

    /// The connection has a request in flight from now on.
    pub(super) fn becomes_busy(&self) {
        if let Some(key) = self.position.lock().take() {
            self.shared.queue.lock().idle.remove(&key);
        }
    }

    /// From now on the place is that of this connection.
    pub(super) fn is_for(&self, connection: &Arc<ConnectionState>) {
        let mut queue = self.shared.queue.lock();
        let id = queue.next;
        queue.next += 1;
        drop(queue);
        *self.id.lock() = Some(id);
        self.shared.connections.lock().insert(id, Arc::downgrade(connection));
    }

    /// Whether the connection was told to leave.
    pub(super) fn is_dismissed(&self) -> bool {
        self.notice.given.load(Ordering::Relaxed)
    }

    /// Tells the connection to leave.
    pub(super) fn dismiss(&self) {
        self.becomes_busy();
        self.notice.give();
    }

    /// Resolves when the connection has to leave.
    pub(super) async fn dismissed(&self) {
        self.notice.wake.notified().await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.becomes_busy();
        if let Some(id) = self.id.get_mut().take() {
            self.shared.connections.lock().remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_dismissed(place: &ConnectionPermit) -> bool {
        place.is_dismissed()
    }

    #[tokio::test]
    async fn the_longest_idle_connection_leaves_for_a_new_one() {
        let admission = ConnectionLimit::new(3);
        let first = admission.admit().await;
        let second = admission.admit().await;
        let third = admission.admit().await;
        // The first is the freshest now; the second has been idle longest.
        first.becomes_busy();
        first.becomes_idle();
        assert!(admission.try_admit().is_none());

        let mut newcomer = std::pin::pin!(admission.admit());
        assert!(poll_once(newcomer.as_mut()).is_none());
        second.dismissed().await;
        assert!(!is_dismissed(&first) && !is_dismissed(&third));
        drop(second);
        newcomer.await;
    }

    #[tokio::test]
    async fn a_busy_connection_stays_and_the_next_to_become_idle_leaves() {
        let admission = ConnectionLimit::new(1);
        let busy = admission.admit().await;
        busy.becomes_busy();
        let mut newcomer = std::pin::pin!(admission.admit());
        assert!(poll_once(newcomer.as_mut()).is_none());
        assert!(!is_dismissed(&busy));
        busy.becomes_idle();
        assert!(is_dismissed(&busy));
        drop(busy);
        newcomer.await;
    }

    #[tokio::test]
    async fn one_waiting_client_makes_one_connection_leave() {
        let admission = ConnectionLimit::new(2);
        let first = admission.admit().await;
        let second = admission.admit().await;
        let mut newcomer = std::pin::pin!(admission.admit());
        assert!(poll_once(newcomer.as_mut()).is_none());
        second.becomes_busy();
        second.becomes_idle();
        assert!(is_dismissed(&first) && !is_dismissed(&second));
    }

    #[tokio::test]
    async fn a_client_that_gives_up_waiting_makes_nobody_leave_later() {
        let admission = ConnectionLimit::new(1);
        let busy = admission.admit().await;
        busy.becomes_busy();
        {
            let mut newcomer = std::pin::pin!(admission.admit());
            assert!(poll_once(newcomer.as_mut()).is_none());
        }
        busy.becomes_idle();
        assert!(!is_dismissed(&busy));
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
