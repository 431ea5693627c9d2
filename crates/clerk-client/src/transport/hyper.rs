//! The transport for forwarded requests, which sends them unchanged.
//!
//! Unlike reqwest, it does not normalise paths, adds no header except `Host`, does not decompress, and streams bodies
//! in both directions.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::{Authority, Scheme};
use http::{Extensions, HeaderValue, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connect, Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::RwLock;
use rustls::ClientConfig;
use tokio::time::timeout;
use tower::{Service, ServiceExt as _};

use super::http2::{self, GoAwayWatch};
use super::reqwest::BuildError;
use super::{
    ErrorKind, FreshConnection, Proxies, ProxyConnector, RequestBody, ResponseFuture, Transport, TransportError,
    classify, tls,
};

/// HTTP/2: interval of pings to a silent server, and the timeout of their acknowledgements.
///
/// Without pings, one dead connection fails all requests. The sum is shorter than the timeout of an attempt.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// HTTP/2: bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// Options of [`HyperTransport`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HyperOptions {
    /// PEM file with certificate authorities in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest time to establish a connection, including the TLS handshake.
    pub connect_timeout: Duration,
    /// How long a connection may be idle before it is closed. Should be shorter than the server's idle timeout.
    pub idle_timeout: Duration,
    /// Whether to use HTTP/2 if the server offers it by ALPN. With HTTP/1.1, a timeout costs only its own connection.
    pub http2: bool,
    /// The proxies to use; `None` for those of the environment.
    pub proxies: Option<Proxies>,
}

setters!(HyperOptions {
    ca_file: impl Into<Option<PathBuf>>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    http2: bool,
    proxies: impl Into<Option<Proxies>>,
});

impl Default for HyperOptions {
    fn default() -> Self {
        Self {
            ca_file: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            http2: false,
            proxies: None,
        }
    }
}

/// A transport over hyper, on connections of the connector `C`.
#[derive(Clone)]
pub struct HyperTransport<C> {
    pooled: Client<MarkingConnector<C>, RequestBody>,
    fresh: Client<MarkingConnector<C>, RequestBody>,
    /// The proxies to use.
    proxies: Arc<Proxies>,
    /// Whether a server responded with HTTP/1.0. hyper then uses HTTP/1.0 on that connection, which has no chunked
    /// encoding, and silently drops bodies of unknown length.
    has_seen_http10: Arc<AtomicBool>,
    /// `None` if HTTP/2 may be used, which has no `Host` field.
    host: Option<Arc<HostValue>>,
}

/// A [`HyperTransport`] over TCP, with TLS for https URLs, through the configured proxies.
pub type NetworkTransport = HyperTransport<HttpsConnector<ProxyConnector>>;

impl<C> fmt::Debug for HyperTransport<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HyperTransport").finish_non_exhaustive()
    }
}

impl NetworkTransport {
    /// Creates a transport.
    ///
    /// The operating system's verifier checks certificates. Uses the environment's [`Proxies`] unless the options name
    /// others, and never bypasses an invalid one.
    ///
    /// # Errors
    /// Returns an error if the CA file is invalid or TLS cannot be set up.
    pub fn new(options: &HyperOptions) -> Result<Arc<Self>, BuildError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        let tls = tls_config(options)?;
        let proxies = Arc::new(options.proxies.clone().unwrap_or_else(Proxies::from_environment));
        let tcp = ProxyConnector::new(tcp, Arc::clone(&proxies), Arc::new(tls.clone()));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let connector =
            if options.http2 { https.enable_http2().wrap_connector(tcp) } else { https.wrap_connector(tcp) };
        let host = (!options.http2).then(Arc::default);
        Ok(Arc::new(Self { host, ..Self::with_proxies(connector, options, proxies) }))
    }
}

