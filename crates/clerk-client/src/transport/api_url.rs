//! The URL of Clerk's Backend API.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

use crate::secret::looks_like_secret;

/// A base URL without `/v1` and without a trailing slash, such as `https://api.clerk.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApiUrl {
    text: String,
    host: String,
    is_https: bool,
}

/// Why a URL cannot be used. The message does not repeat the URL, which may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiUrlError {
    /// Not a URL.
    #[error("not a URL; write `https://api.clerk.com`")]
    NotAUrl,
    /// Neither `http` nor `https`.
    #[error("only https (or http on this machine) is supported; write `https://api.clerk.com`")]
    Scheme,
    /// `https://user:password@host`.
    #[error("must not contain a user or password; remove the part before `@`")]
    UserInfo,
    /// A key in the URL, which is shown in logs and labels.
    #[error("contains a key, but the URL is shown; write `https://api.clerk.com`")]
    Secret,
    /// `?...` or `#...`.
    #[error("must not contain a query or fragment; remove the part from `?` or `#` on")]
    Query,
}

impl ApiUrl {
    /// The default URL of Clerk's Backend API.
    pub const DEFAULT: &str = "https://api.clerk.com";

    /// Validates and normalises a URL: lower-case host, no trailing slash, no trailing `/v1` (SDKs differ in that).
    ///
    /// # Errors
    ///
    /// Returns an error if it is not an http or https URL of a host, or has a user, query, fragment or key.
    pub fn parse(text: &str) -> Result<Self, ApiUrlError> {
        let text = text.trim();
        if looks_like_secret(text) {
            return Err(ApiUrlError::Secret);
        }
        if text.contains(['?', '#']) {
            return Err(ApiUrlError::Query);
        }
        // `Uri` misses the user info of some malformed URLs, so reject any `@` before the path.
        let authority_part = text.split_once("://").map_or(text, |(_, rest)| rest).split('/').next();
        if authority_part.is_some_and(|part| part.contains('@')) {
            return Err(ApiUrlError::UserInfo);
        }
        let uri: Uri = text.parse().map_err(|_| ApiUrlError::NotAUrl)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(ApiUrlError::NotAUrl);
        };
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(ApiUrlError::Scheme),
        };
        let host = authority.host().to_ascii_lowercase();
        // Anything after the host must be a port; `port_u16` ignores an invalid one.
        let port = authority.as_str()[authority.host().len()..].strip_prefix(':').map(str::parse::<u16>);
        if host.is_empty() || matches!(port, Some(Err(_) | Ok(0))) {
            return Err(ApiUrlError::NotAUrl);
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/v1").unwrap_or(path).trim_end_matches('/');
        let scheme = if is_https { "https" } else { "http" };
        let port = port.and_then(Result::ok).map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self { text: format!("{scheme}://{host}{port}{path}"), host, is_https })
    }

    /// Returns the URL, to be followed by a path such as `/v1/users`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the host, for the label `api_host`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the key would be sent over a network unencrypted.
    pub fn sends_key_in_the_clear(&self) -> bool {
        !self.is_https && !is_this_machine(&self.host)
    }
}

/// Whether the host of a URL is this machine.
pub(super) fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        // RFC 6761, section 6.3: names under `localhost` are this machine.
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

impl Default for ApiUrl {
    fn default() -> Self {
        Self { text: Self::DEFAULT.to_owned(), host: "api.clerk.com".to_owned(), is_https: true }
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_normalised() {
        let cases = [
            ("https://api.clerk.com", "https://api.clerk.com"),
            (" https://api.clerk.com/ ", "https://api.clerk.com"),
            ("https://api.clerk.com/v1", "https://api.clerk.com"),
            ("https://API.Clerk.com/v1/", "https://api.clerk.com"),
            ("HTTPS://api.clerk.com:443", "https://api.clerk.com:443"),
            ("http://127.0.0.1:10431", "http://127.0.0.1:10431"),
            ("http://[::1]:10431/v1", "http://[::1]:10431"),
            ("https://proxy.example/clerk/v1/", "https://proxy.example/clerk"),
            ("https://proxy.example/v1x", "https://proxy.example/v1x"),
        ];
        for (text, expected) in cases {
            assert_eq!(ApiUrl::parse(text).unwrap().as_str(), expected, "{text}");
        }
        assert_eq!(ApiUrl::parse(ApiUrl::DEFAULT).unwrap(), ApiUrl::default());
        assert_eq!(ApiUrl::parse("https://h.example:8443/x").unwrap().host(), "h.example");
    }

    #[test]
    fn invalid_urls_are_rejected() {
        let cases = [
            ("", ApiUrlError::NotAUrl),
            ("api.clerk.com", ApiUrlError::NotAUrl),
            ("/v1", ApiUrlError::NotAUrl),
            ("https://", ApiUrlError::NotAUrl),
            ("https://a b", ApiUrlError::NotAUrl),
            ("https://api.clerk.com:99999", ApiUrlError::NotAUrl),
            ("https://api.clerk.com:0", ApiUrlError::NotAUrl),
            ("https://api.clerk.com:", ApiUrlError::NotAUrl),
            ("https://äpi.clerk.com", ApiUrlError::NotAUrl),
            ("ftp://api.clerk.com", ApiUrlError::Scheme),
            ("https://user:pw@api.clerk.com", ApiUrlError::UserInfo),
            ("user:pw@api.clerk.com", ApiUrlError::UserInfo),
            ("https://api.clerk.com/sk_live_abc", ApiUrlError::Secret),
            ("https://api.clerk.com?key=1", ApiUrlError::Query),
            ("https://api.clerk.com/#x", ApiUrlError::Query),
        ];
        for (text, expected) in cases {
            assert_eq!(ApiUrl::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn plain_http_is_safe_only_on_this_machine() {
        for text in
            ["http://127.0.0.1:1", "http://[::1]", "http://localhost", "http://clerk.localhost", "https://x.example"]
        {
            assert!(!ApiUrl::parse(text).unwrap().sends_key_in_the_clear(), "{text}");
        }
        for text in ["http://api.clerk.com", "http://10.0.0.1", "http://localhost.example", "http://notlocalhost"] {
            assert!(ApiUrl::parse(text).unwrap().sends_key_in_the_clear(), "{text}");
        }
    }
}
