//! Independent models of five limiters, written from their descriptions: what each would allow after a given list of
//! requests.

use std::time::Duration;

use clerk_simulator::LimiterKind;

/// Requests in a window.
pub(crate) const LIMIT: u64 = 100;
/// A window.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// Requests that the limiter would allow at `at`, had it counted requests at exactly these times. They are sorted, and
/// none is later than `at`.
pub(crate) fn room(kind: LimiterKind, counted: &[Duration], at: Duration) -> u64 {
    let since = |start: Duration| counted.len() - counted.partition_point(|time| *time < start);
    let used = match kind {
        LimiterKind::FixedWindow => since(grid(at)) as u64,
        LimiterKind::FixedFromFirst => {
            let mut window: Option<(Duration, u64)> = None;
            for time in counted {
                match &mut window {
                    Some((start, count)) if *time < *start + WINDOW => *count += 1,
                    _ => window = Some((*time, 1)),
                }
            }
            window.filter(|(start, _)| at < *start + WINDOW).map_or(0, |(_, count)| count)
        }
        LimiterKind::SlidingWindow => in_last_window(counted, at),
        LimiterKind::SlidingCounter => {
            let start = grid(at);
            let current = since(start) as u128;
            let previous = (since(start.saturating_sub(WINDOW)) as u128) - current;
            let weight = (start + WINDOW - at).as_nanos();
            let used = previous * weight + current * WINDOW.as_nanos();
            u64::try_from(used.div_ceil(WINDOW.as_nanos())).unwrap_or(u64::MAX)
        }
        LimiterKind::TokenBucket { .. } => {
            return u64::try_from(level(counted, at) / WINDOW.as_nanos()).unwrap_or(u64::MAX);
        }
    };
    LIMIT.saturating_sub(used)
}

/// The level of a token bucket at `at`.
fn level(counted: &[Duration], at: Duration) -> u128 {
    let cost = WINDOW.as_nanos();
    let full = cost * u128::from(LIMIT);
    let (mut level, mut then) = (full, Duration::ZERO);
    for time in counted {
        level = (level + (*time - then).as_nanos() * u128::from(LIMIT)).min(full).saturating_sub(cost);
        then = *time;
    }
    (level + (at - then).as_nanos() * u128::from(LIMIT)).min(full)
}

/// Requests within the last window.
pub(crate) fn in_last_window(counted: &[Duration], at: Duration) -> u64 {
    (counted.len() - counted.partition_point(|time| *time + WINDOW <= at)) as u64
}

/// When the limiter rejects the first of evenly spaced requests from `at` on, within a window.
pub(crate) fn exhausted_at(kind: LimiterKind, counted: &[Duration], at: Duration, per_second: f64) -> Option<Duration> {
    let mut counted = counted.to_vec();
    let step = Duration::from_secs_f64(1.0 / per_second.max(0.01));
    let mut now = at;
    while now <= at + WINDOW {
        if room(kind, &counted, now) == 0 {
            return Some(now - at);
        }
        now += step;
        counted.push(now);
    }
    None
}

/// Start of the window in the grid of the epoch.
pub(crate) fn grid(at: Duration) -> Duration {
    let nanos = at.as_nanos() - at.as_nanos() % WINDOW.as_nanos();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
