//! A step of the analysis in a thread of its own.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Items that are handed over at once.
const BATCH: usize = 1024;

/// Batches that wait.
const MAX_BATCHES: usize = 8;

/// Takes in items in their order, in its own thread. Its result does not depend on when the thread runs.
///
/// `S` is what it adds up. A caller that is faster waits.
#[derive(Debug)]
pub(super) struct Stage<T, S> {
    batch: Vec<T>,
    sender: SyncSender<Vec<T>>,
    thread: JoinHandle<S>,
}

impl<T: Send + 'static, S: Send + 'static> Stage<T, S> {
    /// Starts with `state`, which `take` adds each item to.
    pub(super) fn new(state: S, take: impl Fn(&mut S, T) + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel::<Vec<T>>(MAX_BATCHES);
        let work = move || {
            let mut state = state;
            receiver.into_iter().flatten().for_each(|item| take(&mut state, item));
            state
        };
        Self { batch: Vec::with_capacity(BATCH), sender, thread: std::thread::spawn(work) }
    }

    /// Passes an item on.
    pub(super) fn push(&mut self, item: T) {
        self.batch.push(item);
        if self.batch.len() == BATCH {
            let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
            self.send(batch);
        }
    }

    /// Waits until all items are taken in, and returns the sum. A panic of the thread goes on here.
    pub(super) fn finish(mut self) -> S {
        let rest = std::mem::take(&mut self.batch);
        self.send(rest);
        let Self { sender, thread, .. } = self;
        drop(sender);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn send(&self, batch: Vec<T>) {
        // It fails only if the thread has panicked, which the end reports.
        let _ = self.sender.send(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_order_and_none_is_lost() {
        for count in [0, 1, BATCH, BATCH * MAX_BATCHES * 3 + 7] {
            let mut stage = Stage::new(Vec::new(), |all: &mut Vec<usize>, item| all.push(item));
            (0..count).for_each(|item| stage.push(item));
            assert!(stage.finish().into_iter().eq(0..count), "{count}");
        }
    }

    #[test]
    #[should_panic(expected = "odd")]
    fn panic_of_the_thread_goes_on_at_the_end() {
        let mut stage = Stage::new((), |(), item: usize| assert!(item.is_multiple_of(2), "odd"));
        (0..BATCH * MAX_BATCHES * 2).for_each(|item| stage.push(item));
        stage.finish();
    }
}
