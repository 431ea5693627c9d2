//! Wall-clock time that runs with tokio's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serializer;
use tokio::time::Instant;

/// Time since the UNIX epoch.
pub(super) type Epoch = Duration;

/// Wall-clock time that started at a given moment and runs with tokio's clock, so that paused time moves it too.
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

/// Time since the epoch; moments before it count as the epoch.
pub(super) fn since_epoch(time: SystemTime) -> Epoch {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The moment as a [`SystemTime`]; moments that it cannot hold become the epoch.
pub(super) fn system_time(at: Epoch) -> SystemTime {
    UNIX_EPOCH.checked_add(at).unwrap_or(UNIX_EPOCH)
}

/// The moment moved by a number of seconds, never before the epoch.
pub(super) fn shifted(at: Epoch, seconds: i64) -> Epoch {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { at.saturating_sub(by) } else { at.saturating_add(by) }
}

/// Whole seconds, rounded up: a client that waits for them never comes back early.
pub(super) fn ceil_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// Whole milliseconds since the epoch, the unit of Clerk's own timestamps.
pub(super) fn epoch_millis(at: Epoch) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

/// Writes a moment as seconds since the epoch, with a fraction.
pub(super) fn as_epoch_seconds<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(since_epoch(*at).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn paused_time_moves_the_clock_from_its_base() {
        let clock = Clock::starting_at(system_time(Duration::from_secs(1_000)));
        assert_eq!(clock.now(), Duration::from_secs(1_000));
        tokio::time::advance(Duration::from_millis(2_500)).await;
        assert_eq!(clock.now(), Duration::from_millis(1_002_500));
    }

    #[test]
    fn seconds_round_up_and_skew_never_passes_the_epoch() {
        assert_eq!(ceil_seconds(Duration::from_millis(1)), 1);
        assert_eq!(ceil_seconds(Duration::from_secs(3)), 3);
        assert_eq!(shifted(Duration::from_secs(5), -7), Duration::ZERO);
        assert_eq!(shifted(Duration::from_secs(5), 7), Duration::from_secs(12));
    }
}
