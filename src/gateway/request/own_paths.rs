//! Paths that are never forwarded: the webhook path, and the exporter's pages, which are on another port. Requests to
//! similar paths are configuration mistakes, and what they carry is not for Clerk.

use http::{HeaderMap, HeaderName};

use clerk_client::secret::percent_decoded;

/// The default webhook path.
pub const DEFAULT_WEBHOOK_PATH: &str = "/webhooks/clerk";

/// Paths of the exporter's pages. A test of the exporter compares them.
const EXPORTER_PAGES: [&str; 7] =
    ["/metrics", "/config", "/probe", "/-", "/api/v1/status", "/api/v1/top", "/api/v1/overrides"];

/// Fields with the signature of a webhook delivery.
static SIGNATURES: [HeaderName; 2] =
    [HeaderName::from_static("svix-signature"), HeaderName::from_static("webhook-signature")];

/// Maximum depth of nested percent-encodings that is decoded.
const MAX_ENCODINGS: usize = 4;

/// How a path relates to the gateway's and the exporter's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum OwnPath {
    /// Exactly a page of the exporter.
    Page,
    /// The webhook path, or similar to an own path: another spelling, or below it.
    Near,
}

impl OwnPath {
    /// Classifies a path; `None` if it is not an own path. `webhooks`: the configured path, if any.
    pub(in crate::gateway) fn of(path: &str, webhooks: Option<&str>) -> Option<Self> {
        // One pass over all bytes: separate searches cost more than the rest of this function.
        let leads_out = |found: bool, byte: &u8| found | matches!(byte, b'%' | b'\\' | b'.');
        if path.starts_with("/v1/")
            && (!path.as_bytes().iter().fold(false, leads_out) || !(path.contains(['%', '\\']) || path.contains("/.")))
        {
            // Almost all requests: without dots and encodings, the path cannot leave `/v1/`.
            return None;
        }
        let normal = normal_form(path);
        let is_at = |own: &str| normal.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is_at(DEFAULT_WEBHOOK_PATH) || webhooks.is_some_and(|path| is_at(&normal_form(path))) {
            return Some(Self::Near);
        }
        EXPORTER_PAGES.into_iter().find(|page| is_at(page)).map(|page| {
            let is_exact = path == normal && ((path == page && page != "/-") || path.starts_with("/-/"));
            if is_exact { Self::Page } else { Self::Near }
        })
    }
}

/// Whether a request delivers a webhook: it has a signature field of Svix or of Standard Webhooks.
pub(in crate::gateway) fn is_delivery(headers: &HeaderMap) -> bool {
    // One pass over all names costs less than a lookup of each.
    headers.keys().any(|name| SIGNATURES.contains(name))
}

/// Whether the gateway knows this path as a page of the exporter.
#[must_use]
pub fn is_exporter_page(path: &str) -> bool {
    OwnPath::of(path, None) == Some(OwnPath::Page)
}

/// A path as the most lenient server reads it: without case, percent-encoding, backslashes, segment parameters, white
/// space, empty segments and dot segments.
fn normal_form(path: &str) -> String {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..MAX_ENCODINGS {
        if !bytes.contains(&b'%') {
            break;
        }
        bytes = percent_decoded(&bytes);
    }
    let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase().replace('\\', "/");
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        match name.trim_matches(|c: char| c.is_whitespace() || c.is_control()) {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    segments.iter().flat_map(|segment| ["/", segment]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_own_path_is_near() {
        for path in [
            "/webhooks/clerk",
            "/webhooks/clerk/",
            "/webhooks//clerk",
            "//webhooks/clerk",
            "/Webhooks/clerk",
            "/WEBHOOKS/CLERK",
            "/webhooks/%63lerk",
            "/webhooks%2Fclerk",
            "/webhooks%2fclerk%2f",
            "/webhooks%252Fclerk",
            "/%77ebhooks/clerk",
            "/./webhooks/clerk",
            "/webhooks/./clerk",
            "/webhooks/x/../clerk",
            "/v1/../webhooks/clerk",
            "/v1/%2e%2e/webhooks/clerk",
            "/webhooks/clerk/.",
            "/webhooks/clerk;v=1",
            "/webhooks;a/clerk",
            "/webhooks\\clerk",
            "/webhooks/clerk%20",
            "/webhooks/clerk%00",
            "/webhooks/clerk%3Fx",
            "/webhooks/clerk/msg_1",
            "/api/v1/top/",
            "/api/v1/overrides/prod",
            "/api//v1/top",
            "/API/v1/status",
            "/metrics/",
            "/%6detrics",
            "/-/ready/",
            "/-/Healthy",
            "/-",
        ] {
            assert_eq!(OwnPath::of(path, None), Some(OwnPath::Near), "{path}");
        }
        assert_eq!(OwnPath::of("/Hooks/", Some("/hooks")), Some(OwnPath::Near));
        assert_eq!(OwnPath::of("/hooks/", Some("/Hooks")), Some(OwnPath::Near));
    }

    #[test]
    fn exporter_pages_are_own_paths_and_clerk_paths_are_not() {
        let api = ["/api/v1/status", "/api/v1/top", "/api/v1/overrides"];
        for path in ["/metrics", "/config", "/-/healthy", "/-/ready", "/-/reload"].into_iter().chain(api) {
            assert_eq!(OwnPath::of(path, None), Some(OwnPath::Page), "{path}");
        }
        for (_, template) in clerk_quota::route::templates() {
            assert_eq!(OwnPath::of(template, None), None, "{template}");
        }
        for path in ["/", "/v1", "/v1/webhooks/svix", "/m2m_tokens", "/webhooks", "/webhooks/clerks", "/v1/a/../users"]
        {
            assert_eq!(OwnPath::of(path, None), None, "{path}");
        }
        // A delivery to the default path is a mistake even if another path is configured.
        assert_eq!(OwnPath::of("/webhooks/clerk", Some("/hooks")), Some(OwnPath::Near));
    }
}