impl<C> HyperTransport<C>
where
    MarkingConnector<C>: Connect + Clone,
{
    /// Creates a transport over this connector, without proxies. Ignores `ca_file` and `http2` of the options.
    pub fn with_connector(connector: C, options: &HyperOptions) -> Self {
        Self::with_proxies(connector, options, Arc::new(Proxies::none()))
    }

    fn with_proxies(connector: C, options: &HyperOptions, proxies: Arc<Proxies>) -> Self {
        let marking = Marking { connector, timeout: options.connect_timeout, proxies: Arc::clone(&proxies) };
        let connector = MarkingConnector(Arc::new(marking));
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(options.idle_timeout)
            .http1_preserve_header_case(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_while_idle(true)
            .http2_keep_alive_timeout(PING_TIMEOUT);
        let pooled = builder.build(connector.clone());
        let fresh = builder.pool_max_idle_per_host(0).build(connector);
        Self { pooled, fresh, proxies, has_seen_http10: Arc::default(), host: None }
    }
}

impl<C> Transport for HyperTransport<C>
where
    MarkingConnector<C>: Connect + Clone + Send + Sync + 'static,
    C: 'static,
{
    fn send(&self, mut request: http::Request<RequestBody>) -> ResponseFuture {
        // For https URLs, the CONNECT request of the tunnel carries this header.
        if request.uri().scheme_str() == Some("http")
            && let Ok(Some(proxy)) = self.proxies.of(request.uri())
            && let Some(authorization) = proxy.authorization()
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        match &self.host {
            Some(host) => host.set(&mut request),
            None => {
                request.headers_mut().remove(HOST);
            }
        }
        let is_fresh = request.extensions().get::<FreshConnection>().is_some()
            || (self.has_seen_http10.load(Ordering::Relaxed) && request.body().is_of_unknown_length());
        let has_seen_http10 = Arc::clone(&self.has_seen_http10);
        let response = if is_fresh { self.fresh.request(request) } else { self.pooled.request(request) };
        Box::pin(async move {
            let response = response.await.map_err(|error| describe(&error))?;
            if let Some(used) = response.extensions().get::<Arc<Used>>() {
                used.has_responded.store(true, Ordering::Relaxed);
            }
            if response.version() == Version::HTTP_10 {
                has_seen_http10.store(true, Ordering::Relaxed);
            }
            let is_http2 = response.version() == Version::HTTP_2;
            Ok(response.map(|body| LengthCheckedBody { body, is_http2 }.boxed_unsync()))
        })
    }
}

/// The value of `Host` for the last authority: almost all requests go to one, and hyper-util would format it for each.
#[derive(Debug, Default)]
struct HostValue(RwLock<Option<(Scheme, Authority, HeaderValue)>>);

impl HostValue {
    /// Sets the field, unless the request has one.
    fn set(&self, request: &mut http::Request<RequestBody>) {
        if request.headers().contains_key(HOST) {
            return;
        }
        let (Some(scheme), Some(authority)) = (request.uri().scheme(), request.uri().authority()) else { return };
        // Compared as text, because `Host` keeps the case.
        let is_same = |of: &Scheme, at: &Authority| of == scheme && at.as_str() == authority.as_str();
        let last = self.0.read().as_ref().filter(|(of, at, _)| is_same(of, at)).map(|(.., value)| value.clone());
        let value = last.or_else(|| {
            let value = host_of(scheme, authority)?;
            *self.0.write() = Some((scheme.clone(), authority.clone(), value.clone()));
            Some(value)
        });
        if let Some(value) = value {
            request.headers_mut().insert(HOST, value);
        }
    }
}

/// Returns the value of `Host` for requests to this address: host and port, without the scheme's default port (RFC 9110,
/// section 7.2).
#[must_use]
pub fn host_of(scheme: &Scheme, authority: &Authority) -> Option<HeaderValue> {
    let default = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    match authority.port_u16().filter(|port| *port != default) {
        Some(port) => HeaderValue::from_str(&format!("{}:{port}", authority.host())),
        None => HeaderValue::from_str(authority.host()),
    }
    .ok()
}

/// A response body that fails if it is incomplete.
struct LengthCheckedBody {
    body: Incoming,
    is_http2: bool,
}

impl Body for LengthCheckedBody {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            // hyper treats a stream that was reset without an error as complete.
            None if self.is_http2 && !self.body.is_end_stream() => {
                let why = "the stream was reset before the end of the response".to_owned();
                Poll::Ready(Some(Err(TransportError::new(ErrorKind::Broken, why))))
            }
            frame => Poll::Ready(frame.map(|frame| frame.map_err(|error| broken(&error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn describe(error: &Error) -> TransportError {
    if classify::has_cause(error, |cause| cause.is::<ConnectTimeout>()) {
        return TransportError::caused_by(ErrorKind::Connect, error);
    }
    if error.is_connect() {
        return TransportError::caused_by(classify::kind_of_connect(error), error);
    }
    let mut extras = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extras);
    }
    let used = extras.get::<Arc<Used>>();
    let is = |state: fn(&Used) -> &AtomicBool| used.is_some_and(|used| state(used).load(Ordering::Relaxed));
    let http2 = http2::failure_of(error).unwrap_or_default();
    // The connection was closed before the request was written. hyper-util's error kind is private, so match its text.
    let is_unsent = is(|used| &used.is_http2) && error.to_string() == "client error (Canceled)";
    let kind = http2.kind.or_else(|| is_unsent.then_some(ErrorKind::Broken)).or_else(|| classify::kind_of(error));
    let described = TransportError::caused_by(kind.unwrap_or(ErrorKind::Other), error);
    if http2.is_unprocessed || is_unsent {
        return described.never_processed();
    }
    let is_closed = http2.is_closed || classify::is_closed(error);
    let may_race = is(|used| &used.has_responded) || is(|used| &used.is_closing);
    if may_race && is_closed { described.on_idle_connection() } else { described }
}

fn broken(error: &hyper::Error) -> TransportError {
    TransportError::caused_by(classify::kind_of(error).unwrap_or(ErrorKind::Broken), error)
}

fn tls_config(options: &HyperOptions) -> Result<ClientConfig, BuildError> {
    let extra = match &options.ca_file {
        Some(path) => tls::read_certificates(path)?,
        None => Vec::new(),
    };
    tls::config(tls::verifier(extra)?)
}

/// State of a connection.
#[derive(Debug, Default)]
struct Used {
    is_http2: AtomicBool,
    /// Whether it has carried a response: if it then closes without one, the server closed it as idle.
    has_responded: AtomicBool,
    /// Whether the server sent a GOAWAY without an error.
    is_closing: AtomicBool,
}

/// The connection was not established in time.
#[derive(Debug, thiserror::Error)]
#[error("no connection within {}", humantime::format_duration(*.0))]
struct ConnectTimeout(Duration);

/// Establishes connections within a timeout and tracks their use.
///
/// An `Arc`: hyper-util clones a connector twice per request, whether or not it opens a connection.
#[derive(Debug)]
pub struct MarkingConnector<C>(Arc<Marking<C>>);

#[derive(Debug)]
struct Marking<C> {
    connector: C,
    timeout: Duration,
    proxies: Arc<Proxies>,
}

impl<C> Clone for MarkingConnector<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> Service<Uri> for MarkingConnector<C>
where
    C: Service<Uri> + Clone + Send + 'static,
    C::Error: Into<Box<dyn StdError + Send + Sync>>,
    C::Future: Send + 'static,
{
    type Response = MarkedStream<C::Response>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Marking { connector, timeout: limit, proxies } = &*self.0;
        let (limit, connector) = (*limit, connector.clone());
        // A forwarding proxy needs the absolute URL in the request line.
        let is_proxied = uri.scheme_str() == Some("http") && matches!(proxies.of(&uri), Ok(Some(_)));
        let connecting = connector.oneshot(uri);
        Box::pin(async move {
            let stream = timeout(limit, connecting).await.map_err(|_| ConnectTimeout(limit))?.map_err(Into::into)?;
            Ok(MarkedStream { stream, used: Arc::default(), watch: None, is_proxied })
        })
    }
}

/// A connection that tracks its use.
#[derive(Debug)]
pub struct MarkedStream<S> {
    stream: S,
    used: Arc<Used>,
    is_proxied: bool,
    /// Only for HTTP/2.
    watch: Option<Box<Http2Reader>>,
}

#[derive(Debug)]
struct Http2Reader {
    watch: GoAwayWatch,
    buffer: [u8; READ_BYTES],
}

impl<S: Connection> Connection for MarkedStream<S> {
    fn connected(&self) -> Connected {
        let connected = self.stream.connected();
        self.used.is_http2.store(connected.is_negotiated_h2(), Ordering::Relaxed);
        // Omits the addresses, which would be copied into each response.
        let own = Connected::new().proxy(self.is_proxied || connected.is_proxied()).extra(Arc::clone(&self.used));
        if connected.is_negotiated_h2() { own.negotiated_h2() } else { own }
    }
}

impl<S: Read + Unpin> Read for MarkedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, used, watch, .. } = &mut *self;
        if !used.is_http2.load(Ordering::Relaxed) {
            return Pin::new(stream).poll_read(context, buffer);
        }
        let reader = watch
            .get_or_insert_with(|| Box::new(Http2Reader { watch: GoAwayWatch::default(), buffer: [0; READ_BYTES] }));
        let room = buffer.remaining().min(READ_BYTES);
        let mut read = ReadBuf::new(&mut reader.buffer[..room]);
        ready!(Pin::new(stream).poll_read(context, read.unfilled()))?;
        if read.filled().is_empty() && room > 0 {
            return Poll::Ready(Err(end_of_http2()));
        }
        if reader.watch.read(read.filled()) {
            used.is_closing.store(true, Ordering::Relaxed);
        }
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

/// The error for the end of an HTTP/2 connection.
///
/// Without it, the library reports an earlier GOAWAY also to streams that the server had accepted, and a write would
/// seem not to have been processed.
fn end_of_http2() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

impl<S: Write + Unpin> Write for MarkedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_field_has_the_port_unless_it_is_the_default() {
        let host = HostValue::default();
        for (uri, expected) in [
            ("https://api.clerk.com/v1", "api.clerk.com"),
            ("https://api.clerk.com/v2", "api.clerk.com"),
            ("https://API.clerk.com/v1", "API.clerk.com"),
            ("https://api.clerk.com:443/", "api.clerk.com"),
            ("http://api.clerk.com:443/", "api.clerk.com:443"),
            ("http://user@h:80/", "h"),
            ("http://[::1]:8080/", "[::1]:8080"),
        ] {
            let mut request = http::Request::get(uri).body(RequestBody::empty()).unwrap();
            host.set(&mut request);
            assert_eq!(request.headers()[HOST], expected, "{uri}");
        }
        let mut request = http::Request::get("https://h/").header(HOST, "own").body(RequestBody::empty()).unwrap();
        host.set(&mut request);
        assert_eq!(request.headers()[HOST], "own");
    }
}
