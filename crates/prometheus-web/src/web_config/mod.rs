//! Prometheus' web configuration file (`--web.config.file`): TLS, users, headers and a rate limit for a listener.
//!
//! The schema is the one that Prometheus and its exporters share (exporter-toolkit, `docs/web-configuration.md`), and
//! so is the behaviour: everything in it holds for every path, and the file is read again when it changes, so that
//! certificates are rotated without a restart. A file that has become unusable makes every request fail with 500; at
//! the start it is an error.
//!
//! What is not supported is refused by name and never ignored: TLS 1.0 and 1.1, cipher suites and curves that rustls
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
pub use source::WebConfigSource;

use basic_auth::Users;
use error::Problem;
use file::File;
use rate_limit::RateLimit;
use source::Reader;

/// A web configuration that can be used.
pub(super) struct WebConfig {
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) http2: bool,
    headers: HeaderMap,
    users: Option<Users>,
    rate_limit: Option<RateLimit>,
}

impl WebConfig {
    fn new(file: &File, reader: &mut Reader) -> Result<Self, Problem> {
        let http = file.http_server_config.as_ref();
        let http2 = http.and_then(|http| http.http2).unwrap_or(true);
        let none = BTreeMap::new();
        Ok(Self {
            tls: match &file.tls_server_config {
                Some(typed) => tls::server_config(typed, http2, reader)?,
                None => None,
            },
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
        })
    }
}
