//! Several processes that spend one budget: in simulated time over a stand-in for Redis, and over a real one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod over_redis;
mod simulated;
