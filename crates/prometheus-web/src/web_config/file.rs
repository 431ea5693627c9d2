//! The YAML of a web configuration file: names and types, before validation.
//!
//! The schema is that of Prometheus' exporter-toolkit (`docs/web-configuration.md` there), so that one file works for
//! Prometheus and all exporters.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::error::Problem;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) tls_server_config: Option<TlsServerConfig>,
    pub(super) http_server_config: Option<HttpServerConfig>,
    pub(super) basic_auth_users: Option<BTreeMap<String, SecretText>>,
    pub(super) rate_limit: Option<RateLimitSection>,
}

/// `tls_server_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsServerConfig {
    pub(super) cert_file: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key_file: Option<String>,
    pub(super) key: Option<SecretText>,
    pub(super) client_auth_type: Option<String>,
    pub(super) client_ca_file: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) client_allowed_sans: Option<Vec<String>>,
    pub(super) min_version: Option<String>,
    pub(super) max_version: Option<String>,
    pub(super) cipher_suites: Option<Vec<String>>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    pub(super) curve_preferences: Option<Vec<String>>,
}

/// `http_server_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpServerConfig {
    pub(super) http2: Option<bool>,
    pub(super) headers: Option<BTreeMap<String, String>>,
}

/// `rate_limit`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RateLimitSection {
    pub(super) interval: Option<String>,
    pub(super) burst: Option<u32>,
}

/// A secret text: a private key or a password hash.
#[derive(Clone, Debug)]
pub(super) struct SecretText(pub(super) SecretString);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl Visitor<'_> for TextVisitor {
            type Value = SecretText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(SecretText(text.into()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(SecretText(text.into()))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

impl File {
    /// Parses the YAML. An empty file is valid: no TLS, no users.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        // The snippet of an error shows neighbouring lines, which may contain a private key.
        let options = serde_saphyr::options! { with_snippet: false };
        let is_empty = text.lines().all(|line| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line == "---"
        });
        if is_empty {
            return Ok(Self::default());
        }
        serde_saphyr::from_str_with_options(text, options).map_err(|error| Problem::Yaml(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_file_configures_nothing() {
        for text in ["", "\n", "# nothing yet\n", "---\n", "basic_auth_users:\ntls_server_config: {}\n"] {
            let file = File::parse(text).unwrap();
            assert!(file.basic_auth_users.is_none_or(|users| users.is_empty()), "{text:?}");
        }
    }

    #[test]
    fn yaml_error_has_the_line_and_no_value() {
        let cases = [
            ("tls_server_config:\n  cert_fil: CANARY\n", "cert_fil"),
            ("basic_auth_user:\n  alice: CANARY\n", "basic_auth_user"),
            ("basic_auth_users: CANARY\n", "line 1"),
            ("basic_auth_users:\n  alice: [CANARY]\n", "line 2"),
            ("basic_auth_users:\n  alice: CANARY\n bob: CANARY\n", "line"),
            ("basic_auth_users:\n  alice: a\n  alice: CANARY\n", "alice"),
            ("tls_server_config: CANARY\n", "line 1"),
            ("tls_server_config:\n  key: {a: CANARY}\n", "line 2"),
            ("tls_server_config:\n  key: |\n  CANARY\n", "line"),
            ("tls_server_config:\n  prefer_server_cipher_suites: CANARY\n", "line 2"),
            ("rate_limit:\n  burst: CANARY\n", "line 2"),
            ("\"CANARY", "line"),
        ];
        for (text, expected) in cases {
            let message = File::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
            assert!(!message.contains("CANARY"), "{text:?}: {message}");
        }
    }
}
