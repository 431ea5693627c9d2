//! Methods of spans.

use clerk_quota::MethodLabel;

/// Returns the method as a label and as route lookups expect it.
///
/// `_OTHER` in the stable conventions means a method that the sender does not know; the original one is beside it.
pub(super) fn find(method: Option<&str>, original: Option<&str>) -> (MethodLabel, &'static str) {
    const KNOWN: [MethodLabel; 7] = [
        MethodLabel::Get,
        MethodLabel::Post,
        MethodLabel::Patch,
        MethodLabel::Delete,
        MethodLabel::Put,
        MethodLabel::Head,
        MethodLabel::Options,
    ];
    let method = match method {
        Some("_OTHER") | None => original,
        named => named,
    };
    let known = method.and_then(|name| KNOWN.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(name)));
    known.map_or((MethodLabel::Other, ""), |label| (label, label.as_str()))
}
