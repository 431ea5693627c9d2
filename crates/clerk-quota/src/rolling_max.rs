//! The highest use within a fixed look-back.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;

/// Length of the look-back: long enough that a scrape every 15 to 60 s misses nothing.
const LOOK_BACK_SECONDS: u64 = 60;

/// [`LOOK_BACK_SECONDS`] as a duration.
pub(super) const LOOK_BACK: Duration = Duration::from_secs(LOOK_BACK_SECONDS);

/// The highest value of the last 60 s, at a resolution of one second.
#[derive(Debug, Clone, Default)]
pub(super) struct RollingMax {
    /// `(second, highest value in it)`, one entry per second with a value, in rising order.
    seconds: VecDeque<(u64, f64)>,
}

impl RollingMax {
    /// Records a value. Late values count for their own second.
    pub(super) fn observe(&mut self, at: Moment, value: f64) {
        let second = at.since_epoch().as_secs();
        if let Some((_, highest)) = self.seconds.back_mut().filter(|(newest, _)| *newest == second) {
            *highest = highest.max(value);
            return;
        }
        let place = self.seconds.partition_point(|(stamp, _)| *stamp < second);
        match self.seconds.get_mut(place) {
            Some((stamp, highest)) if *stamp == second => *highest = highest.max(value),
            _ => self.seconds.insert(place, (second, value)),
        }
        let newest = self.seconds.back().map_or(second, |(stamp, _)| *stamp);
        while self.seconds.front().is_some_and(|(stamp, _)| *stamp + LOOK_BACK_SECONDS < newest) {
            self.seconds.pop_front();
        }
    }

    /// Returns the highest value of the last 60 s; `None` if there is none.
    pub(super) fn highest(&self, now: Moment) -> Option<f64> {
        let now = now.since_epoch().as_secs();
        let recent = self.seconds.iter().filter(|(second, _)| *second + LOOK_BACK_SECONDS >= now);
        recent.map(|(_, value)| *value).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn maximum_covers_the_last_60_seconds_in_any_order(
            values in proptest::collection::vec((0_u64..150, 0_u8..100), 0..100),
            wait in 0_u64..100,
        ) {
            let mut peak = RollingMax::default();
            for (second, value) in &values {
                peak.observe(Moment::from_unix(Duration::from_secs(*second)), f64::from(*value));
            }
            let now = values.iter().map(|(second, _)| *second).max().unwrap_or(0) + wait;
            let expected = values
                .iter()
                .filter(|(second, _)| second + LOOK_BACK_SECONDS >= now)
                .map(|(_, value)| f64::from(*value))
                .reduce(f64::max);
            prop_assert_eq!(peak.highest(Moment::from_unix(Duration::from_secs(now))), expected);
            prop_assert!(peak.seconds.len() <= 62);
        }
    }
}
