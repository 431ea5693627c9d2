//! A request in flight, and the bytes of its response that are not sent yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::connection_state::ConnectionState;
use super::handler::Ambiguity;
use super::progress::RequestProgress;

/// A request from the end of its head to the last byte of its response.
pub(super) struct InFlight {
    connection: Arc<ConnectionState>,
    progress: Arc<RequestProgress>,
    ambiguity: Option<Ambiguity>,
    /// Unsent bytes of its response.
    held: AtomicUsize,
    is_tail: AtomicBool,
}

impl InFlight {
    pub(super) fn new(
        connection: Arc<ConnectionState>,
        progress: Arc<RequestProgress>,
        ambiguity: Option<Ambiguity>,
    ) -> Self {
        Self { connection, progress, ambiguity, held: AtomicUsize::new(0), is_tail: AtomicBool::new(false) }
    }

    /// Returns the request's progress.
    pub(super) fn progress(&self) -> &Arc<RequestProgress> {
        &self.progress
    }

    /// Returns the ambiguity of its HTTP/1 head.
    pub(super) fn ambiguity(&self) -> Option<Ambiguity> {
        self.ambiguity
    }

    /// Sets the unsent bytes of its response, until the request ends. Called by the request's task only.
    pub(super) fn set_held(&self, bytes: usize) {
        let before = self.held.load(Ordering::Relaxed);
        if bytes != before {
            self.held.store(bytes, Ordering::Relaxed);
            self.connection.hold(bytes);
            self.connection.release(before);
        }
    }

    /// Adds a piece of the response that is being sent.
    pub(super) fn piece_begins(&self, bytes: usize) {
        self.connection.hold(bytes);
    }

    /// Removes bytes of a piece that were sent or dropped.
    pub(super) fn piece_ends(&self, bytes: usize) {
        self.connection.release(bytes);
    }

    /// Records the end of the response body. Some of its bytes may not be sent yet.
    pub(super) fn body_finished(&self) {
        if self.progress.body_finished() && !self.is_tail.swap(true, Ordering::Relaxed) {
            self.connection.tail_begins();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.release(*self.held.get_mut());
        self.connection.request_ended(&self.progress, *self.is_tail.get_mut());
    }
}
