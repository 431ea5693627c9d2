//! The one clock: a monotonic one, anchored on the wall clock.
//!
//! Moments pass as time does: a wall clock that is set moves none of them. Time in which the machine was suspended, which
//! monotonic clocks leave out, is added once it is [noticed](Clock::notice_suspend).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::Moment;

/// Differences between the clocks below this are noise of reading them, and not passed on.
const NOISE: Duration = Duration::from_millis(50);

/// Shorter suspensions are not told from a process that had to wait.
const SHORTEST_SUSPENSION: Duration = Duration::from_secs(1);

/// Gives [`Moment`]s. They run on tokio's clock, so that tests may pause it.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    anchor: Duration,
    /// Whether the wall clock is asked again: not where time is simulated.
    follows_wall: bool,
    /// What the wall clock was last seen to be ahead by, in milliseconds.
    step_millis: AtomicI64,
    /// Time since boot, suspensions included, at the start; none where the system does not tell, and in simulated time.
    uptime_at_start: Option<Duration>,
    /// How long the machine was suspended since the start, in milliseconds, as far as it was noticed.
    suspended_millis: AtomicU64,
    /// What a simulated wall clock was set by, in milliseconds.
    simulated_step_millis: AtomicI64,
}

impl Clock {
    /// A clock anchored on the wall clock as it is now.
    #[must_use]
    pub fn new() -> Self {
        let mut clock = Self::simulated(SystemTime::now());
        clock.follows_wall = true;
        clock.uptime_at_start = uptime();
        clock
    }

    /// A clock that begins at `base` and then follows tokio's time only, for tests.
    #[must_use]
    pub fn simulated(base: SystemTime) -> Self {
        let anchor = base.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            start: Instant::now(),
            anchor,
            follows_wall: false,
            step_millis: AtomicI64::new(0),
            uptime_at_start: None,
            suspended_millis: AtomicU64::new(0),
            simulated_step_millis: AtomicI64::new(0),
        }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        let suspended = Duration::from_millis(self.suspended_millis.load(Ordering::Relaxed));
        Moment::from_unix(self.anchor.saturating_add(self.start.elapsed()).saturating_add(suspended))
    }

    /// The wall clock, for comparison with other machines' clocks.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        if self.follows_wall {
            return SystemTime::now();
        }
        let (now, step) = (self.now().to_system_time(), self.simulated_step_millis.load(Ordering::Relaxed));
        let by = Duration::from_millis(step.unsigned_abs());
        let set = if step < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        set.unwrap_or(UNIX_EPOCH)
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

    /// Looks whether the machine was suspended since this was last asked, and adds that time: what was known before is older
    /// by it. Returns how long that was. To be asked about once a second.
    pub fn notice_suspend(&self) -> Option<Duration> {
        let since_start = uptime()?.checked_sub(self.uptime_at_start?)?;
        let suspended = since_start.checked_sub(self.start.elapsed())?;
        let known = Duration::from_millis(self.suspended_millis.load(Ordering::Relaxed));
        let news = suspended.checked_sub(known).filter(|news| *news >= SHORTEST_SUSPENSION)?;
        self.add_suspension(news);
        Some(news)
    }

    /// Lets a simulated clock's machine be suspended for this time.
    pub fn simulate_suspend(&self, time: Duration) {
        if !self.follows_wall {
            self.add_suspension(time);
        }
    }

    /// Sets the wall clock of a simulated clock this much ahead of where it would be, or behind.
    pub fn simulate_step(&self, seconds: i64) {
        self.simulated_step_millis.store(seconds.saturating_mul(1000), Ordering::Relaxed);
    }

    fn add_suspension(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.suspended_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

/// Time since boot, suspensions included, where the system tells it (Linux).
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
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

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_set_moves_no_moment_and_shows_in_timestamps() {
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(100_000));
        let before = clock.now();
        for step in [30, -30, 3600, -3600, -86_400, 0] {
            clock.simulate_step(step);
            assert_eq!(clock.now(), before, "{step}");
            assert!((clock.step_seconds() - step as f64).abs() < 1e-9, "{step}");
            let shown = before.unix_seconds() + clock.step_seconds();
            let wall = clock.wall().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            assert!((shown - wall).abs() < 1e-6, "{step}: what is shown now is the wall clock's time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_suspension_passes_for_moments_and_is_no_step() {
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(1000));
        let before = clock.now();
        clock.simulate_suspend(Duration::from_secs(28_800));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now().since(before), Duration::from_secs(28_801));
        assert!(clock.step_seconds().abs() < f64::EPSILON);
    }

    #[tokio::test]
    async fn a_machine_that_was_not_suspended_was_not() {
        let clock = Clock::new();
        assert_eq!(clock.notice_suspend(), None);
        clock.simulate_suspend(Duration::from_secs(60));
        clock.simulate_step(60);
        assert!(clock.wall().duration_since(SystemTime::now()).unwrap_or_default() < Duration::from_secs(30));
    }
}
