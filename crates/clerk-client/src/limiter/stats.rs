//! What a pacer did, as plain data.

use super::counting_kind::CountingKind;
use super::distributed::Sharing;
use super::{Priority, ShedReason};
use clerk_quota::Histogram;

/// Upper bounds of the waits in seconds. None is a whole number, so that their text is the same in every format.
const WAIT_BOUNDS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.95, 2.5, 10.5, 60.5];

/// What a pacer did so far and how it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct LimiterStats {
    /// Requests that were let go, without probes, in the order of [`Priority::ALL`].
    pub admitted: [u64; Priority::ALL.len()],
    /// Requests that were not, in the order of [`ShedReason::ALL`].
    pub shed: [u64; ShedReason::ALL.len()],
    /// How long those that were let go had waited, in seconds.
    pub waited_seconds: Histogram,
    /// Requests that wait now.
    pub waiting: usize,
    /// Requests that are in flight now.
    pub in_flight: usize,
    /// How the budget is shared with other processes; `None` where it is not.
    pub sharing: Option<Sharing>,
    /// How the server counts, as far as that was found out.
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
