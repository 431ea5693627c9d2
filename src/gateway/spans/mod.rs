//! Spans of requests, for teams that trace: what the gateway did, and for how long.
//!
//! A server span for the request, with the application's span as its parent, and below it the waits and attempts. Spans
//! name routes by their templates; they contain no path, no query, no key and no id of a person. Attributes follow
//! OpenTelemetry's conventions for HTTP; those of this program begin with `clerk_exporter.`.

mod attempt_spans;
mod request_span;

pub(in crate::gateway) use attempt_spans::TracedAttempts;
pub use request_span::RequestTracer;
pub(in crate::gateway) use request_span::{ParentSpan, RequestSpan, SpanFacts};
