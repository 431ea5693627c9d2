//! Prometheus' web configuration file (`--web.config.file`): TLS, users, headers and a rate limit for a listener.
//!
//! Schema and behaviour are those of Prometheus and its exporters (exporter-toolkit, `docs/web-configuration.md`). The
//! file applies to every path but the open ones, and is reloaded when it changes, so that certificates are rotated
//! without a restart. One difference: a file that becomes invalid does not make every request fail with 500. The
//! previous configuration stays in force, with a log line and a counter. At startup, an invalid file is an error.
//!
//! Unsupported settings are rejected by name, never ignored: TLS 1.0 and 1.1, cipher suites and curves that rustls
//! does not have, client verification against the system's authorities, and TLS options without a certificate.

mod basic_auth;
mod client_cert;
mod client_names;
mod credentials;
mod error;
mod file;
mod headers;
mod middleware;
mod rate_limit;
mod source;
mod tls;
mod tls_names;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::HeaderMap;

pub use error::WebConfigError;
pub use middleware::AuthenticatedClient;
pub use source::{FileReloads, WebConfigFile, WebConfigSource};

use basic_auth::Users;
use error::Problem;
use file::File;
use rate_limit::RateLimit;
use source::Reader;

/// A valid web configuration.
pub(super) struct WebConfig {
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) http2: bool,
    headers: HeaderMap,
    users: Option<Users>,
    rate_limit: Option<RateLimit>,
    /// Whether client certificates are verified against authorities.
    has_client_ca: bool,
    /// Whether every client needs a certificate that one of them signed.
    pub(super) requires_client_cert: bool,
}

impl WebConfig {
    /// Builds the configuration of a file. If its certificates are invalid, those of the previous configuration are
    /// used.
    fn new(file: &File, reader: &mut Reader, before: Option<&Self>) -> Result<(Self, Option<Problem>), Problem> {
        let http = file.http_server_config.as_ref();
        let http2 = http.and_then(|http| http.http2).unwrap_or(true);
        let none = BTreeMap::new();
        let mut problem = None;
        let tls = match &file.tls_server_config {
            Some(typed) => match tls::server_config(typed, http2, reader) {
                Ok(tls) => tls,
                Err(unusable) => {
                    let is_of_a_file = WebConfigFile::of(&unusable) != WebConfigFile::WebConfig;
                    let tls = before.filter(|_| is_of_a_file).and_then(|before| before.tls.clone());
                    if tls.is_none() {
                        return Err(unusable);
                    }
                    problem = Some(unusable);
                    tls
                }
            },
            None => None,
        };
        let (has_client_ca, requires_client_cert) = match (&problem, &file.tls_server_config, before) {
            (Some(_), _, Some(before)) => (before.has_client_ca, before.requires_client_cert),
            (_, Some(typed), _) => (
                typed.client_ca.is_some() || typed.client_ca_file.is_some(),
                typed.client_auth_type.as_deref() == Some("RequireAndVerifyClientCert"),
            ),
            _ => (false, false),
        };
        let config = Self {
            tls,
            has_client_ca,
            requires_client_cert,
            http2,
            headers: headers::headers(http.and_then(|http| http.headers.as_ref()).unwrap_or(&none))?,
            users: match &file.basic_auth_users {
                Some(typed) => Users::new(typed)?,
                None => None,
            },
            rate_limit: match &file.rate_limit {
                Some(typed) => RateLimit::new(typed)?,
                None => None,
            },
        };
        Ok((config, problem))
    }
}
