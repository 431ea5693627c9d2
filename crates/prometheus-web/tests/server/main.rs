//! Serving: real sockets on the loopback interface, driven through the public face of `serve`.

#![expect(clippy::unwrap_used, reason = "a failed step of a test may stop it, in helpers too")]

mod auth;
mod connections;
mod drain;
mod frames;
mod framing;
mod stalls;
mod support;
mod tls;
mod web_config;
