//! The real way to Clerk, over reqwest.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyDataStream, BodyExt};
use parking_lot::Mutex;
use reqwest::{Certificate, Client, redirect};
use tokio::time::Instant;

use super::api_url::is_this_machine;
use super::{ErrorKind, RequestBody, ResponseFuture, Transport, TransportError, classify};

/// How to reach Clerk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReqwestOptions {
    /// PEM file with further certificate authorities, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest time to make a connection.
    pub connect_timeout: Duration,
    /// How long a connection may be idle before it is closed.
    pub idle_timeout: Duration,
    /// How long connections are reused at all, so that a new address of the host is noticed.
    pub max_age: Duration,
}

impl Default for ReqwestOptions {
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
/// authorities; `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured, but nothing on this machine is reached through a
/// proxy; redirects are never followed.
#[derive(Debug)]
pub struct ReqwestTransport {
    certificates: Vec<Certificate>,
    options: ReqwestOptions,
    /// For hosts elsewhere, and for this machine.
    clients: [Mutex<Option<CurrentClient>>; 2],
}

/// A client and when it was built. A new one is made when it is old, and the old one's connections go with its last
/// request: reqwest itself bounds the idle time of a connection, but not its age.
#[derive(Debug)]
struct CurrentClient {
    client: Client,
    built_at: Instant,
}

/// Where a request goes, as far as proxies are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Elsewhere,
    ThisMachine,
}

impl ReqwestTransport {
    /// Sets up a client.
    ///
    /// # Errors
    /// When the file of certificate authorities cannot be used, or the platform's TLS set-up cannot.
    pub fn new(options: ReqwestOptions) -> Result<Arc<Self>, BuildError> {
        let certificates = match &options.ca_file {
            Some(path) => read_certificates(path)?,
            None => Vec::new(),
        };
        let first = CurrentClient { client: build(&certificates, &options, Way::Elsewhere)?, built_at: Instant::now() };
        Ok(Arc::new(Self { certificates, options, clients: [Mutex::new(Some(first)), Mutex::new(None)] }))
    }

    fn client(&self, way: Way) -> Result<Client, TransportError> {
        let mut slot = self.clients[way as usize].lock();
        let young = slot.as_ref().filter(|slot| slot.built_at.elapsed() < self.options.max_age);
        if let Some(CurrentClient { client, .. }) = young {
            return Ok(client.clone());
        }
        match (build(&self.certificates, &self.options, way), slot.as_ref()) {
            (Ok(client), _) => {
                *slot = Some(CurrentClient { client: client.clone(), built_at: Instant::now() });
                Ok(client)
            }
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "keeping the old connections to Clerk");
                Ok(old.client.clone())
            }
            (Err(error), None) => Err(TransportError::new(ErrorKind::Other, error.to_string())),
        }
    }
}

impl Transport for ReqwestTransport {
    fn send(&self, request: http::Request<RequestBody>) -> ResponseFuture {
        let client = self.client(way_to(request.uri().host().unwrap_or_default()));
        Box::pin(async move {
            let client = client?;
            let request = reqwest::Request::try_from(request.map(body)).map_err(scrub)?;
            let response: http::Response<reqwest::Body> = client.execute(request).await.map_err(scrub)?.into();
            Ok(response.map(|body| body.map_err(scrub).boxed_unsync()))
        })
    }
}

/// Trailers of a stream are not sent: reqwest has no way for them.
fn body(body: RequestBody) -> reqwest::Body {
    match body.into_whole() {
        Ok(whole) => reqwest::Body::from(whole),
        Err(stream) => reqwest::Body::wrap_stream(BodyDataStream::new(stream)),
    }
}

fn read_certificates(path: &PathBuf) -> Result<Vec<Certificate>, BuildError> {
    let pem = std::fs::read(path).map_err(|source| BuildError::Read { path: path.clone(), source })?;
    let wrong = |reason: String| BuildError::Certificates { path: path.clone(), reason };
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(super::chain(&error)))?;
    if certificates.is_empty() { Err(wrong("holds no certificate".to_owned())) } else { Ok(certificates) }
}

/// Proxies stand between this machine and others.
fn way_to(host: &str) -> Way {
    if is_this_machine(host) { Way::ThisMachine } else { Way::Elsewhere }
}

fn build(certificates: &[Certificate], options: &ReqwestOptions, way: Way) -> Result<Client, BuildError> {
    let builder = match way {
        Way::Elsewhere => Client::builder(),
        Way::ThisMachine => Client::builder().no_proxy(),
    };
    builder
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
fn scrub(error: reqwest::Error) -> TransportError {
    let error = error.without_url();
    let kind = kind_of(&error);
    TransportError::caused_by(kind, &error)
}

fn kind_of(error: &reqwest::Error) -> ErrorKind {
    match classify::kind_of(error) {
        Some(kind) if kind == ErrorKind::Tls => kind,
        _ if error.is_timeout() => ErrorKind::Timeout,
        _ if error.is_connect() => classify::kind_of_connect(error),
        Some(kind) => kind,
        None if error.is_decode() => ErrorKind::Decode,
        None => ErrorKind::Other,
    }
}
