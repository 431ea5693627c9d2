//! Sends the program's own spans to an OpenTelemetry collector, over HTTP with protobuf (OTLP 1.9).
//!
//! Whether and where is decided by OpenTelemetry's environment variables. Requests never wait for a collector: a span that
//! does not fit into the queue is dropped and counted.

mod client;
mod settings;
mod span_queue;
mod tracing;

pub use settings::{OtlpError, TraceSettings};
pub use span_queue::{SpanCounts, SpanQueue, SpanSender, SpanStats};
pub use tracing::tracer;

/// The attribute of the gateway's own spans, which the telemetry source does not count. Its value is `true`.
pub const OWN_MARK: &str = "clerk_exporter.own";
