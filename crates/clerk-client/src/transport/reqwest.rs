//! The transport for this library's own requests, over reqwest.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyDataStream, BodyExt};
use parking_lot::Mutex;
use reqwest::{Certificate, Client, ClientBuilder, redirect};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::{
    ConnectionEvent, ConnectionLog, ErrorKind, Proxies, Proxy, RequestBody, ResponseFuture, Transport, TransportError,
    classify, environment, observed, tls,
};
use crate::secret::process_env;

/// Options of [`ReqwestTransport`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReqwestOptions {
    /// PEM file with certificate authorities in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest time to establish a connection.
    pub connect_timeout: Duration,
    /// How long a connection may be idle before it is closed.
    pub idle_timeout: Duration,
    /// How long connections are reused, so that DNS changes take effect.
    pub max_age: Duration,
    /// The proxies to use; `None` for those of the environment.
    pub proxies: Option<Proxies>,
}

setters!(ReqwestOptions {
    ca_file: impl Into<Option<PathBuf>>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    max_age: Duration,
    proxies: impl Into<Option<Proxies>>,
});

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

/// Why the HTTP client could not be set up.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The CA file cannot be read.
    #[error("ca_file {path}: {cause}; name a readable PEM file", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        cause: Arc<std::io::Error>,
    },
    /// The CA file contains no valid certificate.
    #[error("ca_file {path}: {reason}; name a PEM file with at least one certificate", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The client could not be built.
    #[error(
        "cannot set up the HTTP client: {0}; if it finds no certificate authorities, install the package ca-certificates or name a PEM file in SSL_CERT_FILE"
    )]
    Client(String),
}

impl BuildError {
    /// Creates a client error and appends warnings about environment variables: without any authority the set-up fails,
    /// and the library does not name the variable.
    pub(super) fn client(error: &(dyn StdError + 'static)) -> Self {
        let warnings: String = environment::authorities(&process_env).iter().map(|text| format!("; {text}")).collect();
        Self::Client(super::error_chain(error) + &warnings)
    }
}

/// A transport over the network, based on reqwest.
///
/// It uses HTTP/1.1, so that a timeout costs only its own connection, and rustls with the system's certificate
/// authorities. It uses the environment's [`Proxies`] and never bypasses an invalid one. It does not follow redirects.
#[derive(Debug)]
pub struct ReqwestTransport {
    /// Certificate authorities in addition to the system's.
    authorities: Vec<CertificateDer<'static>>,
    options: ReqwestOptions,
    proxies: Proxies,
    /// The clients for proxied and for direct connections.
    clients: [Mutex<Option<CurrentClient>>; 2],
    /// For requests with a [`ConnectionLog`], and when the system's authorities were read.
    verifier: Mutex<Option<(Arc<dyn ServerCertVerifier>, Instant)>>,
}

/// A client and when it was built.
///
/// reqwest bounds the idle time of a connection but not its age. So the client is replaced when it is old, and its
/// connections close with its last request.
#[derive(Debug)]
struct CurrentClient {
    client: Client,
    built_at: Instant,
}

/// Whether a request uses a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Proxied,
    Direct,
}

impl ReqwestTransport {
    /// Creates a transport.
    ///
    /// # Errors
    /// Returns an error if the CA file is invalid or TLS cannot be set up.
    pub fn new(options: ReqwestOptions) -> Result<Arc<Self>, BuildError> {
        let authorities = match &options.ca_file {
            Some(path) => tls::read_certificates(path)?,
            None => Vec::new(),
        };
        let proxies = options.proxies.clone().unwrap_or_else(Proxies::from_environment);
        let first = Route::of(proxies.by_scheme()[0]);
        let client = build(&authorities, &options, &proxies, first)?;
        let mut clients = [Mutex::new(None), Mutex::new(None)];
        *clients[first as usize].get_mut() = Some(CurrentClient { client, built_at: Instant::now() });
        Ok(Arc::new(Self { authorities, options, proxies, clients, verifier: Mutex::default() }))
    }

    fn client(&self, route: Route) -> Result<Client, TransportError> {
        let mut slot = self.clients[route as usize].lock();
        let young = slot.as_ref().filter(|slot| slot.built_at.elapsed() < self.options.max_age);
        if let Some(CurrentClient { client, .. }) = young {
            return Ok(client.clone());
        }
        match (build(&self.authorities, &self.options, &self.proxies, route), slot.as_ref()) {
            (Ok(client), _) => {
                *slot = Some(CurrentClient { client: client.clone(), built_at: Instant::now() });
                Ok(client)
            }
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "failed to rebuild the HTTP client; keeping the old one");
                Ok(old.client.clone())
            }
            (Err(error), None) => Err(TransportError::new(ErrorKind::Other, error.to_string())),
        }
    }
}

