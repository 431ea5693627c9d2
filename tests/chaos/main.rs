//! What happens when the network or a server in between fails.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/chaos.rs"]
mod chaos;

mod proxy;
