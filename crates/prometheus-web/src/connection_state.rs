//! What a connection is doing, and until when it may go on doing it.
//!
//! hyper's own `header_read_timeout` is not used: it starts when the connection becomes idle, so it would close every
//! kept-alive connection after the few seconds meant for a request head, and it does not run at all before the first
//! bytes have told HTTP/1 from HTTP/2, where a client that sends nothing could stay for ever.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection_limit::ConnectionPermit;
use super::handler::Ambiguity;

/// The state of one connection, shared by its socket, its HTTP service and the task that watches over both.
pub(super) struct ConnectionState {
    place: ConnectionPermit,
    header_read_timeout: Duration,
    idle_timeout: Duration,
    state: Mutex<State>,
}

struct State {
    requests_in_flight: usize,
    /// Written bytes that the client does not take; the socket's write timeout is in charge.
    write_stalled: bool,
    http2: bool,
    waiting: Waiting,
    /// What is wrong with the last request head.
    ambiguity: Option<Ambiguity>,
    /// The body of a request was given up before its end.
    has_unread: bool,
}

/// What an idle connection is waiting for, and since when.
#[derive(Clone, Copy)]
enum Waiting {
    /// The rest of a request head; also the TLS handshake and everything else before the first request.
    Head { since: Instant },
    /// The first byte of the next request.
    NextRequest { since: Instant },
}

impl ConnectionState {
    pub(super) fn new(place: ConnectionPermit, header_read_timeout: Duration, idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            place,
            header_read_timeout,
            idle_timeout,
            state: Mutex::new(State {
                requests_in_flight: 0,
                write_stalled: false,
                http2: false,
                waiting: Waiting::Head { since: Instant::now() },
                ambiguity: None,
                has_unread: false,
            }),
        })
    }

    /// The right to be there; says when the connection has to leave for another one.
    pub(super) fn place(&self) -> &ConnectionPermit {
        &self.place
    }

    /// When the connection has to be closed if nothing more happens; `None` while a request is in flight.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.state.lock();
        if !state.is_idle() {
            return None;
        }
        Some(match state.waiting {
            Waiting::Head { since } => since + self.header_read_timeout,
            Waiting::NextRequest { since } => since + self.idle_timeout,
        })
    }

    /// No request in flight and every answer is on its way: closing loses nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().is_idle()
    }

    /// The TLS handshake is over; the time for the first request head begins.
    pub(super) fn handshake_done(&self) {
        self.state.lock().waiting = Waiting::Head { since: Instant::now() };
    }

    /// The client has sent something.
    pub(super) fn bytes_received(&self) {
        let mut state = self.state.lock();
        // HTTP/2 clients also send pings and acknowledgements while idle: those are no head.
        if state.http2 || state.requests_in_flight > 0 {
            return;
        }
        if matches!(state.waiting, Waiting::NextRequest { .. }) {
            state.waiting = Waiting::Head { since: Instant::now() };
        }
    }

    /// Whether what the client sends now is the head of a request.
    pub(super) fn awaits_head(&self) -> bool {
        self.state.lock().requests_in_flight == 0
    }

    /// The head that has just been read can be understood in two ways.
    pub(super) fn head_is_ambiguous(&self, ambiguity: Ambiguity) {
        self.state.lock().ambiguity = Some(ambiguity);
    }

    /// What is ambiguous in the head that has just been read; asked once for each.
    pub(super) fn take_ambiguity(&self) -> Option<Ambiguity> {
        self.state.lock().ambiguity.take()
    }

    /// The body of a request was given up before its end: the client may still be sending it.
    pub(super) fn body_given_up(&self) {
        self.state.lock().has_unread = true;
    }

    /// Whether the client may still be sending a body that nobody reads.
    pub(super) fn has_unread(&self) -> bool {
        self.state.lock().has_unread
    }

    /// The client takes no more bytes, or takes them again.
    pub(super) fn set_write_stalled(&self, stalled: bool) {
        self.state.lock().write_stalled = stalled;
    }

    /// A request head is complete. The request is over when the guard is dropped.
    pub(super) fn request_started(self: &Arc<Self>, http2: bool) -> InFlight {
        let mut state = self.state.lock();
        state.http2 = http2;
        // If there was one, hyper has read it.
        state.has_unread = false;
        state.requests_in_flight += 1;
        if state.requests_in_flight == 1 {
            self.place.becomes_busy();
        }
        drop(state);
        InFlight(Arc::clone(self))
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.requests_in_flight == 0 && !self.write_stalled
    }
}

/// A request from the end of its head to the end of its answer's body.
pub(super) struct InFlight(Arc<ConnectionState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.requests_in_flight -= 1;
        if state.requests_in_flight == 0 {
            state.waiting = Waiting::NextRequest { since: Instant::now() };
            self.0.place.becomes_idle();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection_limit::ConnectionLimit;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(360);

    async fn activity() -> Arc<ConnectionState> {
        ConnectionState::new(ConnectionLimit::new(1).admit().await, HEAD, IDLE)
    }

    fn left(activity: &ConnectionState) -> Option<Duration> {
        activity.deadline().map(|deadline| deadline - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_has_the_time_of_a_head_however_it_drips() {
        let activity = activity().await;
        tokio::time::advance(Duration::from_secs(4)).await;
        activity.bytes_received();
        assert_eq!(left(&activity), Some(Duration::from_secs(6)));
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_the_idle_time_holds_until_a_head_begins() {
        let activity = activity().await;
        let first = activity.request_started(false);
        assert_eq!(left(&activity), None);
        drop(first);
        assert_eq!(left(&activity), Some(IDLE));
        activity.bytes_received();
        assert_eq!(left(&activity), Some(HEAD));
    }

    #[tokio::test(start_paused = true)]
    async fn pings_of_an_idle_http2_client_begin_no_head() {
        let activity = activity().await;
        drop(activity.request_started(true));
        activity.bytes_received();
        assert_eq!(left(&activity), Some(IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_answer_is_left_to_the_write_timeout() {
        let activity = activity().await;
        drop(activity.request_started(false));
        activity.set_write_stalled(true);
        assert_eq!(left(&activity), None);
        assert!(!activity.is_idle());
    }
}
