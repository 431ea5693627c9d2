//! What a connection is doing, and until when it may go on doing it.
//!
//! hyper's own `header_read_timeout` is not used: it starts when the connection becomes idle, so it would close every
//! kept-alive connection after the few seconds meant for a request head, and it does not run at all before the first
//! bytes have told HTTP/1 from HTTP/2, where a client that sends nothing could stay for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::connection_limit::ConnectionPermit;
use super::handler::Ambiguity;
use super::progress::RequestProgress;
use super::unsent::UnsentBytes;

/// How long a client that let its last response lie may take to read that the connection ends.
const LEAVING: Duration = Duration::from_secs(1);

/// The time limits of a connection.
#[derive(Clone, Copy)]
pub(super) struct TimeLimits {
    pub(super) header_read: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
}

/// The state of one connection, shared by its socket, its HTTP service and the task that watches over both.
pub(super) struct ConnectionState {
    place: ConnectionPermit,
    limits: TimeLimits,
    /// The port that the client has connected to.
    local_port: Option<u16>,
    /// What all responses of the server hold.
    unsent: Arc<UnsentBytes>,
    /// What the responses of this connection hold.
    held: AtomicUsize,
    /// A response was ended because the client took too little of it.
    was_slow: AtomicBool,
    /// The task of the connection runs, and asks for the deadline before it rests: nobody has to wake it.
    is_polled: AtomicBool,
    state: Mutex<State>,
}

struct State {
    requests: Vec<Arc<RequestProgress>>,
    /// Requests of which only bytes are left that the client does not take.
    tails: usize,
    /// Since when the client takes none of the written bytes; the socket's write timeout is in charge.
    write_stalled: Option<Instant>,
    http2: bool,
    waiting: Waiting,
    /// HTTP/1 heads that came, those of which the request was taken up, and what is ambiguous in which of the others.
    heads_read: u64,
    heads_taken: u64,
    ambiguous: VecDeque<(u64, Ambiguity)>,
    /// Since when there is a part of a head on an HTTP/2 connection.
    part_of_head: Option<Instant>,
    /// The body of a request was given up before its end.
    has_unread: bool,
    /// Wakes the task of the connection.
    waker: Option<Waker>,
}

/// What an idle connection is waiting for, and since when.
#[derive(Clone, Copy)]
enum Waiting {
    /// The rest of a request head; also the TLS handshake and everything else before the first request.
    Head { since: Instant },
    /// The first byte of the next request.
    NextRequest { since: Instant },
    /// Nothing: its client did not take the last response, which was ended.
    Leaving { since: Instant },
}

