//! Paths that are ours: of webhooks, and of the exporter's pages, which are on another port. Requests to nearly one of them
//! are mistakes of a configuration. What they carry is for us, and is forwarded to nobody.

use http::{HeaderMap, HeaderName};

use clerk_client::secret::percent_decoded;

/// Where webhooks are delivered to, unless the configuration says otherwise.
pub const DEFAULT_WEBHOOK_PATH: &str = "/webhooks/clerk";

/// Paths of the exporter. A test of theirs compares.
const EXPORTER_PAGES: [&str; 5] = ["/metrics", "/config", "/-", "/api/v1/status", "/api/v1/top"];

/// Fields that a delivery of a webhook is signed with.
static SIGNATURES: [HeaderName; 2] =
    [HeaderName::from_static("svix-signature"), HeaderName::from_static("webhook-signature")];

/// Encodings of a path within one another that are seen through.
const MAX_ENCODINGS: usize = 4;

/// How near a path is to one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum OwnPath {
    /// Exactly a page of the exporter's.
    Page,
    /// That of webhooks, or nearly one of ours: another spelling, or something below it.
    Near,
}

impl OwnPath {
    /// What a path is, if it is ours. `webhooks`: the configured path, if there is one.
    pub(in crate::gateway) fn of(path: &str, webhooks: Option<&str>) -> Option<Self> {
        // All bytes at once, since a look at each in turn costs more than the rest of what is looked for here.
        let leads_out = |found: bool, byte: &u8| found | matches!(byte, b'%' | b'\\' | b'.');
        if path.starts_with("/v1/")
            && (!path.as_bytes().iter().fold(false, leads_out) || !(path.contains(['%', '\\']) || path.contains("/.")))
        {
            // Nearly all of them, and nothing in it leads out of there.
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

/// Whether a request delivers a webhook, by the fields that Svix, and the standard made of it, sign with.
pub(in crate::gateway) fn is_delivery(headers: &HeaderMap) -> bool {
    // One look at all names costs less than asking for each.
    headers.keys().any(|name| SIGNATURES.contains(name))
}

/// Whether a path of the exporter's is known here.
#[must_use]
pub fn is_exporter_page(path: &str) -> bool {
    OwnPath::of(path, None) == Some(OwnPath::Page)
}

/// A path as the most lenient server reads it: without case, percent-encoding, backslashes, parameters of segments, white
/// space, and empty and dot segments.
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
    fn every_spelling_of_a_path_of_ours_is_near_it() {
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
    fn pages_are_known_and_paths_of_clerk_are_not_ours() {
        for path in ["/metrics", "/config", "/-/healthy", "/-/ready", "/-/reload", "/api/v1/status", "/api/v1/top"] {
            assert_eq!(OwnPath::of(path, None), Some(OwnPath::Page), "{path}");
        }
        for (_, template) in clerk_quota::route::templates() {
            assert_eq!(OwnPath::of(template, None), None, "{template}");
        }
        for path in ["/", "/v1", "/v1/webhooks/svix", "/m2m_tokens", "/webhooks", "/webhooks/clerks", "/v1/a/../users"]
        {
            assert_eq!(OwnPath::of(path, None), None, "{path}");
        }
        // A delivery to the default path is a mistake, too, where another one is configured.
        assert_eq!(OwnPath::of("/webhooks/clerk", Some("/hooks")), Some(OwnPath::Near));
    }
}
