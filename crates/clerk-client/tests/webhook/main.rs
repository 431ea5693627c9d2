//! Webhooks: the shared vectors, the map from events to stale answers, the endpoint, and what holds for any bytes.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a test is what fails here")]

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
