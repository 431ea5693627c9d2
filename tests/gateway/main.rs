//! The gateway as a black box: raw bytes in on one side, raw bytes out on the other, and its counters.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod account;
mod attempts;
mod collector;
mod configure;
mod credentials;
mod failures;
mod fleet;
mod framing;
mod idle_connections;
mod keys;
mod log;
mod overrides;
mod own_paths;
mod policies;
mod protocols;
mod reads;
mod refusals;
mod seeing;
mod shares;
mod sharing;
mod spans;
mod streams;
mod support;
mod transparency;
