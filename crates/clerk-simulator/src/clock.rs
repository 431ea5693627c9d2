//! Wall-clock time that runs with tokio's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serializer;
use tokio::time::Instant;

/// Time since the UNIX epoch.
pub(super) type Epoch = Duration;

/// A wall clock that starts at a given time and runs with tokio's clock, which tests can pause.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    base: Epoch,
}

impl Clock {
    pub(super) fn starting_at(base: SystemTime) -> Self {
        Self { started: Instant::now(), base: since_epoch(base) }
    }

    pub(super) fn now(&self) -> Epoch {
        self.base.saturating_add(self.started.elapsed())
    }

    pub(super) fn base(&self) -> Epoch {
        self.base
    }
}

/// Returns the time since the epoch; zero for times before it.
pub(super) fn since_epoch(time: SystemTime) -> Epoch {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Converts to [`SystemTime`]; the epoch if it cannot be represented.
pub(super) fn system_time(at: Epoch) -> SystemTime {
    UNIX_EPOCH.checked_add(at).unwrap_or(UNIX_EPOCH)
}

/// Shifts the time by a number of seconds, but not before the epoch.
pub(super) fn shifted(at: Epoch, seconds: i64) -> Epoch {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { at.saturating_sub(by) } else { at.saturating_add(by) }
}

/// Returns whole seconds, rounded up: a client that waits for them never retries too early.
pub(super) fn ceil_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// Returns whole milliseconds since the epoch, the unit of Clerk's timestamps.
pub(super) fn epoch_millis(at: Epoch) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

/// Serializes a time as seconds since the epoch, with a fraction.
pub(super) fn as_epoch_seconds<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(since_epoch(*at).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clock_follows_paused_time_from_its_base() {
        let clock = Clock::starting_at(system_time(Duration::from_secs(1_000)));
        assert_eq!(clock.now(), Duration::from_secs(1_000));
        tokio::time::advance(Duration::from_millis(2_500)).await;
        assert_eq!(clock.now(), Duration::from_millis(1_002_500));
    }

    #[test]
    fn seconds_round_up_and_skew_stops_at_the_epoch() {
        assert_eq!(ceil_seconds(Duration::from_millis(1)), 1);
        assert_eq!(ceil_seconds(Duration::from_secs(3)), 3);
        assert_eq!(shifted(Duration::from_secs(5), -7), Duration::ZERO);
        assert_eq!(shifted(Duration::from_secs(5), 7), Duration::from_secs(12));
    }
}
