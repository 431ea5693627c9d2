//! Quota headers that a sender captured as attributes.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::attributes::{Attributes, HEADER_PREFIX, text};
use clerk_quota::{Moment, Quota};

/// Maximum number of values that are read from one span, and of bytes of each.
const MAX_VALUES: usize = 32;
const MAX_VALUE_BYTES: usize = 512;

/// Parses the captured headers like those of a response that arrived at `ended`.
pub(super) fn read(status: u16, span: &Span, found: &Attributes<'_>, ended: Moment) -> Quota {
    if !found.has_headers {
        return Quota::default();
    }
    let mut headers = HeaderMap::new();
    for KeyValue { key, value, .. } in &span.attributes {
        let Some(name) = key.strip_prefix(HEADER_PREFIX).and_then(header_name) else { continue };
        let Some(value) = value.as_ref().and_then(|value| value.value.as_ref()) else { continue };
        for text in texts(value) {
            if text.len() <= MAX_VALUE_BYTES
                && headers.len() < MAX_VALUES
                && let Ok(value) = HeaderValue::from_str(text)
            {
                headers.append(name.clone(), value);
            }
        }
    }
    if headers.is_empty() {
        return Quota::default();
    }
    let status = StatusCode::from_u16(status).unwrap_or_default();
    ratelimit_headers::parse(status, &headers, Some(ended.to_system_time()))
}

/// The name of a header that is about quotas. Older libraries write `_` for `-`.
fn header_name(name: &str) -> Option<HeaderName> {
    if name.len() > 64 {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('_', "-");
    let is_read = matches!(&*name, "retry-after" | "date" | "age") || ratelimit_headers::is_quota_header(&name);
    is_read.then(|| HeaderName::from_bytes(name.as_bytes()).ok()).flatten()
}

/// The values of a header: a list of texts, or a text in older libraries.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let list = if let Value::ArrayValue(list) = value { &list.values[..] } else { &[] };
    let items = list.iter().filter_map(|item| item.value.as_ref()).filter_map(text);
    text(value).into_iter().chain(items)
}
