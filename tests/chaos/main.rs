//! Tests of the fault-injecting proxy.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/chaos.rs"]
mod chaos;

mod proxy;