impl ReqwestTransport {
    /// A client without connections, which notes how it makes one.
    fn observed_client(&self, proxy: Option<&Proxy>, log: &ConnectionLog) -> Result<Client, TransportError> {
        log.add(ConnectionEvent::Route { proxy: proxy.map(|proxy| (proxy.variable(), proxy.uri().clone())) });
        let variables = environment::authority_variables(&process_env);
        log.add(ConnectionEvent::Authorities { ca_file: self.options.ca_file.clone(), variables });
        let made = self.verifier().and_then(|verifier| {
            let builder = builder(&self.options, &self.proxies, Route::of(proxy))?;
            let builder = observed::observed(builder, verifier, log)?;
            builder.build().map_err(|error| BuildError::client(&error))
        });
        made.map_err(|error| TransportError::new(ErrorKind::Other, error.to_string()))
    }

    /// Reads the system's authorities as often as for other requests.
    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, BuildError> {
        let mut slot = self.verifier.lock();
        if let Some((verifier, _)) = slot.as_ref().filter(|(_, at)| at.elapsed() < self.options.max_age) {
            return Ok(Arc::clone(verifier));
        }
        let verifier = tls::verifier(self.authorities.clone())?;
        *slot = Some((Arc::clone(&verifier), Instant::now()));
        Ok(verifier)
    }
}

impl Transport for ReqwestTransport {
    fn send(&self, request: http::Request<RequestBody>) -> ResponseFuture {
        let log = request.extensions().get::<ConnectionLog>().cloned();
        let proxy = self.proxies.of(request.uri());
        let proxy = proxy.map_err(|error| TransportError::new(ErrorKind::Connect, error.to_string()));
        let client = proxy.and_then(|proxy| match &log {
            Some(log) => self.observed_client(proxy, log),
            None => self.client(Route::of(proxy)),
        });
        Box::pin(async move {
            let client = client?;
            let request = reqwest::Request::try_from(request.map(body)).map_err(scrub)?;
            let response = client.execute(request).await.map_err(scrub)?;
            if let Some((log, peer)) = log.zip(response.remote_addr()) {
                log.add(ConnectionEvent::Peer(peer));
            }
            let response: http::Response<reqwest::Body> = response.into();
            Ok(response.map(|body| body.map_err(scrub).boxed_unsync()))
        })
    }
}

/// Converts a body. Trailers of a stream are not sent, because reqwest does not support them.
fn body(body: RequestBody) -> reqwest::Body {
    match body.into_whole() {
        Ok(whole) => reqwest::Body::from(whole),
        Err(stream) => reqwest::Body::wrap_stream(BodyDataStream::new(stream)),
    }
}

impl Route {
    const fn of(proxy: Option<&Proxy>) -> Self {
        if proxy.is_some() { Self::Proxied } else { Self::Direct }
    }
}

fn build(
    authorities: &[CertificateDer<'static>],
    options: &ReqwestOptions,
    proxies: &Proxies,
    route: Route,
) -> Result<Client, BuildError> {
    let certificates = authorities.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| BuildError::client(&error))?;
    let builder = builder(options, proxies, route)?.tls_certs_merge(certificates);
    builder.build().map_err(|error| BuildError::client(&error))
}

fn builder(options: &ReqwestOptions, proxies: &Proxies, route: Route) -> Result<ClientBuilder, BuildError> {
    let failed = |error: reqwest::Error| BuildError::client(&error);
    // The caller has already applied `NO_PROXY`, so that all transports use the same rules.
    let mut builder = Client::builder().no_proxy();
    if route == Route::Proxied {
        let [https, http] = proxies.by_scheme();
        if let Some(proxy) = https {
            builder = builder.proxy(with_user(reqwest::Proxy::https(proxy.uri().to_string()), proxy).map_err(failed)?);
        }
        if let Some(proxy) = http {
            builder = builder.proxy(with_user(reqwest::Proxy::http(proxy.uri().to_string()), proxy).map_err(failed)?);
        }
    }
    let builder = builder
        .user_agent(concat!("clerk_exporter/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .http1_only()
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(options.idle_timeout);
    Ok(builder)
}

fn with_user(made: reqwest::Result<reqwest::Proxy>, proxy: &Proxy) -> reqwest::Result<reqwest::Proxy> {
    let made = made?;
    Ok(match proxy.authorization() {
        Some(authorization) => made.custom_http_auth(authorization.clone()),
        None => made,
    })
}

/// Classifies an error and removes its URL, which may contain user info or a query.
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
