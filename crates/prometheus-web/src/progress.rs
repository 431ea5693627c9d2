//! The progress of a request: what it waits for, and when its client last read something.
//!
//! A socket that accepts bytes says little in HTTP/2: pings and settings pass while the window of a stream stays
//! closed. Each request therefore tracks its own unsent bytes ([`TrackedBytes`]) and when the last one was sent.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::in_flight::InFlight;

/// Bytes that a client has to read or send to no longer count as slow when a connection is chosen for eviction. The
/// time limits restart with each byte.
const STEP: usize = 16 * 1024;

/// The progress of one request in flight.
pub(super) struct RequestProgress {
    state: Mutex<State>,
}

struct State {
    waiting_for: WaitingFor,
    /// Response bytes given to the connection and not written yet.
    outstanding: usize,
    /// When the client last read a byte, or when the wait for it started.
    moved_at: Instant,
    /// When it had last read [`STEP`] bytes.
    stepped_at: Instant,
    since_step: usize,
    upload: Upload,
    body_finished: bool,
    has_stalled: bool,
    is_ended: bool,
    /// Wakers for the end of the request, and for the moment when all is written.
    on_end: Option<Waker>,
    on_drain: Option<Waker>,
}

/// What a request waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitingFor {
    /// The handler: there is no response yet.
    Handler,
    /// The client: the response continues when it reads more.
    Client,
    /// The body: the response continues when more of it is available.
    Body,
}

/// The request's body.
#[derive(Default)]
struct Upload {
    awaited_since: Option<Instant>,
    /// Time spent waiting for the client since the last [`STEP`] bytes.
    waited: Duration,
    since_step: usize,
}

impl RequestProgress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                waiting_for: WaitingFor::Handler,
                outstanding: 0,
                moved_at: now,
                stepped_at: now,
                since_step: 0,
                upload: Upload::default(),
                body_finished: false,
                has_stalled: false,
                is_ended: false,
                on_end: None,
                on_drain: None,
            }),
        }
    }

    /// Records that there is a response, or more of it.
    pub(super) fn wait_for_client(&self) {
        self.state.lock().wait_for_client();
    }

    /// Records that the response waits for its body.
    pub(super) fn wait_for_body(&self) {
        self.state.lock().waiting_for = WaitingFor::Body;
    }

    /// Returns whether all response bytes are written. Otherwise the waker is woken then.
    pub(super) fn is_drained(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        if state.outstanding > 0 {
            store_waker(&mut state.on_drain, cx);
        }
        state.outstanding == 0
    }

    /// Returns since when the response waits for the client to read something; `None` if it does not.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.waiting_for == WaitingFor::Client || state.outstanding > 0).then_some(state.moved_at)
    }

    /// Returns since when the client has been reading or sending too slowly; `None` if the request does not wait for
    /// it.
    pub(super) fn slow_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        match state.waiting_for {
            WaitingFor::Handler => state.upload.awaited_since.map(|since| since - state.upload.waited),
            WaitingFor::Body if state.outstanding == 0 => None,
            WaitingFor::Client | WaitingFor::Body => Some(state.stepped_at),
        }
    }

    /// Returns since when the rest of a response without a body waits for the client. Only its connection can end it.
    pub(super) fn tail_stalled_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.body_finished && state.outstanding > 0).then_some(state.moved_at)
    }

    /// Records that the response body was sent or dropped. Returns whether some of its bytes are still unsent.
    pub(super) fn body_finished(&self) -> bool {
        let mut state = self.state.lock();
        state.body_finished = true;
        state.outstanding > 0
    }

    /// Records that the handler waits for the client to send more.
    pub(super) fn awaits_upload(&self) {
        self.state.lock().upload.awaited_since.get_or_insert_with(Instant::now);
    }

    /// Records that the client sent more.
    pub(super) fn received(&self, bytes: usize) {
        let upload = &mut self.state.lock().upload;
        upload.waited += upload.awaited_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        upload.since_step += bytes;
        if upload.since_step >= STEP {
            *upload = Upload::default();
        }
    }

    /// Ends the request, whatever its state.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.is_ended = true;
        let waker = state.on_end.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Returns whether the request has to end. Otherwise the waker is woken then.
    pub(super) fn poll_ended(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        store_waker(&mut state.on_end, cx);
        state.is_ended
    }

    /// Records that the client read nothing for too long.
    pub(super) fn stall(&self) {
        self.state.lock().has_stalled = true;
    }

    /// Returns whether the request ended because the client read nothing.
    pub(super) fn has_stalled(&self) -> bool {
        let state = self.state.lock();
        state.has_stalled || state.is_ended
    }

    fn handed_over(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.wait_for_client();
        state.outstanding += bytes;
    }

    fn taken(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.move_on(bytes);
        wake_if_drained(state);
    }

    /// Removes bytes that will not be written.
    fn dropped(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.outstanding -= bytes.min(state.outstanding);
        wake_if_drained(state);
    }
}

impl State {
    fn wait_for_client(&mut self) {
        if self.waiting_for != WaitingFor::Client && self.outstanding == 0 {
            self.moved_at = Instant::now();
            self.stepped_at = self.moved_at;
            self.since_step = 0;
        }
        self.waiting_for = WaitingFor::Client;
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

fn wake_if_drained(mut state: MutexGuard<'_, State>) {
    let waker = if state.outstanding == 0 { state.on_drain.take() } else { None };
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn store_waker(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

/// A piece of a response that reports to its request how much of it was sent.
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
        if !self.bytes.is_empty() {
            self.request.piece_ends(self.bytes.len());
            self.request.progress().dropped(self.bytes.len());
        }
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
        let permit = ConnectionLimit::new(1).admit().await;
        ConnectionState::new(permit, limits, Arc::clone(unsent), None).request_started(true)
    }

    fn ago(since: Option<Instant>) -> Option<u64> {
        since.map(|since| since.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn each_byte_restarts_the_timeout_but_only_many_the_slowness() {
        let request = request(&Arc::new(UnsentBytes::new(usize::MAX))).await;
        let progress = Arc::clone(request.progress());
        let now = || (ago(progress.stalled_since()), ago(progress.slow_since()));
        assert_eq!(now(), (None, None), "the handler is running");
        tokio::time::advance(60 * SECOND).await;
        progress.wait_for_client();
        assert_eq!(now(), (Some(0), Some(0)));
        tokio::time::advance(10 * SECOND).await;
        let mut piece = TrackedBytes::new(Bytes::from(vec![0; STEP + 10]), Arc::clone(&request));
        assert_eq!(now(), (Some(10), Some(10)), "buffered bytes are not read yet");
        piece.advance(1);
        assert_eq!(now(), (Some(0), Some(10)));
        tokio::time::advance(5 * SECOND).await;
        piece.advance(STEP);
        assert_eq!(now(), (Some(0), Some(0)));
        tokio::time::advance(SECOND).await;
        progress.wait_for_body();
        assert_eq!(now(), (Some(1), Some(1)), "some of it is still unsent");
        assert_eq!(ago(progress.tail_stalled_since()), None);
        request.body_finished();
        assert_eq!(ago(progress.tail_stalled_since()), Some(1));
        drop(piece);
        assert_eq!(now(), (None, None));
        assert_eq!(progress.tail_stalled_since(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn upload_slowness_is_the_total_wait_for_the_client() {
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
