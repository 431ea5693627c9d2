//! OTLP JSON lines, as the OpenTelemetry Collector's file exporter writes them: one `ExportTraceServiceRequest` a line.

use std::borrow::Cow;

use serde::Deserialize;

use super::call::LogCall;
use super::request::{self, Parts, Requests};
use super::skip::SkipKind;
use super::time;

/// The first member of every line.
pub(super) const MARKER: &[u8] = b"resourceSpans";

/// Passes the requests among a line's spans to `found`.
///
/// Of the spans of one call, the innermost client span counts. A span without a status is an attempt whose outcome is
/// unknown, or one that was not sent: it counts, as a bound.
pub(super) fn parse(line: &[u8], requests: &mut Requests, found: &mut impl FnMut(LogCall)) -> Result<(), SkipKind> {
    let export: Export<'_> = serde_json::from_slice(line).map_err(|_| SkipKind::Malformed)?;
    let (mut is_any, mut skipped) = (false, SkipKind::OtherKind);
    let spans =
        || export.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
    let parents: Vec<(&str, &str)> =
        spans().filter(|span| span.is_client()).map(|span| (&*span.trace_id, &*span.parent_span_id)).collect();
    for resource in &export.resource_spans {
        let service = text(&resource.resource.attributes, &["service.name"]);
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans).filter(|span| span.is_client()) {
            if parents.contains(&(&*span.trace_id, &*span.span_id)) {
                continue;
            }
            match call(span, service.as_deref(), requests) {
                Ok(call) => {
                    is_any = true;
                    found(call);
                }
                Err(kind) => skipped = kind,
            }
        }
    }
    if is_any { Ok(()) } else { Err(skipped) }
}

fn call(span: &Span<'_>, service: Option<&str>, requests: &mut Requests) -> Result<LogCall, SkipKind> {
    let of = |names: &[&str]| text(&span.attributes, names);
    let method = of(&["http.request.method", "http.method"]).ok_or(SkipKind::OtherKind)?;
    let target = of(&["url.full", "http.url", "http.target", "url.path"]).ok_or(SkipKind::BadRequest)?;
    let host = of(&["server.address", "net.peer.name", "http.host"]);
    let time = time::parse(span.start_time_unix_nano.text().as_bytes()).ok_or(SkipKind::BadTime)?;
    let end = time::parse(span.end_time_unix_nano.text().as_bytes());
    let status = match of(&["http.response.status_code", "http.status_code"]) {
        Some(text) => request::status(text.as_bytes())?,
        None => None,
    };
    let headers = request::QUOTA_HEADERS
        .into_iter()
        .filter_map(|name| Some((name, of(&[&*format!("http.response.header.{name}")])?)));
    let headers: Vec<_> = headers.collect();
    let quota = request::quota(status, headers.iter().map(|(name, value)| (*name, value.as_bytes())));
    let agent = of(&["user_agent.original", "http.user_agent"]);
    requests.call(Parts {
        time,
        is_end: false,
        took: end.filter(|end| *end >= time).map(|end| end.since(time)),
        method: method.as_bytes(),
        target: target.as_bytes(),
        host: host.as_deref().map(str::as_bytes),
        caller: service.or(agent.as_deref()).map(str::as_bytes),
        status,
        quota,
    })
}

/// The value of the first attribute that is there.
fn text<'a>(attributes: &'a [Attribute<'a>], names: &[&str]) -> Option<Cow<'a, str>> {
    names.iter().find_map(|name| attributes.iter().find(|attribute| attribute.key == *name)?.value.text())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Export<'a> {
    #[serde(borrow, default)]
    resource_spans: Vec<ResourceSpans<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    #[serde(borrow, default)]
    resource: Resource<'a>,
    #[serde(borrow, default)]
    scope_spans: Vec<ScopeSpans<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default)]
    attributes: Vec<Attribute<'a>>,
}

#[derive(Debug, Deserialize)]
struct ScopeSpans<'a> {
    #[serde(borrow, default)]
    spans: Vec<Span<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    #[serde(borrow, default)]
    trace_id: Cow<'a, str>,
    #[serde(borrow, default)]
    span_id: Cow<'a, str>,
    #[serde(borrow, default)]
    parent_span_id: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Scalar<'a>,
    #[serde(borrow, default)]
    start_time_unix_nano: Scalar<'a>,
    #[serde(borrow, default)]
    end_time_unix_nano: Scalar<'a>,
    #[serde(borrow, default)]
    attributes: Vec<Attribute<'a>>,
}

impl Span<'_> {
    fn is_client(&self) -> bool {
        matches!(&*self.kind.text(), "3" | "SPAN_KIND_CLIENT")
    }
}

/// A number, or a string as protobuf's JSON form writes 64-bit numbers and the names of enums.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar<'a> {
    Number(u64),
    Text(#[serde(borrow)] Cow<'a, str>),
}

impl Default for Scalar<'_> {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Scalar<'_> {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Number(number) => Cow::Owned(number.to_string()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Attribute<'a> {
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    #[serde(borrow, default)]
    value: AttributeValue<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttributeValue<'a> {
    #[serde(borrow)]
    string_value: Option<Cow<'a, str>>,
    #[serde(borrow)]
    int_value: Option<Scalar<'a>>,
    #[serde(borrow)]
    array_value: Option<ArrayValue<'a>>,
}

#[derive(Debug, Deserialize)]
struct ArrayValue<'a> {
    #[serde(borrow, default)]
    values: Vec<AttributeValue<'a>>,
}

impl AttributeValue<'_> {
    fn text(&self) -> Option<Cow<'_, str>> {
        if let Some(text) = &self.string_value {
            return Some(Cow::Borrowed(text));
        }
        if let Some(number) = &self.int_value {
            return Some(number.text());
        }
        self.array_value.as_ref()?.values.first()?.text()
    }
}
