//! The telemetry source: receives OpenTelemetry traces and counts the calls to Clerk in them.
//!
//! Applications that use OpenTelemetry already report each call to Clerk as a CLIENT span. The receiver takes these
//! spans over OTLP/HTTP and reports the calls to the ledger, with no proxy in between and no key.
//!
//! ```text
//! POST /v1/traces ──► decode ──► span::classify ──► senders (clock, caller, instance)
//!                                                      │
//!                           ledger ◄───────── span_memory (duplicates, nested spans)
//! ```
//!
//! Paths become route templates in [`span::classify`]. No path, query, header value or user is in any type that
//! outlives a request, in a log, or in a `Debug` output.

mod account;
pub mod decode;
mod options;
pub mod receiver;
pub mod senders;
pub mod span;
pub mod span_memory;
mod stats;

pub use options::{InvalidTelemetryOptions, TelemetryInstance, TelemetryOptions};
pub use receiver::{ReceiverLimits, Rejected, Telemetry};
pub use stats::{Refusal, SpanResult, TelemetryStats};
