//! What all processes that share a budget used of it, as plain data.

use std::time::Duration;

/// How much of a budget all processes use now, and when their requests started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetUsage {
    /// Requests of all processes that may use the budget now: in flight, or ended within the last window.
    pub used: u64,
    /// Requests that started within the last three windows, in slots of a sixteenth of a window, oldest first. Slots
    /// without a request are left out.
    pub starts: Vec<StartSlot>,
}

/// Requests that started within one slot of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartSlot {
    /// How long ago the slot began, when this was asked. It is an age by the clock of the shared log, so that the clocks
    /// of the processes do not matter.
    pub began_ago: Duration,
    /// Length of the slot.
    pub length: Duration,
    /// Requests that started in it, without those that Clerk surely did not count.
    pub requests: u64,
}
