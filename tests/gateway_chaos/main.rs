//! The gateway during failures of Clerk, of Redis, and of clients. Every request is accounted for: it got the correct
//! response, or an error that describes the failure, or its connection ended. None hangs, none gets another request's
//! response, and no accepted request is lost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "../common/chaos.rs"]
mod chaos;
#[expect(dead_code, reason = "other tests use more of it")]
#[path = "../common/exporter.rs"]
mod exporter;
#[path = "../common/exposition.rs"]
mod exposition;
#[path = "../common/front.rs"]
mod front;

mod account;
mod clients;
mod redis_away;
mod rolling;
mod signals;
mod storms;
mod tls;
mod upstream;
mod world;
