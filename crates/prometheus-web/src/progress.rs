//! Whose turn it is in a request, and when its client last moved on.
//!
//! A socket that takes bytes says little in HTTP/2: pings and settings pass, while the window of a stream stays shut. So
//! each request knows of its own bytes: those that are on their way ([`TrackedBytes`]), and when the last one left.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection_state::InFlight;

/// Bytes that a client has to take, or send, for its wait to begin anew in the eyes of those who look for a connection
/// that can go. The time limits themselves begin anew with each byte.
const STEP: usize = 16 * 1024;

/// What is known of one request while it is in flight.
pub(super) struct RequestProgress {
    state: Mutex<State>,
}

struct State {
    turn: Turn,
    /// Bytes of the response that were handed to the connection and not written yet.
    outstanding: usize,
    /// When the client last took a byte, or when its turn began.
    moved_at: Instant,
    /// When it had last taken [`STEP`] bytes.
    stepped_at: Instant,
    since_step: usize,
    upload: Upload,
    body_is_gone: bool,
    has_stalled: bool,
    is_ended: bool,
    /// Wakes who waits for the end, and who waits until all is written.
    on_end: Option<Waker>,
    on_drain: Option<Waker>,
}

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There is no response yet.
    Handler,
    /// The response goes on as soon as the client takes more.
    Client,
    /// The response goes on as soon as there is more of it.
    Body,
}

/// The request's body.
#[derive(Default)]
struct Upload {
    awaited_since: Option<Instant>,
    /// Waited for its client since [`STEP`] bytes came.
    waited: Duration,
    since_step: usize,
}

