//! The task of one HTTP/2 stream, which ends when its client takes nothing of the response for too long.
//!
//! hyper waits for the stream's window and cannot be asked to stop. So its task is dropped: h2 then throws away what waits
//! to be sent and resets the stream. The other streams of the connection go on.

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
    /// The request of the stream whose task this is.
    static REQUEST: Arc<OnceLock<Arc<RequestProgress>>>;
}

/// Tells the task of a stream which request it is; does nothing in HTTP/1, where there is no such task.
pub(super) fn watch(request: &Arc<RequestProgress>) {
    // An error means that there is no such task; a second request in one does not happen.
    let _ = REQUEST.try_with(|slot| slot.set(Arc::clone(request)));
}

/// Runs the tasks of HTTP/2 streams where the shutdown sees and ends them.
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
    let mut alarm = None;
    poll_fn(|cx| {
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(request) = slot.get() else { return Poll::Pending };
        if request.poll_ended(cx) || is_late(request, &mut alarm, write_timeout, cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// Whether the client has taken nothing for too long. If it has not, the task is woken when that may be so.
fn is_late(
    request: &RequestProgress,
    alarm: &mut Option<Pin<Box<Sleep>>>,
    write_timeout: Duration,
    cx: &mut Context<'_>,
) -> bool {
    while let Some(since) = request.stalled_since() {
        let deadline = since + write_timeout;
        if Instant::now() >= deadline {
            request.stall();
            return true;
        }
        let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.as_mut().poll(cx).is_pending() {
            return false;
        }
        // The deadline moves with each byte. An alarm that comes too early costs less than one that moves along.
        alarm.as_mut().reset(deadline);
    }
    false
}
