//! Several processes that spend one budget: in simulated time over a stand-in for Redis, and over a real one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod over_redis;
mod simulated;
