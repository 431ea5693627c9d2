//! The one clock: a monotonic one, anchored on the wall clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::Moment;

/// Differences between the clocks below this are noise of reading them, and not passed on.
const NOISE: Duration = Duration::from_millis(50);

/// Gives [`Moment`]s. They run on tokio's clock, so that tests may pause it.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    anchor: Duration,
    /// Whether the wall clock is asked again: not where time is simulated.
    follows_wall: bool,
    /// What the wall clock was last seen to be ahead by, in milliseconds.
    step_millis: AtomicI64,
}

impl Clock {
    /// A clock anchored on the wall clock as it is now.
    #[must_use]
    pub fn new() -> Self {
        let mut clock = Self::simulated(SystemTime::now());
        clock.follows_wall = true;
        clock
    }

    /// A clock that begins at `base` and then follows tokio's time only, for tests.
    #[must_use]
    pub fn simulated(base: SystemTime) -> Self {
        let anchor = base.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), anchor, follows_wall: false, step_millis: AtomicI64::new(0) }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::from_unix(self.anchor.saturating_add(self.start.elapsed()))
    }

    /// The wall clock, for comparison with other machines' clocks.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        if self.follows_wall { SystemTime::now() } else { self.now().to_system_time() }
    }

    /// Seconds to add to a moment's UNIX time so that it agrees with the wall clock, which may have been set since.
    /// Stays the same from call to call unless the clock was really set, so that timestamps do not waver.
    #[must_use]
    pub fn step_seconds(&self) -> f64 {
        let wall = self.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ahead = signed_millis(wall) - signed_millis(self.now().since_epoch());
        let known = self.step_millis.load(Ordering::Relaxed);
        if ahead.abs_diff(known) < u64::try_from(NOISE.as_millis()).unwrap_or(u64::MAX) {
            return millis_to_seconds(known);
        }
        self.step_millis.store(ahead, Ordering::Relaxed);
        millis_to_seconds(ahead)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn signed_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn millis_to_seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moments_follow_tokio_s_time() {
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(1000));
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(clock.now(), Moment::from_unix(Duration::from_millis(1_001_500)));
        assert_eq!(clock.wall(), clock.now().to_system_time());
        assert!(clock.step_seconds().abs() < f64::EPSILON);
    }
}
