//! OTLP JSON lines, as the OpenTelemetry Collector's file exporter writes them: one `ExportTraceServiceRequest` a line.
//!
//! Lines are decoded and spans are told apart by the code of the telemetry source.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use rustc_hash::FxHashSet;

use super::call::LogCall;
use super::request::{Parts, Requests};
use super::skip::SkipKind;
use super::source::LONGEST_LINE;
use crate::telemetry::decode::{BodyEncoding, BodyFormat, DecodeLimits, decode};
use crate::telemetry::span::{Call, CallEnd, SpanKind, classify, target_path};

/// The first member of every line.
pub(super) const MARKER: &[u8] = b"resourceSpans";

const LIMITS: DecodeLimits = DecodeLimits {
    max_body_bytes: LONGEST_LINE,
    max_inflated_bytes: LONGEST_LINE,
    max_decoded_bytes: 4 * LONGEST_LINE,
    max_depth: 64,
};

/// Passes the requests among a line's spans to `found`.
///
/// Of the spans of one call the innermost counts, if they are in one line. A span without a status is an attempt whose
/// outcome is unknown, unless it says that nothing was sent.
pub(super) fn parse(line: &[u8], requests: &mut Requests, found: &mut impl FnMut(LogCall)) -> Result<(), SkipKind> {
    let export = decode(line, BodyFormat::Json, BodyEncoding::Identity, &LIMITS).map_err(|_| SkipKind::Malformed)?;
    let (mut calls, mut skipped) = (Vec::new(), SkipKind::OtherKind);
    for resource in &export.resource_spans {
        let attributes = resource.resource.as_ref().map(|resource| resource.attributes.as_slice()).unwrap_or_default();
        let service = text(attributes, "service.name");
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            match classify(span, &requests.otlp_hosts) {
                SpanKind::Call(call) => calls.push((call, span, service)),
                SpanKind::OtherHost => skipped = SkipKind::OtherHost,
                SpanKind::Malformed => skipped = SkipKind::Malformed,
                SpanKind::OtherKind | SpanKind::Own => {}
            }
        }
    }
    let parents: FxHashSet<_> = calls.iter().map(|(call, ..)| (call.trace_id, call.parent_span_id)).collect();
    let mut is_any = false;
    for (call, span, service) in &calls {
        if parents.contains(&(call.trace_id, Some(call.span_id))) {
            continue;
        }
        if call.end == CallEnd::NotSent {
            skipped = SkipKind::NotSent;
            continue;
        }
        let agent = ["user_agent.original", "http.user_agent"].iter().find_map(|name| text(&span.attributes, name));
        let path = target_path(span).unwrap_or("/");
        match requests.call(parts(call, path, service.or(agent))) {
            Ok(request) => {
                is_any = true;
                found(request);
            }
            Err(kind) => skipped = kind,
        }
    }
    if is_any { Ok(()) } else { Err(skipped) }
}

fn parts<'a>(call: &Call, path: &'a str, caller: Option<&'a str>) -> Parts<'a> {
    let (status, quota) = match call.end {
        CallEnd::Answered { status, quota } => (Some(status), quota.dialect.map(|_| Box::new(quota))),
        CallEnd::Unanswered | CallEnd::NotSent => (None, None),
    };
    Parts {
        time: call.started,
        is_end: false,
        took: Some(call.ended.since(call.started)),
        method: call.method.as_str().as_bytes(),
        target: path.as_bytes(),
        is_clerk: true,
        host: None,
        caller: caller.map(str::as_bytes),
        status,
        quota,
    }
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
