//! Tells what a span is: a call to Clerk, or something else.
//!
//! Understands the stable HTTP conventions of OpenTelemetry and the old ones, which many libraries still send. The path
//! becomes a route template here, and is not kept.

mod attributes;
mod failure;
mod hosts;
mod ids;
mod method;
mod quota;
mod sampling;
mod url;

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as OtlpKind;

pub use hosts::{HostId, Hosts, InvalidHost};
pub use ids::{SpanId, TraceId};

use attributes::Attributes;
use clerk_quota::{MethodLabel, Moment, Quota, Route, route};

/// The attribute that marks the spans of this product, whose requests are counted already: `true`.
pub use crate::otlp::OWN_MARK;

/// What a span is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "passed on at once; a box would cost an allocation for each span")]
pub enum SpanKind {
    /// A call to Clerk.
    Call(Call),
    /// Not an HTTP client span.
    OtherKind,
    /// A request to another host.
    OtherHost,
    /// A span of this product.
    Own,
    /// A call to Clerk without valid ids or times.
    Malformed,
}

/// A call to Clerk. Contains no path and no value of a header.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// The configured host that was called.
    pub host: HostId,
    /// The method.
    pub method: MethodLabel,
    /// The route, with the id of a changed user or organization only as a hash.
    pub route: Route,
    /// When it started, by the sender's clock; not after `ended`.
    pub started: Moment,
    /// When it ended, by the sender's clock.
    pub ended: Moment,
    /// How it ended.
    pub end: CallEnd,
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// The parent span; `None` for the root of a trace.
    pub parent_span_id: Option<SpanId>,
    /// The share of all spans that the sender keeps, above 0 and at most 1; `None` if the span does not say it.
    pub sampling_ratio: Option<f64>,
    /// Whether the span is one of Next.js' own `fetch`, and its cache may have answered: Clerk saw at most this call.
    pub may_be_cache: bool,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CallEnd {
    /// A response arrived.
    Answered {
        /// HTTP status, 100 to 999.
        status: u16,
        /// What the captured headers say about the quota.
        quota: Quota,
    },
    /// No response is known. Clerk may have counted the call.
    Unanswered,
    /// The request never reached Clerk: no address, no connection, or no TLS.
    NotSent,
}

/// Finds out what a span is.
#[must_use]
pub fn classify(span: &Span, hosts: &Hosts) -> SpanKind {
    if span.kind != OtlpKind::Client as i32 {
        return SpanKind::OtherKind;
    }
    let found = Attributes::read(&span.attributes);
    if found.is_own {
        return SpanKind::Own;
    }
    let target = found.target();
    let Some(host) = target.host.and_then(|host| hosts.find(host, target.port, target.scheme)) else {
        return SpanKind::OtherHost;
    };
    if !found.is_http() {
        return SpanKind::OtherKind;
    }
    let ids = (TraceId::read(&span.trace_id), SpanId::read(&span.span_id), SpanId::parent(&span.parent_span_id));
    let (Some(trace_id), Some(span_id), Ok(parent_span_id)) = ids else {
        return SpanKind::Malformed;
    };
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    if start == 0 || end == 0 {
        return SpanKind::Malformed;
    }
    let ended = Moment::from_unix(Duration::from_nanos(end));
    let (method, name) = method::find(found.method, found.original_method);
    SpanKind::Call(Call {
        host,
        method,
        route: target.path.map_or(Route::UNKNOWN, |path| route::find(name, path.as_bytes())),
        // A clock that was set back during the call: the end is the better time.
        started: Moment::from_unix(Duration::from_nanos(start.min(end))),
        ended,
        end: call_end(span, &found, ended),
        trace_id,
        span_id,
        parent_span_id,
        sampling_ratio: sampling::ratio(&span.trace_state),
        may_be_cache: found.may_be_cache,
    })
}

/// Returns path and query of the request that a span names, for a caller that keeps nothing but a hash of them.
#[must_use]
pub(crate) fn target_path(span: &Span) -> Option<&str> {
    Attributes::read(&span.attributes).target().path
}

fn call_end(span: &Span, found: &Attributes<'_>, ended: Moment) -> CallEnd {
    match found.status() {
        Some(status) => CallEnd::Answered { status, quota: quota::read(status, span, found, ended) },
        None if failure::never_sent(span, found) => CallEnd::NotSent,
        None => CallEnd::Unanswered,
    }
}
