//! The telemetry source: what it makes of spans, and how its receiver answers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod captured;
mod conventions;
mod hosts;
mod metered;
mod nesting;
mod privacy;
mod receiver;
mod senders;
mod support;
