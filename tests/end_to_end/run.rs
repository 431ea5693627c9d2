//! The course of a run: what was waited for, and when it came.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// A run that must come to its end before a deadline.
pub(crate) struct Run {
    started: Instant,
    deadline: Duration,
}

impl Run {
    /// Begins now.
    pub(crate) fn new(deadline: Duration) -> Self {
        Self { started: Instant::now(), deadline }
    }

    /// Prints what has happened.
    pub(crate) fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Looks again and again until there is something, and prints that it is there.
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
