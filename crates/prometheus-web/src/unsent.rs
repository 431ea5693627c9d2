//! What responses hold in memory until their clients take them, and how much that may be in all.
//!
//! A response that is made before it is sent waits in full for a client that does not read, and a client can ask for many.
//! So a request waits for its handler while there is too much; those that took nothing for a second are ended for it, and
//! their connections come last from then on: who stalls and asks again is not served before who reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connection_limit::{ConnectionLimit, SLOW_AFTER};
use super::connection_state::{ConnectionState, InFlight};
use super::progress::RequestProgress;

/// How long a request waits before it is refused, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The share of all that one connection may hold, and what is kept for connections that hold nothing yet.
const CONNECTION_SHARE: usize = 4;
const NEWCOMERS_SHARE: usize = 2;

/// What all responses of a server hold.
pub(super) struct UnsentBytes {
    most: usize,
    held: AtomicUsize,
    /// What a response holds, by the larger ones of late.
    typical: AtomicUsize,
    /// Requests that wait, of connections that were never slow.
    waiting: AtomicUsize,
}

impl UnsentBytes {
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0), typical: AtomicUsize::new(0), waiting: AtomicUsize::new(0) }
    }

    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn let_go(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A handler has made a response that holds so many bytes.
    pub(super) fn saw(&self, bytes: usize) {
        let _ = self.typical.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| Some(bytes.max(old - old / 8)));
    }

    /// Waits until a response may be made for this request; false if that takes too long.
    pub(super) async fn room(&self, connection: &ConnectionState, request: &InFlight, all: &ConnectionLimit) -> bool {
        if self.reserve(connection, request) {
            return true;
        }
        let since = Instant::now();
        let mut first_in_line = Some(FirstInLine::new(&self.waiting));
        loop {
            self.end_slow_responses(all);
            if connection.was_slow() {
                drop(first_in_line.take());
            }
            if self.reserve(connection, request) {
                return true;
            }
            if since.elapsed() >= PATIENCE {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn reserve(&self, connection: &ConnectionState, request: &InFlight) -> bool {
        if connection.was_slow() && self.waiting.load(Ordering::Relaxed) > 0 {
            return false;
        }
        let typical = self.typical.load(Ordering::Relaxed);
        let fits = fits(self.most, self.held.load(Ordering::Relaxed), connection.held(), typical);
        if fits {
            request.holds(typical);
        }
        fits
    }

    /// Ends responses whose clients take too little of them, the longest waiting ones first, until there is room again.
    fn end_slow_responses(&self, all: &ConnectionLimit) {
        let now = Instant::now();
        let held = self.held.load(Ordering::Relaxed);
        let mut too_much = held.saturating_sub(self.most / NEWCOMERS_SHARE / 2);
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
                    connection.is_slow();
                    request.end();
                }
                Slow::Connection(connection) => connection.place().dismiss(),
            }
        }
    }
}

enum Slow {
    Request(Arc<ConnectionState>, Arc<RequestProgress>),
    Connection(Arc<ConnectionState>),
}

/// A request that waits and goes before those of slow clients, for as long as this is held.
struct FirstInLine<'a>(&'a AtomicUsize);

impl<'a> FirstInLine<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for FirstInLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a connection that holds `own` of the `held` bytes may have `more`.
fn fits(most: usize, held: usize, own: usize, more: usize) -> bool {
    if held == 0 {
        return true;
    }
    let all = held.saturating_add(more);
    if own == 0 {
        return all <= most;
    }
    all <= most / NEWCOMERS_SHARE && own.saturating_add(more) <= most / CONNECTION_SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_response_always_fits_and_one_connection_cannot_take_the_room_of_others() {
        assert!(fits(100, 0, 0, 1000));
        assert!(fits(100, 60, 0, 40));
        assert!(!fits(100, 61, 0, 40));
        assert!(fits(100, 40, 15, 10));
        assert!(!fits(100, 40, 16, 10));
        assert!(!fits(100, 41, 1, 10));
        assert!(fits(usize::MAX, usize::MAX / 2 - 1, 0, usize::MAX));
    }
}
