//! What all processes that share a budget used of it, as plain data.

use std::time::Duration;

/// The current use of a budget by all processes, and when their requests started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetUsage {
    /// Requests of all processes that may use the budget now: in flight, or ended within the last window.
    pub used: u64,
    /// Requests that started within the last three windows, in slots of 1/16 window, oldest first. Empty slots are
    /// omitted.
    pub starts: Vec<StartSlot>,
}

/// The requests that started within one time slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartSlot {
    /// Age of the slot's begin when the log was read. It is measured by the shared log's clock, so the processes'
    /// clocks do not matter.
    pub began_ago: Duration,
    /// Length of the slot.
    pub length: Duration,
    /// Requests that started in the slot, without those that Clerk certainly did not count.
    pub requests: u64,
}
