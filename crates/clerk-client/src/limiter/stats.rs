//! Counters and state of the limiter.

use super::counting_kind::CountingKind;
use super::distributed::Sharing;
use super::{Priority, ShedReason};
use clerk_quota::Histogram;

/// Upper bounds of the wait histogram in seconds. No whole numbers, so that their text is the same in every format.
const WAIT_BOUNDS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.95, 2.5, 10.5, 60.5];

/// Counters and current state of a limiter.
#[derive(Debug, Clone, PartialEq)]
pub struct LimiterStats {
    /// Admitted requests, without probes, in the order of [`Priority::ALL`].
    pub admitted: [u64; Priority::ALL.len()],
    /// Shed requests, in the order of [`ShedReason::ALL`].
    pub shed: [u64; ShedReason::ALL.len()],
    /// Time that admitted requests spent queued, in seconds.
    pub waited_seconds: Histogram,
    /// Requests queued now.
    pub waiting: usize,
    /// Requests in flight now.
    pub in_flight: usize,
    /// How the limits are shared with other processes; `None` if they are not.
    pub sharing: Option<Sharing>,
    /// How the server counts, as far as known.
    pub counting: CountingKind,
}

impl Default for LimiterStats {
    fn default() -> Self {
        Self {
            admitted: [0; Priority::ALL.len()],
            shed: [0; ShedReason::ALL.len()],
            waited_seconds: Histogram::new(&WAIT_BOUNDS),
            waiting: 0,
            in_flight: 0,
            sharing: None,
            counting: CountingKind::Unknown,
        }
    }
}