impl RequestProgress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                turn: Turn::Handler,
                outstanding: 0,
                moved_at: now,
                stepped_at: now,
                since_step: 0,
                upload: Upload::default(),
                body_is_gone: false,
                has_stalled: false,
                is_ended: false,
                on_end: None,
                on_drain: None,
            }),
        }
    }

    /// There is a response, or more of it.
    pub(super) fn client_s_turn(&self) {
        self.state.lock().client_s_turn();
    }

    /// The response waits for us.
    pub(super) fn body_s_turn(&self) {
        self.state.lock().turn = Turn::Body;
    }

    /// Whether all that was handed over is written. If it is not, the waker is woken when it is.
    pub(super) fn is_drained(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        if state.outstanding > 0 {
            keep(&mut state.on_drain, cx);
        }
        state.outstanding == 0
    }

    /// Since when the response waits for the client to take something; `None` if it does not.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.turn == Turn::Client || state.outstanding > 0).then_some(state.moved_at)
    }

    /// Since when the client does not move on as one does that is served; `None` if we are not waiting for it.
    pub(super) fn slow_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        match state.turn {
            Turn::Handler => state.upload.awaited_since.map(|since| since - state.upload.waited),
            Turn::Body if state.outstanding == 0 => None,
            Turn::Client | Turn::Body => Some(state.stepped_at),
        }
    }

    /// The same for what is left of a response that has no body any more: nothing but its connection can end it.
    pub(super) fn tail_stalled_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.body_is_gone && state.outstanding > 0).then_some(state.moved_at)
    }

    /// The body of the response is gone: sent, or given up.
    pub(super) fn body_is_gone(&self) {
        self.state.lock().body_is_gone = true;
    }

    /// The handler waits for the client to send more.
    pub(super) fn awaits_upload(&self) {
        self.state.lock().upload.awaited_since.get_or_insert_with(Instant::now);
    }

    /// The client has sent more.
    pub(super) fn received(&self, bytes: usize) {
        let upload = &mut self.state.lock().upload;
        upload.waited += upload.awaited_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        upload.since_step += bytes;
        if upload.since_step >= STEP {
            *upload = Upload::default();
        }
    }

    /// The request ends here, wherever it is.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.is_ended = true;
        let waker = state.on_end.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the request has to end. If it has not, the waker is woken when it has.
    pub(super) fn poll_ended(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        keep(&mut state.on_end, cx);
        state.is_ended
    }

    /// The client took nothing for too long.
    pub(super) fn stall(&self) {
        self.state.lock().has_stalled = true;
    }

    /// Whether it ended since the client took nothing.
    pub(super) fn has_stalled(&self) -> bool {
        let state = self.state.lock();
        state.has_stalled || state.is_ended
    }

    fn handed_over(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.client_s_turn();
        state.outstanding += bytes;
    }

    fn taken(&self, bytes: usize) {
        self.state.lock().move_on(bytes);
    }

    /// Bytes that are written no more.
    fn dropped(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.outstanding -= bytes.min(state.outstanding);
        let waker = if state.outstanding == 0 { state.on_drain.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn client_s_turn(&mut self) {
        if self.turn != Turn::Client && self.outstanding == 0 {
            self.moved_at = Instant::now();
            self.stepped_at = self.moved_at;
            self.since_step = 0;
        }
        self.turn = Turn::Client;
    }

    fn move_on(&mut self, bytes: usize) {
        self.outstanding -= bytes.min(self.outstanding);
        self.moved_at = Instant::now();
        self.since_step += bytes;
        if self.since_step >= STEP {
            self.stepped_at = self.moved_at;
            self.since_step = 0;
        }
    }
}

fn keep(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

/// A piece of a response that tells its request how much of it has left.
pub(super) struct TrackedBytes {
    bytes: Bytes,
    request: Arc<InFlight>,
}

impl TrackedBytes {
    pub(super) fn new(bytes: Bytes, request: Arc<InFlight>) -> Self {
        request.progress().handed_over(bytes.len());
        request.piece_begins(bytes.len());
        Self { bytes, request }
    }
}

impl Buf for TrackedBytes {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        self.request.piece_ends(bytes);
        self.request.progress().taken(bytes);
    }
}

impl Drop for TrackedBytes {
    fn drop(&mut self) {
        self.request.piece_ends(self.bytes.len());
        self.request.progress().dropped(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection_limit::ConnectionLimit;
    use crate::connection_state::{ConnectionState, TimeLimits};
    use crate::unsent::UnsentBytes;

    const SECOND: Duration = Duration::from_secs(1);

    async fn request(unsent: &Arc<UnsentBytes>) -> Arc<InFlight> {
        let limits = TimeLimits { header_read: SECOND, idle: SECOND, write: SECOND };
        let place = ConnectionLimit::new(1).admit().await;
        ConnectionState::new(place, limits, Arc::clone(unsent), None).request_started(true)
    }

    fn ago(since: Option<Instant>) -> Option<u64> {
        since.map(|since| since.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn each_byte_begins_the_time_limit_anew_and_only_many_make_a_client_fast() {
        let request = request(&Arc::new(UnsentBytes::new(usize::MAX))).await;
        let progress = Arc::clone(request.progress());
        let now = || (ago(progress.stalled_since()), ago(progress.slow_since()));
        assert_eq!(now(), (None, None), "the handler has it");
        tokio::time::advance(60 * SECOND).await;
        progress.client_s_turn();
        assert_eq!(now(), (Some(0), Some(0)));
        tokio::time::advance(10 * SECOND).await;
        let mut piece = TrackedBytes::new(Bytes::from(vec![0; STEP + 10]), Arc::clone(&request));
        assert_eq!(now(), (Some(10), Some(10)), "what is handed over is not taken");
        piece.advance(1);
        assert_eq!(now(), (Some(0), Some(10)));
        tokio::time::advance(5 * SECOND).await;
        piece.advance(STEP);
        assert_eq!(now(), (Some(0), Some(0)));
        tokio::time::advance(SECOND).await;
        progress.body_s_turn();
        assert_eq!(now(), (Some(1), Some(1)), "some of it is still on its way");
        assert_eq!(ago(progress.tail_stalled_since()), None);
        request.body_is_gone();
        assert_eq!(ago(progress.tail_stalled_since()), Some(1));
        drop(piece);
        assert_eq!(now(), (None, None));
        assert_eq!(progress.tail_stalled_since(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_slow_by_all_the_time_that_was_waited_for_it() {
        let request = request(&Arc::new(UnsentBytes::new(usize::MAX))).await;
        let progress = request.progress();
        for waited in 1..5 {
            progress.awaits_upload();
            tokio::time::advance(SECOND).await;
            assert_eq!(ago(progress.slow_since()), Some(waited));
            progress.received(1);
            assert_eq!(progress.slow_since(), None);
            // The handler takes its time.
            tokio::time::advance(7 * SECOND).await;
        }
        progress.received(STEP);
        progress.awaits_upload();
        assert_eq!(ago(progress.slow_since()), Some(0));
    }
}
