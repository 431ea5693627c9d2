//! The real way to Clerk, over reqwest.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyDataStream, BodyExt};
use parking_lot::Mutex;
use reqwest::{Certificate, Client, redirect};
use tokio::time::Instant;

use super::{ErrorKind, Proxies, Proxy, RequestBody, ResponseFuture, Transport, TransportError, classify, environment};
use crate::secret::process_env;

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
    /// The proxies that are used; none are those of the environment.
    pub proxies: Option<Proxies>,
}

impl Default for ReqwestOptions {
    fn default() -> Self {
        Self {
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            max_age: Duration::from_secs(45),
            proxies: None,
        }
    }
}

/// The HTTP client could not be set up.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The file of certificate authorities could not be read.
    #[error("ca_file {path}: {cause}; give a readable PEM file", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: Arc<std::io::Error>,
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

impl BuildError {
    /// With the variables that may be its cause: without any authority nothing can be set up, and the library does not say
    /// which variable it looked at.
    pub(super) fn client(error: &(dyn StdError + 'static)) -> Self {
        let told: String = environment::authorities(&process_env).iter().map(|told| format!("; {told}")).collect();
        Self::Client(super::error_chain(error) + &told)
    }
}

/// Requests over the network.
///
/// HTTP/1.1, so that a request that times out costs its own connection only; TLS by rustls with the system's certificate
/// authorities; the environment's [`Proxies`] are used, and nothing goes past one that cannot be; redirects are never
/// followed.
#[derive(Debug)]
pub struct ReqwestTransport {
    certificates: Vec<Certificate>,
    options: ReqwestOptions,
    proxies: Proxies,
    /// For what goes over a proxy, and directly.
    clients: [Mutex<Option<CurrentClient>>; 2],
}

/// A client and when it was built. A new one is made when it is old, and the old one's connections go with its last
/// request: reqwest itself bounds the idle time of a connection, but not its age.
#[derive(Debug)]
struct CurrentClient {
    client: Client,
    built_at: Instant,
}

/// How a request goes, as far as proxies are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Proxied,
    Direct,
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
        let proxies = options.proxies.clone().unwrap_or_else(Proxies::from_environment);
        let first = Way::of(proxies.by_scheme()[0]);
        let client = build(&certificates, &options, &proxies, first)?;
        let mut clients = [Mutex::new(None), Mutex::new(None)];
        *clients[first as usize].get_mut() = Some(CurrentClient { client, built_at: Instant::now() });
        Ok(Arc::new(Self { certificates, options, proxies, clients }))
    }

    fn client(&self, way: Way) -> Result<Client, TransportError> {
        let mut slot = self.clients[way as usize].lock();
        let young = slot.as_ref().filter(|slot| slot.built_at.elapsed() < self.options.max_age);
        if let Some(CurrentClient { client, .. }) = young {
            return Ok(client.clone());
        }
        match (build(&self.certificates, &self.options, &self.proxies, way), slot.as_ref()) {
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
        let way = self.proxies.of(request.uri()).map(Way::of);
        let way = way.map_err(|error| TransportError::new(ErrorKind::Connect, error.to_string()));
        let client = way.and_then(|way| self.client(way));
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
    let pem = std::fs::read(path).map_err(|cause| BuildError::Read { path: path.clone(), cause: Arc::new(cause) })?;
    let wrong = |reason: String| BuildError::Certificates { path: path.clone(), reason };
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(super::error_chain(&error)))?;
    if certificates.is_empty() { Err(wrong("holds no certificate".to_owned())) } else { Ok(certificates) }
}

impl Way {
    const fn of(proxy: Option<&Proxy>) -> Self {
        if proxy.is_some() { Self::Proxied } else { Self::Direct }
    }
}

fn build(
    certificates: &[Certificate],
    options: &ReqwestOptions,
    proxies: &Proxies,
    way: Way,
) -> Result<Client, BuildError> {
    let failed = |error: reqwest::Error| BuildError::client(&error);
    // What goes by which was decided before: exceptions are the same for all clients.
    let mut builder = Client::builder().no_proxy();
    if way == Way::Proxied {
        let [https, http] = proxies.by_scheme();
        if let Some(proxy) = https {
            builder = builder.proxy(with_user(reqwest::Proxy::https(proxy.uri().to_string()), proxy).map_err(failed)?);
        }
        if let Some(proxy) = http {
            builder = builder.proxy(with_user(reqwest::Proxy::http(proxy.uri().to_string()), proxy).map_err(failed)?);
        }
    }
    builder
        .user_agent(concat!("clerk_exporter/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .http1_only()
        .tls_certs_merge(certificates.iter().cloned())
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(options.idle_timeout)
        .build()
        .map_err(|error| BuildError::client(&error))
}

fn with_user(made: reqwest::Result<reqwest::Proxy>, proxy: &Proxy) -> reqwest::Result<reqwest::Proxy> {
    let made = made?;
    Ok(match proxy.authorization() {
        Some(authorization) => made.custom_http_auth(authorization.clone()),
        None => made,
    })
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
