//! Serving: real sockets on the loopback interface, driven through the public face of `serve`.

mod auth;
mod connections;
mod drain;
mod support;
mod tls;
mod web_config;
