//! The state of a connection and its deadlines.
//!
//! hyper's `header_read_timeout` is not used. It starts when the connection becomes idle, so it would close every
//! keep-alive connection after the few seconds meant for a request head. And it does not run before the first bytes
//! distinguish HTTP/1 from HTTP/2, so a client that sends nothing could stay forever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::connection_limit::ConnectionPermit;
use super::handler::Ambiguity;
use super::in_flight::InFlight;
use super::progress::RequestProgress;
use super::unsent::UnsentBytes;

/// How long a client that did not read its last response has to notice that the connection ends.
const LEAVING: Duration = Duration::from_secs(1);

/// The time limits of a connection.
#[derive(Clone, Copy)]
pub(super) struct TimeLimits {
    pub(super) header_read: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
}

/// The state of one connection, shared by its socket, its HTTP service and its task.
pub(super) struct ConnectionState {
    permit: ConnectionPermit,
    limits: TimeLimits,
    /// The local port that the client connected to.
    local_port: Option<u16>,
    /// Unsent bytes of all responses of the server.
    unsent: Arc<UnsentBytes>,
    /// Unsent bytes of this connection's responses.
    held: AtomicUsize,
    /// Whether a response was ended because the client read too slowly.
    was_slow: AtomicBool,
    /// Whether the server asks its clients to leave.
    has_leaving_server: AtomicBool,
    /// Whether the connection waits, or waited, for the client to notice that it ends.
    was_leaving: AtomicBool,
    /// Whether a request body was dropped before its end.
    has_unread: AtomicBool,
    /// Whether the connection's task runs: it reads the deadline before it ends, and need not be woken.
    is_polled: AtomicBool,
    state: Mutex<State>,
}

struct State {
    requests: Vec<Arc<RequestProgress>>,
    /// Requests of which only unread response bytes are left.
    tails: usize,
    /// When the client stopped reading written bytes; the socket's write timeout applies.
    write_stalled: Option<Instant>,
    http2: bool,
    waiting: Waiting,
    /// HTTP/1 heads received, heads whose request was handled, and the ambiguities of the others.
    heads_read: u64,
    heads_taken: u64,
    ambiguous: VecDeque<(u64, Ambiguity)>,
    /// When an HTTP/2 head started that is not complete.
    part_of_head: Option<Instant>,
    /// Wakes the connection's task.
    waker: Option<Waker>,
}

/// What an idle connection waits for, and since when.
#[derive(Clone, Copy)]
enum Waiting {
    /// The rest of a request head; includes the TLS handshake and everything else before the first request.
    Head { since: Instant },
    /// The first byte of the next request.
    NextRequest { since: Instant },
    /// The close: the client did not read the last response, which was ended.
    Leaving { since: Instant },
}

impl ConnectionState {
    pub(super) fn new(
        permit: ConnectionPermit,
        limits: TimeLimits,
        unsent: Arc<UnsentBytes>,
        local_port: Option<u16>,
    ) -> Arc<Self> {
        let connection = Arc::new(Self {
            permit,
            limits,
            local_port,
            unsent,
            held: AtomicUsize::new(0),
            was_slow: AtomicBool::new(false),
            has_leaving_server: AtomicBool::new(false),
            was_leaving: AtomicBool::new(false),
            has_unread: AtomicBool::new(false),
            is_polled: AtomicBool::new(false),
            state: Mutex::new(State {
                requests: Vec::new(),
                tails: 0,
                write_stalled: None,
                http2: false,
                waiting: Waiting::Head { since: Instant::now() },
                heads_read: 0,
                heads_taken: 0,
                ambiguous: VecDeque::new(),
                part_of_head: None,
                waker: None,
            }),
        });
        connection.permit.assign_to(&connection);
        connection
    }

    /// Returns the local port that the client connected to, if there is one.
    pub(super) fn local_port(&self) -> Option<u16> {
        self.local_port
    }

    /// Returns the connection's permit, which signals eviction.
    pub(super) fn permit(&self) -> &ConnectionPermit {
        &self.permit
    }

    /// Records that the connection's task runs. It ends each run with [`deadline`](Self::deadline).
    pub(super) fn poll_begins(&self) {
        self.is_polled.store(true, Ordering::Relaxed);
    }

    /// Records that the server asks its clients to leave.
    pub(super) fn server_leaves(&self) {
        self.has_leaving_server.store(true, Ordering::Relaxed);
    }

    /// Returns whether the server asks its clients to leave. The connection's task knows it from its next run on.
    pub(super) fn has_leaving_server(&self) -> bool {
        self.has_leaving_server.load(Ordering::Relaxed)
    }

