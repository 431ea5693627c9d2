//! Probing in simulated time against the simulator: hours pass in a second.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failures;
mod idle;
mod key;
mod log;
mod schedule;
mod throttling;
mod users;
mod world;
