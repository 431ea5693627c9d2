//! How well the limiter paces, however the server counts: minutes of simulated time against each kind of limiter, with
//! demand above the limit. Arrivals lie anywhere between start and end, and no two clocks agree.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bursts;
mod table;
mod wire;
mod world;
