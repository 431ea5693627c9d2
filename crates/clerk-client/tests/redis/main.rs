//! The Redis client against a real server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod exercise;
mod names;
mod permissions;
mod refusals;
mod server;
mod support;
mod wordings;
