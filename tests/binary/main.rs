//! The built binary from a user's view: processes, signals, sockets, files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/exporter.rs"]
mod exporter;
#[path = "../common/exposition.rs"]
mod exposition;
#[expect(dead_code, reason = "other tests use more of it")]
#[path = "../common/front.rs"]
mod front;

mod analyze;
mod authorities;
mod check;
mod config_check;
mod environment;
mod gateway;
mod http;
mod landing;
mod limits;
mod log;
mod man;
mod metered;
mod overrides;
mod probe_debug;
mod proxy;
mod reload;
mod restart;
mod scrape;
mod secrets;
mod several;
mod shutdown;
mod spans;
mod telemetry;
mod test_command;
mod users;
mod verification;
mod webhooks;
