//! The real way to Clerk, over reqwest.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use reqwest::{Certificate, Client, redirect};
use tokio::time::Instant;

use super::{ErrorKind, ResponseFuture, Upstream, UpstreamError};

/// How to reach Clerk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// PEM file with further certificate authorities, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest time to make a connection.
    pub connect_timeout: Duration,
    /// How long a connection may be idle before it is closed.
    pub idle_timeout: Duration,
    /// How long connections are reused at all, so that a new address of the host is noticed.
    pub max_age: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            max_age: Duration::from_secs(45),
        }
    }
}

/// The HTTP client could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The file of certificate authorities could not be read.
    #[error("ca_file {path}: {source}; give a readable PEM file", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of certificate authorities holds none.
    #[error("ca_file {path}: {reason}; give a PEM file with one or more certificates", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The client could not be built.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

/// Requests over the network.
///
/// HTTP/1.1, so that a request that times out costs its own connection only; TLS by rustls with the system's certificate
/// authorities; `HTTPS_PROXY` and `NO_PROXY` are honoured; redirects are never followed.
#[derive(Debug)]
pub struct ReqwestUpstream {
    certificates: Vec<Certificate>,
    options: Options,
    /// The client in use and when it was built. A new one is made when it is old, and the old one's connections go
    /// with its last request: reqwest itself bounds the idle time of a connection, but not its age.
    client: Mutex<(Client, Instant)>,
}

impl ReqwestUpstream {
    /// Sets up a client.
    ///
    /// # Errors
    /// When the file of certificate authorities cannot be used, or the platform's TLS set-up cannot.
    pub fn new(options: Options) -> Result<Arc<Self>, BuildError> {
        let certificates = match &options.ca_file {
            Some(path) => read_certificates(path)?,
            None => Vec::new(),
        };
        let client = build(&certificates, &options)?;
        Ok(Arc::new(Self { certificates, options, client: Mutex::new((client, Instant::now())) }))
    }

    fn client(&self) -> Client {
        let mut slot = self.client.lock();
        if slot.1.elapsed() >= self.options.max_age {
            match build(&self.certificates, &self.options) {
                Ok(client) => *slot = (client, Instant::now()),
                Err(error) => tracing::warn!(%error, "keeping the old connections to Clerk"),
            }
        }
        slot.0.clone()
    }
}

impl Upstream for ReqwestUpstream {
    fn send(&self, request: http::Request<Bytes>) -> ResponseFuture {
        let client = self.client();
        Box::pin(async move {
            let request = reqwest::Request::try_from(request.map(reqwest::Body::from)).map_err(scrub)?;
            let response: http::Response<reqwest::Body> = client.execute(request).await.map_err(scrub)?.into();
            Ok(response.map(|body| body.map_err(scrub).boxed_unsync()))
        })
    }
}

fn read_certificates(path: &PathBuf) -> Result<Vec<Certificate>, BuildError> {
    let pem = std::fs::read(path).map_err(|source| BuildError::Read { path: path.clone(), source })?;
    let wrong = |reason: String| BuildError::Certificates { path: path.clone(), reason };
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(super::chain(&error)))?;
    if certificates.is_empty() { Err(wrong("holds no certificate".to_owned())) } else { Ok(certificates) }
}

fn build(certificates: &[Certificate], options: &Options) -> Result<Client, BuildError> {
    Client::builder()
        .user_agent(concat!("clerk_exporter/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .http1_only()
        .tls_certs_merge(certificates.iter().cloned())
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(options.idle_timeout)
        .build()
        .map_err(|error| BuildError::Client(super::chain(&error)))
}

/// Takes the URL, which may hold user info or a query, out of the error, and finds out what kind it is.
fn scrub(error: reqwest::Error) -> UpstreamError {
    let error = error.without_url();
    let kind = kind_of(&error);
    UpstreamError::caused_by(kind, &error)
}

fn kind_of(error: &reqwest::Error) -> ErrorKind {
    if has_cause(error, |cause| cause.is::<rustls::Error>()) {
        return ErrorKind::Tls;
    }
    if error.is_connect() {
        // hyper-util keeps the type of this error to itself, but not its text.
        let dns = has_cause(error, |cause| cause.to_string().starts_with("dns error"));
        return if dns { ErrorKind::Dns } else { ErrorKind::Connect };
    }
    if has_cause(error, |cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)) {
        return ErrorKind::Decode;
    }
    if has_cause(error, |cause| {
        cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
            || cause.downcast_ref::<std::io::Error>().is_some_and(is_broken_connection)
    }) {
        return ErrorKind::Broken;
    }
    if error.is_decode() { ErrorKind::Decode } else { ErrorKind::Other }
}

fn is_broken_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Io;
    matches!(error.kind(), Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::UnexpectedEof)
}

/// Whether an error or one of its causes fits; looks into I/O errors, which hide theirs.
fn has_cause(error: &(dyn StdError + 'static), fits: impl Fn(&(dyn StdError + 'static)) -> bool) -> bool {
    let mut current = Some(error);
    while let Some(error) = current {
        if fits(error) {
            return true;
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        current = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
