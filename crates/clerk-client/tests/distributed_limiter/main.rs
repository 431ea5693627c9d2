//! Several processes that share limits: in simulated time over memory, and over a real Redis.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod over_redis;
mod shares;
mod simulated;
