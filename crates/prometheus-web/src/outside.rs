//! What ends a connection from outside: the server leaves or stops, or the connection is evicted.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// Futures that seldom complete, polled only after one of them woke the task.
///
/// A connection's task runs twice for each request, and a poll of such a future takes a lock.
pub(super) struct Outside<'a, const N: usize> {
    pending: [Option<Pin<&'a mut (dyn Future<Output = ()> + Send)>>; N],
    raised: Option<Arc<Raised>>,
}

/// Wakes the task, and records that it was woken from outside.
struct Raised {
    is_raised: AtomicBool,
    task: Waker,
}

impl Wake for Raised {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_raised.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<'a, const N: usize> Outside<'a, N> {
    pub(super) fn new(futures: [Pin<&'a mut (dyn Future<Output = ()> + Send)>; N]) -> Self {
        Self { pending: futures.map(Some), raised: None }
    }

    /// Returns whether the future at `place` has completed, as of the last [`poll`](Self::poll).
    pub(super) fn has_completed(&self, place: usize) -> bool {
        self.pending.get(place).is_some_and(Option::is_none)
    }

    /// Polls the futures if one of them woke the task, or if the task has another waker than before.
    pub(super) fn poll(&mut self, cx: &Context<'_>) {
        let raised = match &self.raised {
            Some(raised) if raised.task.will_wake(cx.waker()) => {
                if !raised.is_raised.swap(false, Ordering::AcqRel) {
                    return;
                }
                raised
            }
            _ => self.raised.insert(Arc::new(Raised { is_raised: AtomicBool::new(false), task: cx.waker().clone() })),
        };
        let waker = Waker::from(Arc::clone(raised));
        let mut cx = Context::from_waker(&waker);
        for future in &mut self.pending {
            if future.as_mut().is_some_and(|future| future.as_mut().poll(&mut cx).is_ready()) {
                *future = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::Poll;

    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A waker that counts.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn future_is_polled_when_it_wakes_and_not_before() {
        let [first, second] = [CancellationToken::new(), CancellationToken::new()];
        let polls = AtomicUsize::new(0);
        let mut counted = pin!(first.cancelled());
        let mut counted = pin!(poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            counted.as_mut().poll(cx)
        }));
        let mut other = pin!(second.cancelled());
        let mut outside = Outside::new([counted.as_mut(), other.as_mut()]);
        let task = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        for _ in 0..3 {
            outside.poll(&cx);
        }
        assert_eq!((polls.load(Ordering::Relaxed), task.0.load(Ordering::Relaxed)), (1, 0));
        second.cancel();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        outside.poll(&cx);
        assert_eq!([0, 1].map(|place| outside.has_completed(place)), [false, true]);
        first.cancel();
        outside.poll(&cx);
        assert_eq!([0, 1].map(|place| outside.has_completed(place)), [true, true]);
        assert_eq!(polls.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn another_task_is_woken_too() {
        let token = CancellationToken::new();
        let mut cancelled = pin!(token.cancelled());
        let mut outside = Outside::new([cancelled.as_mut()]);
        outside.poll(&Context::from_waker(Waker::noop()));
        let task = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&task));
        outside.poll(&Context::from_waker(&waker));
        token.cancel();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn one_that_has_completed_before_is_seen_at_once() {
        let token = CancellationToken::new();
        token.cancel();
        let mut cancelled = pin!(token.cancelled());
        let mut outside = Outside::new([cancelled.as_mut()]);
        poll_fn(|cx| {
            outside.poll(cx);
            Poll::Ready(())
        })
        .await;
        assert!(outside.has_completed(0));
    }
}
