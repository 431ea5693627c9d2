//! The clock of the program: a monotonic clock, anchored once to the wall clock.
//!
//! Setting the wall clock does not change any [`Moment`]. Monotonic clocks omit time in which the machine was
//! suspended; [`Clock::notice_suspend`] adds it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::Moment;

/// Differences between the clocks below this are measurement noise and ignored.
const NOISE: Duration = Duration::from_millis(50);

/// Shorter suspensions cannot be distinguished from a process that was not scheduled.
const SHORTEST_SUSPENSION: Duration = Duration::from_secs(1);

/// The source of [`Moment`]s. It runs on tokio's clock, so that tests can pause time.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    anchor: Duration,
    /// Whether to read the wall clock again; false for simulated time.
    follows_wall: bool,
    /// How far the wall clock was ahead at the last check, in milliseconds.
    step_millis: AtomicI64,
    /// Time since boot at the start, including suspensions; `None` if the system does not report it or time is
    /// simulated.
    uptime_at_start: Option<Duration>,
    /// Detected suspensions since the start, in milliseconds.
    suspended_millis: AtomicU64,
    /// Offset of a simulated wall clock, in milliseconds.
    simulated_step_millis: AtomicI64,
}

impl Clock {
    /// Creates a clock anchored to the current wall-clock time.
    #[must_use]
    pub fn new() -> Self {
        let mut clock = Self::simulated(SystemTime::now());
        clock.follows_wall = true;
        clock.uptime_at_start = uptime();
        clock
    }

    /// Creates a clock for tests: it starts at `base` and then only follows tokio's time.
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

    /// Returns the current moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        let suspended = Duration::from_millis(self.suspended_millis.load(Ordering::Relaxed));
        Moment::from_unix(self.anchor.saturating_add(self.start.elapsed()).saturating_add(suspended))
    }

    /// Returns the wall-clock time, for comparison with other machines' clocks.
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

    /// Returns the seconds to add to a moment's UNIX time so that it agrees with the wall clock.
    ///
    /// The value is the same from call to call unless the wall clock was set, so that timestamps do not fluctuate.
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

    /// Detects whether the machine was suspended since the last call, and adds that time to [`Clock::now`].
    ///
    /// Returns the length of the suspension. Call it about once a second.
    pub fn notice_suspend(&self) -> Option<Duration> {
        let since_start = uptime()?.checked_sub(self.uptime_at_start?)?;
        let suspended = since_start.checked_sub(self.start.elapsed())?;
        let known = Duration::from_millis(self.suspended_millis.load(Ordering::Relaxed));
        let news = suspended.checked_sub(known).filter(|news| *news >= SHORTEST_SUSPENSION)?;
        self.add_suspension(news);
        Some(news)
    }

    /// Simulates a suspension of this length, on a simulated clock.
    pub fn simulate_suspend(&self, time: Duration) {
        if !self.follows_wall {
            self.add_suspension(time);
        }
    }

    /// Sets the wall clock of a simulated clock this many seconds ahead; negative values set it back.
    pub fn simulate_step(&self, seconds: i64) {
        self.simulated_step_millis.store(seconds.saturating_mul(1000), Ordering::Relaxed);
    }

    fn add_suspension(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.suspended_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

/// Returns the time since boot including suspensions, where the system reports it (Linux).
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
    async fn clock_follows_tokio_time() {
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(1000));
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(clock.now(), Moment::from_unix(Duration::from_millis(1_001_500)));
        assert_eq!(clock.wall(), clock.now().to_system_time());
        assert!(clock.step_seconds().abs() < f64::EPSILON);
    }

    #[tokio::test(start_paused = true)]
    async fn wall_clock_step_changes_timestamps_not_moments() {
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(100_000));
        let before = clock.now();
        for step in [30, -30, 3600, -3600, -86_400, 0] {
            clock.simulate_step(step);
            assert_eq!(clock.now(), before, "{step}");
            assert!((clock.step_seconds() - step as f64).abs() < 1e-9, "{step}");
            let shown = before.unix_seconds() + clock.step_seconds();
            let wall = clock.wall().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            assert!((shown - wall).abs() < 1e-6, "{step}: the timestamp is the wall clock's time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn suspension_advances_moments_without_a_step() {
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(1000));
        let before = clock.now();
        clock.simulate_suspend(Duration::from_secs(28_800));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now().since(before), Duration::from_secs(28_801));
        assert!(clock.step_seconds().abs() < f64::EPSILON);
    }

    #[tokio::test]
    async fn clock_without_suspension_reports_none() {
        let clock = Clock::new();
        assert_eq!(clock.notice_suspend(), None);
        clock.simulate_suspend(Duration::from_secs(60));
        clock.simulate_step(60);
        assert!(clock.wall().duration_since(SystemTime::now()).unwrap_or_default() < Duration::from_secs(30));
    }
}
