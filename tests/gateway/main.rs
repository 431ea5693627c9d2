//! The gateway from outside: raw bytes in at one end, raw bytes out at the other, and what it counted meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod account;
mod attempts;
mod configure;
mod credentials;
mod failures;
mod fleet;
mod framing;
mod idle_connections;
mod keys;
mod log;
mod own_paths;
mod policies;
mod protocols;
mod reads;
mod refusals;
mod seeing;
mod sharing;
mod streams;
mod support;
mod transparency;
