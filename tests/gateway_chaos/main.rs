//! The gateway while things break: what is behind it, what is beside it, and who is before it. Every request is accounted
//! for: it has the right answer, or an error that says what happened, or its connection ended; none hangs, none gets
//! another's answer, and none that was accepted is lost.

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
mod signals;
mod storms;
mod tls;
mod upstream;
mod world;
