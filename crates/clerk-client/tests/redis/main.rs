//! The Redis client against a real server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod exercise;
mod names;
mod passwords;
mod permissions;
mod prove;
mod refusals;
mod renewal;
mod sentinel;
mod server;
mod support;
mod time;
mod wordings;
