//! The gateway from outside: raw bytes in at one end, raw bytes out at the other, and what it counted meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod account;
mod configure;
mod failures;
mod fleet;
mod framing;
mod idle_connections;
mod keys;
mod log;
mod policies;
mod protocols;
mod reads;
mod refusals;
mod seeing;
mod streams;
mod support;
mod transparency;
