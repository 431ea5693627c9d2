//! Limits the memory of responses that clients have not read yet.
//!
//! A response that is built before it is sent stays in memory while its client does not read, and a client can request
//! many. Above the limit, requests therefore wait before they reach the handler. Responses of which nothing was read
//! for a second are ended, and their connections get the lowest priority from then on: a client that stalls and
//! retries is not served before one that reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connection_limit::{ConnectionLimit, SLOW_AFTER};
use super::connection_state::ConnectionState;
use super::in_flight::InFlight;
use super::progress::RequestProgress;

/// How long a request waits before it is rejected, and how often it checks.
const MAX_WAIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The share of all bytes that one connection may hold, and the share reserved for connections that hold nothing yet.
const CONNECTION_SHARE: usize = 4;
const NEW_CONNECTIONS_SHARE: usize = 2;

/// The unsent bytes of all responses of a server.
pub(super) struct UnsentBytes {
    most: usize,
    held: AtomicUsize,
    /// The typical size of a response, from the larger recent ones.
    typical: AtomicUsize,
    /// Waiting requests of connections that were never slow.
    waiting: AtomicUsize,
}

impl UnsentBytes {
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0), typical: AtomicUsize::new(0), waiting: AtomicUsize::new(0) }
    }

    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Records the size of a response that a handler built.
    pub(super) fn record_response(&self, bytes: usize) {
        // An update that another one overtakes is lost: the value is an estimate.
        let old = self.typical.load(Ordering::Relaxed);
        let new = bytes.max(old - old / 8);
        if new != old {
            self.typical.store(new, Ordering::Relaxed);
        }
    }

    /// Waits for capacity to build a response for this request. Returns false if that takes too long.
    pub(super) async fn wait_for_capacity(
        &self,
        connection: &ConnectionState,
        request: &InFlight,
        all: &ConnectionLimit,
    ) -> bool {
        if self.reserve(connection, request) {
            return true;
        }
        let since = Instant::now();
        let mut priority = Some(PriorityWaiter::new(&self.waiting));
        loop {
            self.end_slow_responses(all);
            if connection.was_slow() {
                drop(priority.take());
            }
            if self.reserve(connection, request) {
                return true;
            }
            if since.elapsed() >= MAX_WAIT {
                return false;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    fn reserve(&self, connection: &ConnectionState, request: &InFlight) -> bool {
        if connection.was_slow() && self.waiting.load(Ordering::Relaxed) > 0 {
            return false;
        }
        let typical = self.typical.load(Ordering::Relaxed);
        let fits = fits(self.most, self.held.load(Ordering::Relaxed), connection.held(), typical);
        if fits {
            request.set_held(typical);
        }
        fits
    }

    /// Ends responses whose clients read too slowly, the longest waiting first, until there is capacity.
    fn end_slow_responses(&self, all: &ConnectionLimit) {
        let now = Instant::now();
        let held = self.held.load(Ordering::Relaxed);
        let mut too_much = held.saturating_sub(self.most / NEW_CONNECTIONS_SHARE / 2);
        let mut slow = Vec::new();
        for connection in all.connections() {
            let requests = connection.slow_requests();
            if requests.is_empty() {
                slow.extend(
                    connection.slow_since().map(|since| (since, connection.held(), Slow::Connection(connection))),
                );
            } else {
                let each = connection.held() / requests.len();
                let slow_request = |(since, request)| (since, each, Slow::Request(Arc::clone(&connection), request));
                slow.extend(requests.into_iter().map(slow_request));
            }
        }
        slow.retain(|(since, bytes, _)| now - *since >= SLOW_AFTER && *bytes > 0);
        slow.sort_by_key(|(since, ..)| *since);
        for (_, bytes, slow) in slow {
            if too_much == 0 {
                break;
            }
            too_much = too_much.saturating_sub(bytes);
            match slow {
                Slow::Request(connection, request) => {
                    connection.mark_slow();
                    request.end();
                }
                Slow::Connection(connection) => connection.permit().evict(),
            }
        }
    }
}

enum Slow {
    Request(Arc<ConnectionState>, Arc<RequestProgress>),
    Connection(Arc<ConnectionState>),
}

/// A waiting request with priority over those of slow clients, while this is held.
struct PriorityWaiter<'a>(&'a AtomicUsize);

impl<'a> PriorityWaiter<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for PriorityWaiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns whether a connection that holds `own` of the `held` bytes may hold `more`.
fn fits(most: usize, held: usize, own: usize, more: usize) -> bool {
    if held == 0 {
        return true;
    }
    let all = held.saturating_add(more);
    if own == 0 {
        return all <= most;
    }
    all <= most / NEW_CONNECTIONS_SHARE && own.saturating_add(more) <= most / CONNECTION_SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_response_fits_and_one_connection_is_limited() {
        assert!(fits(100, 0, 0, 1000));
        assert!(fits(100, 60, 0, 40));
        assert!(!fits(100, 61, 0, 40));
        assert!(fits(100, 40, 15, 10));
        assert!(!fits(100, 40, 16, 10));
        assert!(!fits(100, 41, 1, 10));
        assert!(fits(usize::MAX, usize::MAX / 2 - 1, 0, usize::MAX));
    }
}
