//! Checks a response's `Content-Type`.

use http::HeaderMap;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

/// Whether the type is `application/json` or `application/*+json`, with any parameters.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let (begin, end) = (b"application/", b"+json");
    essence.eq_ignore_ascii_case(b"application/json")
        || (essence.len() >= begin.len() + end.len()
            && essence[..begin.len()].eq_ignore_ascii_case(begin)
            && essence[essence.len() - end.len()..].eq_ignore_ascii_case(end))
}
