//! The task of one HTTP/2 stream, which ends when its client reads nothing of the response for too long.
//!
//! hyper waits for the stream's window and cannot be told to stop, so its task is dropped. h2 then discards the unsent
//! data and resets the stream. The other streams of the connection continue.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::progress::RequestProgress;

tokio::task_local! {
    /// The request of this task's stream.
    static REQUEST: Arc<OnceLock<Arc<RequestProgress>>>;
}

/// Registers the request with its stream's task. Does nothing in HTTP/1, where there is no such task.
pub(super) fn watch(request: &Arc<RequestProgress>) {
    // An error means that there is no such task. A second request in one task does not occur.
    let _ = REQUEST.try_with(|slot| slot.set(Arc::clone(request)));
}

/// Runs the tasks of HTTP/2 streams so that the shutdown tracks and ends them.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    pub(super) tasks: TaskTracker,
    pub(super) cut: CancellationToken,
    pub(super) write_timeout: Duration,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let cut = self.cut.clone();
        self.tasks.spawn(run(task, self.write_timeout).with_cancellation_token_owned(cut));
    }
}

async fn run<F: Future<Output = ()>>(task: F, write_timeout: Duration) {
    let slot = Arc::new(OnceLock::new());
    let mut task = pin!(REQUEST.scope(Arc::clone(&slot), task));
    let mut timer = None;
    poll_fn(|cx| {
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(request) = slot.get() else { return Poll::Pending };
        if request.poll_ended(cx) || has_timed_out(request, &mut timer, write_timeout, cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// Returns whether the client has read nothing for too long. Otherwise the task is woken when that may be so.
fn has_timed_out(
    request: &RequestProgress,
    timer: &mut Option<Pin<Box<Sleep>>>,
    write_timeout: Duration,
    cx: &mut Context<'_>,
) -> bool {
    while let Some(since) = request.stalled_since() {
        let deadline = since + write_timeout;
        if Instant::now() >= deadline {
            request.stall();
            return true;
        }
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        // The deadline moves with each byte. A timer that fires early is cheaper than resetting it each time.
        timer.as_mut().reset(deadline);
    }
    false
}
