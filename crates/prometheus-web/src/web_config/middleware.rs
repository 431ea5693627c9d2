//! The checks that a request passes before it reaches the handler.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use tokio::time::Instant;

use super::WebConfig;
use super::basic_auth::Verdict;
use super::credentials::Credentials;
use super::rate_limit::TokenBucket;
use super::source::{Watched, WebConfigSource};

/// A request that passed the checks.
pub(crate) struct Admitted {
    config: Option<Arc<WebConfig>>,
    /// Whether a password was verified.
    has_password: bool,
}

/// A request extension: the client has authenticated, by a password or by a certificate.
///
/// Absent otherwise. For handlers that must not serve unknown clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticatedClient {
    /// The user name. `None`: the client has a certificate only.
    pub user: Option<Arc<str>>,
}

impl Admitted {
    /// Returns who the client is, if it has authenticated. `is_certified`: whether it had to show a certificate.
    pub(crate) fn client(&self, headers: &HeaderMap, is_certified: bool) -> Option<AuthenticatedClient> {
        let user = || Credentials::of(headers).map(|credentials| Arc::from(credentials.user));
        let user = if self.has_password { user() } else { None };
        (self.has_password || is_certified).then_some(AuthenticatedClient { user })
    }

    /// Adds the configured headers to the response.
    pub(crate) fn finish(&self, response: &mut Response<Body>) {
        if let Some(config) = &self.config {
            config.put_headers(response);
        }
    }
}

impl WebConfigSource {
    /// Admits a request or returns its rejection: 429 over the rate limit, 401 without a valid password. Open paths
    /// skip both.
    pub(crate) async fn admit(&self, headers: &HeaderMap, is_open: bool) -> Result<Admitted, Response<Body>> {
        let Some(watched) = self.watched() else {
            return Ok(Admitted { config: None, has_password: false });
        };
        let config = watched.current();
        if is_open {
            return Ok(Admitted { config: Some(config), has_password: false });
        }
        match watched.rejection(&config, headers).await {
            None => Ok(Admitted { has_password: config.users.is_some(), config: Some(config) }),
            Some(mut response) => {
                config.put_headers(&mut response);
                Err(response)
            }
        }
    }
}

impl Watched {
    async fn rejection(&self, config: &WebConfig, headers: &HeaderMap) -> Option<Response<Body>> {
        if let Err(wait) = self.take_token(config, Instant::now()) {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let text = "rate limit of the web configuration exceeded\n";
            let mut response = (StatusCode::TOO_MANY_REQUESTS, text).into_response();
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            return Some(response);
        }
        let users = config.users.as_ref()?;
        match self.authenticator.check(users, headers).await {
            Verdict::Accepted => None,
            Verdict::Rejected => {
                let mut response = (StatusCode::UNAUTHORIZED, "Unauthorized\n").into_response();
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
                Some(response)
            }
            Verdict::Busy => {
                let text = "too many password verifications in progress\n";
                let mut response = (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                Some(response)
            }
        }
    }

    fn take_token(&self, config: &WebConfig, now: Instant) -> Result<(), std::time::Duration> {
        let Some(limit) = config.rate_limit else {
            return Ok(());
        };
        let mut bucket = self.bucket.lock();
        // A changed limit starts with a full bucket; other changes of the file keep the bucket.
        let bucket = match &mut *bucket {
            Some(bucket) if bucket.limit() == limit => bucket,
            other => other.insert(TokenBucket::new(limit, now)),
        };
        bucket.take(now)
    }
}

impl WebConfig {
    fn put_headers(&self, response: &mut Response<Body>) {
        for (name, value) in &self.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
}
