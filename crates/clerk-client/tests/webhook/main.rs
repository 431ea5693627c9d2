//! Webhooks: shared vectors, tags of events, the endpoint, and properties for arbitrary bytes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod any_bytes;
mod delivery;
mod endpoint;
mod events;
mod secrecy;
mod support;
mod vectors;

#[path = "../../examples/webhook_axum.rs"]
#[expect(dead_code, reason = "the example's main is not run here")]
mod example;