    /// Returns when the connection has to be closed if nothing else happens.
    ///
    /// `None` while a request is in flight, unless only unread response bytes are left of it. Changes wake the task.
    pub(super) fn deadline(&self, cx: &Context<'_>) -> Option<Instant> {
        let mut state = self.state.lock();
        // Under the lock: earlier changes are visible here, and later ones wake the task.
        self.is_polled.store(false, Ordering::Relaxed);
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        if state.write_stalled.is_some() {
            return None;
        }
        if !state.requests.is_empty() {
            if state.tails == 0 {
                return None;
            }
            let tails = state.requests.iter().filter_map(|request| request.tail_stalled_since());
            return tails.min().map(|since| since + self.limits.write);
        }
        let deadline = match state.waiting {
            Waiting::Head { since } => since + self.limits.header_read,
            Waiting::NextRequest { since } => since + self.limits.idle,
            Waiting::Leaving { since } => since + LEAVING,
        };
        Some(state.part_of_head.map_or(deadline, |since| deadline.min(since + self.limits.header_read)))
    }

    /// Returns whether no request is in flight and every response is sent, so that closing loses nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().is_idle()
    }

    /// Returns whether the client did not read its last response and has nothing else in flight.
    pub(super) fn is_leaving(&self) -> bool {
        if !self.was_leaving.load(Ordering::Relaxed) {
            return false;
        }
        let state = self.state.lock();
        state.is_idle() && matches!(state.waiting, Waiting::Leaving { .. })
    }

    /// Returns since when the connection only waits for a client that is slow to read or send.
    ///
    /// `None` if it is idle or the server still has work for one of its requests.
    pub(super) fn slow_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        if let Some(since) = state.write_stalled {
            return state
                .requests
                .iter()
                .filter_map(|request| request.slow_since())
                .min()
                .min(Some(since))
                .or(Some(since));
        }
        let mut latest = None;
        for request in &state.requests {
            latest = latest.max(Some(request.slow_since()?));
        }
        latest
    }

    /// Returns the requests with a [`RequestProgress::slow_since`] that can be ended individually.
    pub(super) fn slow_requests(&self) -> Vec<(Instant, Arc<RequestProgress>)> {
        let state = self.state.lock();
        let requests = state.requests.iter().filter(|_| state.http2);
        requests.filter_map(|request| Some((request.slow_since()?, Arc::clone(request)))).collect()
    }

    /// Returns the unsent bytes of this connection's responses.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns whether a response was ended because the client read too slowly.
    pub(super) fn was_slow(&self) -> bool {
        self.was_slow.load(Ordering::Relaxed)
    }

    /// Marks that a response was ended because the client read too slowly.
    pub(super) fn mark_slow(&self) {
        self.was_slow.store(true, Ordering::Relaxed);
    }

    /// Ends all requests of a closed connection.
    pub(super) fn end_requests(&self) {
        let requests = self.state.lock().requests.clone();
        for request in requests {
            request.end();
        }
    }

    /// Starts the time limit for the first request head after the TLS handshake.
    pub(super) fn handshake_done(&self) {
        self.state.lock().waiting = Waiting::Head { since: Instant::now() };
    }

    /// Records that the client sent something.
    pub(super) fn bytes_received(&self) {
        let mut state = self.state.lock();
        // Idle HTTP/2 clients also send pings and acknowledgements, which are not heads.
        if state.http2 || !state.requests.is_empty() {
            return;
        }
        if matches!(state.waiting, Waiting::NextRequest { .. }) {
            state.waiting = Waiting::Head { since: Instant::now() };
        }
    }

    /// Records that an HTTP/2 head started or ended.
    pub(super) fn set_part_of_head(&self, is_there: bool) {
        let mut state = self.state.lock();
        if !is_there {
            state.part_of_head = None;
        } else if state.part_of_head.is_none() {
            state.part_of_head = Some(Instant::now());
        }
    }

    /// Records an HTTP/1 head and its ambiguity.
    pub(super) fn head_read(&self, ambiguity: Option<Ambiguity>) {
        let mut state = self.state.lock();
        state.heads_read += 1;
        if let Some(ambiguity) = ambiguity {
            let number = state.heads_read;
            state.ambiguous.push_back((number, ambiguity));
        }
    }

    /// Records that a request body was dropped before its end: the client may still be sending it.
    pub(super) fn body_abandoned(&self) {
        self.has_unread.store(true, Ordering::Relaxed);
    }

    /// Returns whether the client may still be sending a body that is not read.
    pub(super) fn has_unread(&self) -> bool {
        self.has_unread.load(Ordering::Relaxed)
    }

    /// Records that the client stopped reading, or reads again.
    pub(super) fn set_write_stalled(&self, stalled: bool) {
        self.state.lock().write_stalled = stalled.then(Instant::now);
    }

    /// Whether an HTTP/2 request has arrived.
    pub(super) fn is_http2(&self) -> bool {
        self.state.lock().http2
    }

    /// Records a complete request head. The request ends when the guard is dropped.
    pub(super) fn request_started(self: &Arc<Self>, http2: bool) -> Arc<InFlight> {
        let progress = Arc::new(RequestProgress::new());
        // If there was an unread body, hyper has read it.
        self.has_unread.store(false, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.http2 = http2;
        let ambiguity = if http2 { None } else { state.next_ambiguity() };
        state.requests.push(Arc::clone(&progress));
        if state.requests.len() == 1 {
            self.permit.set_busy();
        }
        drop(state);
        Arc::new(InFlight::new(Arc::clone(self), progress, ambiguity))
    }

    /// Adds unsent bytes of responses.
    pub(super) fn hold(&self, bytes: usize) {
        if bytes > 0 {
            self.held.fetch_add(bytes, Ordering::Relaxed);
            self.unsent.hold(bytes);
        }
    }

    /// Removes bytes of responses that were sent or dropped.
    pub(super) fn release(&self, bytes: usize) {
        if bytes > 0 {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            self.unsent.release(bytes);
        }
    }

    /// Records that only unread response bytes are left of one more request.
    pub(super) fn tail_begins(&self) {
        let mut state = self.state.lock();
        state.tails += 1;
        self.wake(state);
    }

    /// Records the end of a request.
    pub(super) fn request_ended(&self, request: &Arc<RequestProgress>, is_tail: bool) {
        let mut state = self.state.lock();
        if is_tail {
            state.tails -= 1;
        }
        if let Some(position) = state.requests.iter().position(|other| Arc::ptr_eq(other, request)) {
            state.requests.swap_remove(position);
        }
        if !state.requests.is_empty() {
            return;
        }
        let since = Instant::now();
        let has_stalled = request.has_stalled();
        if has_stalled {
            self.was_leaving.store(true, Ordering::Relaxed);
        }
        state.waiting = if has_stalled { Waiting::Leaving { since } } else { Waiting::NextRequest { since } };
        self.permit.set_idle();
        self.wake(state);
    }

    /// Wakes the connection's task, so that it reads the deadline again.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        // HTTP/1 requests end while the task runs.
        let waker = if self.is_polled.load(Ordering::Relaxed) { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    /// The ambiguity of the next HTTP/1 request's head. Called once per request.
    fn next_ambiguity(&mut self) -> Option<Ambiguity> {
        self.heads_taken += 1;
        let taken = self.heads_taken;
        self.ambiguous.pop_front_if(|(number, _)| *number <= taken).map(|(_, ambiguity)| ambiguity)
    }

    fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.write_stalled.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection_limit::ConnectionLimit;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(360);
    const WRITE: Duration = Duration::from_secs(30);

    async fn activity() -> Arc<ConnectionState> {
        let limits = TimeLimits { header_read: HEAD, idle: IDLE, write: WRITE };
        ConnectionState::new(
            ConnectionLimit::new(1).admit().await,
            limits,
            Arc::new(UnsentBytes::new(usize::MAX)),
            None,
        )
    }

    fn left(activity: &ConnectionState) -> Option<Duration> {
        activity.deadline(&Context::from_waker(Waker::noop())).map(|deadline| deadline - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn new_connection_has_the_head_timeout() {
        let activity = activity().await;
        tokio::time::advance(Duration::from_secs(4)).await;
        activity.bytes_received();
        assert_eq!(left(&activity), Some(Duration::from_secs(6)));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_timeout_holds_until_a_head_starts() {
        let activity = activity().await;
        let first = activity.request_started(false);
        assert_eq!(left(&activity), None);
        drop(first);
        assert_eq!(left(&activity), Some(IDLE));
        activity.bytes_received();
        assert_eq!(left(&activity), Some(HEAD));
    }

    #[tokio::test(start_paused = true)]
    async fn request_end_while_the_task_runs_does_not_wake_it() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let (activity, cx) = (activity().await, Context::from_waker(&waker));
        for (rests, woken) in [(false, 0), (true, 1)] {
            let request = activity.request_started(false);
            activity.deadline(&cx);
            activity.poll_begins();
            if rests {
                activity.deadline(&cx);
            }
            drop(request);
            assert_eq!(count.0.load(Ordering::Relaxed), woken);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn http2_pings_do_not_start_a_head() {
        let activity = activity().await;
        drop(activity.request_started(true));
        activity.bytes_received();
        assert_eq!(left(&activity), Some(IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_response_is_left_to_the_write_timeout() {
        let activity = activity().await;
        drop(activity.request_started(false));
        activity.set_write_stalled(true);
        assert_eq!(left(&activity), None);
        assert!(!activity.is_idle());
    }
}
