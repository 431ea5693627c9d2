//! Tests of [`serve`](prometheus_web::serve) over real sockets on the loopback interface.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;
mod connections;
mod drain;
mod frames;
mod framing;
mod stalls;
mod support;
mod tls;
mod web_config;
