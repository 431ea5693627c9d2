//! HTTP serving for Prometheus exporters: sockets, TLS, basic authentication, time limits and graceful shutdown for an
//! axum router.
//!
//! In axum 0.8, `axum::serve` sets no timeouts: a client that sends half a request head keeps its connection forever
//! and blocks a graceful shutdown. Here every wait for a client has a limit:
//!
//! | The client | Result |
//! |---|---|
//! | does not finish its TLS handshake | closed after [`Options::tls_handshake_timeout`] |
//! | does not finish a request head, or sends nothing at all | closed after [`Options::header_read_timeout`] |
//! | does not send its request body | the handler gets an error after [`Options::body_read_timeout`] |
//! | does not read the response | closed after [`Options::write_timeout`] |
//! | does not read the response of one HTTP/2 stream | the stream is reset after [`Options::write_timeout`] |
//! | keeps an idle connection | closed after [`Options::idle_timeout`], or at once for a new client at the limit |
//!
//! # Example
//!
//! ```
//! use axum::{Router, routing::get};
//! use prometheus_web::{Options, WebConfigSource};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listeners = prometheus_web::bind(&["127.0.0.1:0".parse()?]).await?;
//! let router = Router::new().route("/-/healthy", get(async || "Healthy\n"));
//! let shutdown = CancellationToken::new();
//! shutdown.cancel(); // A program does this on SIGTERM.
//! let drained = prometheus_web::serve(listeners, router, Options::default(), WebConfigSource::none(), shutdown).await;
//! assert_eq!(drained.cut, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Which type to use
//!
//! | Task | Type |
//! |---|---|
//! | Listen on TCP or Unix sockets | [`ListenAddress`], [`bind`] |
//! | Use the sockets of a systemd `.socket` unit | [`from_systemd`] |
//! | Serve until shutdown | [`serve`], [`Options`] |
//! | Serve something other than a router | [`Handler`] |
//! | Support `--web.config.file` (TLS, basic auth, headers, rate limit) | [`WebConfigSource`] |
//!
//! # Features and MSRV
//!
//! The crate has no features. It requires Rust 1.95.

mod accept;
mod body;
mod connection;
mod connection_limit;
mod connection_state;
mod framing_guard;
mod handler;
mod http1_framing;
mod http2_frames;
mod in_flight;
mod listen;
mod outside;
mod progress;
mod service;
mod setters;
mod socket;
mod stream_task;
mod timeout_stream;
mod unsent;
mod web_config;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

pub use body::BodyTimeout;
pub use handler::{Ambiguity, Handler, HeldBytes};
pub use listen::{BindError, ListenAddress, Listener, ParseListenAddressError, bind, from_systemd};
pub use web_config::{AuthenticatedClient, FileReloads, WebConfigError, WebConfigFile, WebConfigSource};

use crate::setters::setters;
use accept::Server;

/// The settings and limits of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Name of the server in log messages.
    pub name: &'static str,
    /// Maximum number of connections over all listeners.
    ///
    /// Above it, a new client replaces the connection that has been idle longest. If none is idle, it replaces the one
    /// whose client has been too slow to read or send for longest, for at least a second. Otherwise it waits.
    pub max_connections: usize,
    /// Maximum number of response bytes in memory that clients have not read. One connection may use a quarter of it.
    ///
    /// Above it, requests wait, and responses of which the client read less than 16 KiB in the last second are ended.
    /// A single response may be larger.
    pub max_unsent_bytes: usize,
    /// Maximum time for a complete request head, from its first byte or from the connection's start.
    pub header_read_timeout: Duration,
    /// Maximum total time to wait for the client while a request body is read.
    pub body_read_timeout: Duration,
    /// Maximum time in which a client reads no byte of a response.
    ///
    /// HTTP/2 streams are checked separately: the stream is reset, and its connection is closed if nothing else is in
    /// flight.
    pub write_timeout: Duration,
    /// Maximum idle time between two requests of one connection.
    pub idle_timeout: Duration,
    /// Maximum duration of the TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// How long requests in flight may continue after shutdown starts.
    pub drain: Duration,
    /// Whether HTTP/1 header names keep their case in both directions; otherwise they are lower case. Costs some time
    /// and memory per request.
    pub preserve_header_case: bool,
    /// Whether HTTP/1 requests with an ambiguous head are passed to the handler with an [`Ambiguity`] extension.
    /// Otherwise they are rejected with 400.
    pub mark_ambiguous_heads: bool,
    /// Paths that GET and HEAD may request without a password or rate limit, for health probes. Compared byte by byte.
    pub open_paths: Vec<String>,
}