impl ConnectionState {
    pub(super) fn new(
        place: ConnectionPermit,
        limits: TimeLimits,
        unsent: Arc<UnsentBytes>,
        local_port: Option<u16>,
    ) -> Arc<Self> {
        let connection = Arc::new(Self {
            place,
            limits,
            local_port,
            unsent,
            held: AtomicUsize::new(0),
            was_slow: AtomicBool::new(false),
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
                has_unread: false,
                waker: None,
            }),
        });
        connection.place.is_for(&connection);
        connection
    }

    /// The port that the client has connected to, if there are ports.
    pub(super) fn local_port(&self) -> Option<u16> {
        self.local_port
    }

    /// The right to be there; says when the connection has to leave for another one.
    pub(super) fn place(&self) -> &ConnectionPermit {
        &self.place
    }

    /// The task of the connection begins to look at it, and ends with [`deadline`](Self::deadline).
    pub(super) fn poll_begins(&self) {
        self.is_polled.store(true, Ordering::Relaxed);
    }

    /// When the connection has to be closed if nothing more happens; `None` while a request is in flight, unless all that
    /// is left of it are bytes that the client does not take. What may change that wakes the task.
    pub(super) fn deadline(&self, cx: &Context<'_>) -> Option<Instant> {
        let mut state = self.state.lock();
        // Under the lock: what changes from here on wakes the task, and what changed before is seen here.
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

    /// No request in flight and every answer is on its way: closing loses nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().is_idle()
    }

    /// Whether the client let its last response lie and has nothing else in flight.
    pub(super) fn is_leaving(&self) -> bool {
        let state = self.state.lock();
        state.is_idle() && matches!(state.waiting, Waiting::Leaving { .. })
    }

    /// Since when the connection has been waiting for nothing but a client that is slow to take or to send; `None` if it
    /// is idle, or if we have something to do for one of its requests.
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

    /// The requests of which [`RequestProgress::slow_since`] says something and which can be ended alone.
    pub(super) fn slow_requests(&self) -> Vec<(Instant, Arc<RequestProgress>)> {
        let state = self.state.lock();
        let requests = state.requests.iter().filter(|_| state.http2);
        requests.filter_map(|request| Some((request.slow_since()?, Arc::clone(request)))).collect()
    }

    /// Bytes that the responses of this connection hold.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether a response was ended because the client took too little of it.
    pub(super) fn was_slow(&self) -> bool {
        self.was_slow.load(Ordering::Relaxed)
    }

    /// A response is ended because the client takes too little of it.
    pub(super) fn is_slow(&self) {
        self.was_slow.store(true, Ordering::Relaxed);
    }

    /// Ends all requests: the connection is gone.
    pub(super) fn end_requests(&self) {
        let requests = self.state.lock().requests.clone();
        for request in requests {
            request.end();
        }
    }

    /// The TLS handshake is over; the time for the first request head begins.
    pub(super) fn handshake_done(&self) {
        self.state.lock().waiting = Waiting::Head { since: Instant::now() };
    }

    /// The client has sent something.
    pub(super) fn bytes_received(&self) {
        let mut state = self.state.lock();
        // HTTP/2 clients also send pings and acknowledgements while idle: those are no head.
        if state.http2 || !state.requests.is_empty() {
            return;
        }
        if matches!(state.waiting, Waiting::NextRequest { .. }) {
            state.waiting = Waiting::Head { since: Instant::now() };
        }
    }

    /// A head has begun, or ended, on an HTTP/2 connection.
    pub(super) fn set_part_of_head(&self, is_there: bool) {
        let mut state = self.state.lock();
        if !is_there {
            state.part_of_head = None;
        } else if state.part_of_head.is_none() {
            state.part_of_head = Some(Instant::now());
        }
    }

    /// A head of HTTP/1 has come; perhaps it can be understood in two ways.
    pub(super) fn head_read(&self, ambiguity: Option<Ambiguity>) {
        let mut state = self.state.lock();
        state.heads_read += 1;
        if let Some(ambiguity) = ambiguity {
            let number = state.heads_read;
            state.ambiguous.push_back((number, ambiguity));
        }
    }

    /// What is ambiguous in the head of the next request of HTTP/1; asked once for each.
    pub(super) fn next_ambiguity(&self) -> Option<Ambiguity> {
        let mut state = self.state.lock();
        state.heads_taken += 1;
        let taken = state.heads_taken;
        state.ambiguous.pop_front_if(|(number, _)| *number <= taken).map(|(_, ambiguity)| ambiguity)
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
        self.state.lock().write_stalled = stalled.then(Instant::now);
    }

    /// A request head is complete. The request is over when the guard is dropped.
    pub(super) fn request_started(self: &Arc<Self>, http2: bool) -> Arc<InFlight> {
        let progress = Arc::new(RequestProgress::new());
        let mut state = self.state.lock();
        state.http2 = http2;
        // If there was one, hyper has read it.
        state.has_unread = false;
        state.requests.push(Arc::clone(&progress));
        if state.requests.len() == 1 {
            self.place.becomes_busy();
        }
        drop(state);
        Arc::new(InFlight {
            connection: Arc::clone(self),
            progress,
            held: AtomicUsize::new(0),
            is_tail: AtomicBool::new(false),
        })
    }

    /// Wakes the task of the connection, which has to look at the deadline anew.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        // In HTTP/1 requests end while it runs.
        let waker = if self.is_polled.load(Ordering::Relaxed) { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.write_stalled.is_none()
    }
}

/// A request from the end of its head to the last byte of its response.
pub(super) struct InFlight {
    connection: Arc<ConnectionState>,
    progress: Arc<RequestProgress>,
    /// Bytes that its response holds.
    held: AtomicUsize,
    is_tail: AtomicBool,
}

impl InFlight {
    /// Where it stands.
    pub(super) fn progress(&self) -> &Arc<RequestProgress> {
        &self.progress
    }

    /// From now on its response holds so many bytes, until the request is over.
    pub(super) fn holds(&self, bytes: usize) {
        let before = self.held.swap(bytes, Ordering::Relaxed);
        self.connection.hold(bytes);
        self.connection.let_go(before);
    }

    /// A piece of the response is on its way.
    pub(super) fn piece_begins(&self, bytes: usize) {
        self.connection.hold(bytes);
    }

    /// The same piece, or a part of it, has left.
    pub(super) fn piece_ends(&self, bytes: usize) {
        self.connection.let_go(bytes);
    }

    /// The body of its response is gone. Bytes of it may be on their way.
    pub(super) fn body_is_gone(&self) {
        self.progress.body_is_gone();
        if self.progress.tail_stalled_since().is_some() && !self.is_tail.swap(true, Ordering::Relaxed) {
            let mut state = self.connection.state.lock();
            state.tails += 1;
            self.connection.wake(state);
        }
    }
}

impl ConnectionState {
    fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.unsent.hold(bytes);
    }

    fn let_go(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.unsent.let_go(bytes);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.let_go(*self.held.get_mut());
        let mut state = connection.state.lock();
        if *self.is_tail.get_mut() {
            state.tails -= 1;
        }
        if let Some(position) = state.requests.iter().position(|request| Arc::ptr_eq(request, &self.progress)) {
            state.requests.swap_remove(position);
        }
        if !state.requests.is_empty() {
            return;
        }
        let since = Instant::now();
        let has_stalled = self.progress.has_stalled();
        state.waiting = if has_stalled { Waiting::Leaving { since } } else { Waiting::NextRequest { since } };
        connection.place.becomes_idle();
        connection.wake(state);
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
    async fn a_request_that_ends_while_the_task_runs_does_not_wake_it() {
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
