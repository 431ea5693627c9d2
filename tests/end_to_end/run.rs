//! Progress of a run: what was awaited, and when it happened.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Pause between two polls.
const LOOK: Duration = Duration::from_millis(200);

/// A run with a deadline.
pub(crate) struct Run {
    started: Instant,
    deadline: Duration,
}

impl Run {
    /// Starts now.
    pub(crate) fn new(deadline: Duration) -> Self {
        Self { started: Instant::now(), deadline }
    }

    /// Prints an event.
    pub(crate) fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Polls until there is a result, and prints it.
    pub(crate) async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        loop {
            if let Some(found) = look().await {
                self.say(what);
                return found;
            }
            assert!(self.started.elapsed() < self.deadline, "still waiting after {:?}: {what}", self.deadline);
            sleep(LOOK).await;
        }
    }
}