setters!(Options {
    name: &'static str,
    max_connections: usize,
    max_unsent_bytes: usize,
    header_read_timeout: Duration,
    body_read_timeout: Duration,
    write_timeout: Duration,
    idle_timeout: Duration,
    tls_handshake_timeout: Duration,
    drain: Duration,
    preserve_header_case: bool,
    mark_ambiguous_heads: bool,
    open_paths: impl Into<Vec<String>>,
});

impl Options {
    fn is_open(&self, method: &http::Method, path: &str) -> bool {
        matches!(*method, http::Method::GET | http::Method::HEAD) && self.open_paths.iter().any(|open| open == path)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "exporter",
            max_connections: 512,
            max_unsent_bytes: 64 << 20,
            header_read_timeout: Duration::from_secs(10),
            body_read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            // Prometheus closes idle connections after five minutes. A longer limit here lets the scraper close first:
            // otherwise a scrape sometimes uses a connection that is being closed.
            idle_timeout: Duration::from_secs(6 * 60),
            tls_handshake_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            preserve_header_case: false,
            mark_ambiguous_heads: false,
            open_paths: Vec::new(),
        }
    }
}

/// When a server stops, in one step or in two.
///
/// A load balancer learns only by its next look that a server leaves, and a client that reuses a connection does not look at
/// all. So a server can be left open for a while after it has said that it leaves.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    leaving: CancellationToken,
    closing: CancellationToken,
}

impl Shutdown {
    /// From `leaving` on, every connection is asked to end: HTTP/1.1 by `Connection: close` in the next response, HTTP/2 by
    /// GOAWAY (RFC 9112, section 9.6; RFC 9113, section 6.8). New ones are still served, and idle ones kept. From `closing`
    /// on, no client is accepted, and then idle connections are closed.
    #[must_use]
    pub const fn in_two_steps(leaving: CancellationToken, closing: CancellationToken) -> Self {
        Self { leaving, closing }
    }
}

impl From<CancellationToken> for Shutdown {
    /// In one step.
    fn from(closing: CancellationToken) -> Self {
        Self { closing, ..Self::default() }
    }
}

/// The result of a graceful shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were closed because they did not end within [`Options::drain`].
    pub cut: usize,
}

/// How long handlers have after the cut to reach their next `await`. One that blocks is abandoned.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Serves a router or another [`Handler`] on all listeners until `shutdown`, then drains.
///
/// After that, no connection is accepted and idle ones are closed. Connections with a request in flight are closed
/// after the response, or after [`Options::drain`]; the latter are logged and counted in [`Drained::cut`]. Dropping
/// the future closes everything at once.
pub async fn serve<H: Handler>(
    listeners: Vec<Listener>,
    handler: H,
    options: Options,
    web_config: WebConfigSource,
    shutdown: impl Into<Shutdown>,
) -> Drained {
    let Shutdown { leaving, closing } = shutdown.into();
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    let _cut_on_drop = cut.clone().drop_guard();
    let drain = options.drain;
    let server = Arc::new(Server {
        admission: connection_limit::ConnectionLimit::new(options.max_connections),
        unsent: Arc::new(unsent::UnsentBytes::new(options.max_unsent_bytes)),
        http: connection::http_builder(
            stream_task::StreamExecutor {
                tasks: tasks.clone(),
                cut: cut.clone(),
                write_timeout: options.write_timeout,
            },
            &options,
        ),
        handler,
        options,
        web_config,
        tasks: tasks.clone(),
        leaving,
        closing: closing.clone(),
        stopping: CancellationToken::new(),
        cut: cut.clone(),
        cut_connections: AtomicUsize::new(0),
    });

    let mut accepting = JoinSet::new();
    for listener in listeners {
        info!(
            address = %listener,
            tls = server.web_config.uses_tls(),
            server = server.options.name,
            "listening for HTTP clients"
        );
        accepting.spawn(accept::accept_clients(listener, Arc::clone(&server)));
    }
    closing.cancelled().await;
    while let Some(ended) = accepting.join_next().await {
        if let Err(failure) = ended {
            error!(error = %failure, "a listener stopped before the shutdown");
        }
    }

    // Only now: a client whose idle connection is closed must not be able to open another one here.
    server.stopping.cancel();
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        cut.cancel();
        if tokio::time::timeout(CUT_GRACE, tasks.wait()).await.is_err() {
            error!("a request handler blocks its thread and was abandoned");
        }
        warn!(
            connections = server.cut_connections(),
            drain_seconds = drain.as_secs_f64(),
            "closed connections whose requests did not end in time"
        );
    }
    Drained { cut: server.cut_connections() }
}
