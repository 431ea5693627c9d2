//! Serving HTTP: sockets, TLS, time limits and a graceful end. The router is handed in.
//!
//! Why not `axum::serve`: in axum 0.8 it sets no timer, so a client that sends half a request head keeps its
//! connection for ever and a graceful shutdown from ending. Here every wait for a client has an end:
//!
//! | the client | is closed |
//! |---|---|
//! | does not finish its TLS handshake | after [`Options::tls_handshake_timeout`] |
//! | does not finish a request head, or sends nothing at all | after [`Options::header_read_timeout`] |
//! | does not send its request body | after [`Options::body_read_timeout`], by an error in the handler |
//! | does not take the answer | after [`Options::write_timeout`] |
//! | does not take the answer of one HTTP/2 stream, whatever else it sends | the stream after [`Options::write_timeout`] |
//! | keeps an idle connection | after [`Options::idle_timeout`], or at once when a new client needs the place |
//!
//! The caller binds ([`bind`], [`from_systemd`]) and says when to stop; [`serve`] accepts until then and returns when
//! the connections are gone.
//!
//! - `listen`: addresses; `socket`: sockets. `accept`: the loop, with its cap (`connection_limit`) and back-off.
//! - `connection`: one client from the first byte to the last; `timeout_stream`, `connection_state`, `body` watch its
//!   waits. `progress`: whose turn it is in a request; `stream_task` ends an HTTP/2 stream alone.
//! - `unsent`: what responses hold in memory until they are taken.
//! - `service`: one request: web configuration, handler, panics. `handler`: what answers; a router is one.
//! - `framing_guard`: what hyper does not tell of a request's framing, by `http1_framing` and `http2_frames`.
//! - [`web_config`](WebConfigSource): Prometheus' `--web.config.file`.

mod accept;
mod body;
mod connection;
mod connection_limit;
mod connection_state;
mod framing_guard;
mod handler;
mod http1_framing;
mod http2_frames;
mod listen;
mod progress;
mod service;
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
pub use web_config::{FileReloads, WebConfigError, WebConfigFile, WebConfigSource};

use accept::Server;

/// The limits of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is served, for the log.
    pub name: &'static str,
    /// Greatest number of connections at one time, over all listeners. A client above it takes the place of the
    /// connection that has been idle longest, else of one that has waited longest, and for a second at least, for its
    /// client to take or to send something; or it waits for the next such connection.
    pub max_connections: usize,
    /// Greatest number of bytes that responses hold in memory until their clients take them. One connection has a quarter
    /// of it. A request above it waits; responses of which clients took less than 16 KiB for a second are ended for it.
    /// A response alone may be larger.
    pub max_unsent_bytes: usize,
    /// Longest wait for a complete request head, from its first byte or from the connection's start.
    pub header_read_timeout: Duration,
    /// Longest total wait for the client while a request body is read.
    pub body_read_timeout: Duration,
    /// Longest time in which a client takes not one byte of its answer. In HTTP/2 that holds for each stream, whatever
    /// else comes on its connection: the stream is reset, and the connection closed if nothing else is in flight on it.
    pub write_timeout: Duration,
    /// Longest rest between two requests of one connection.
    pub idle_timeout: Duration,
    /// Longest TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// How long requests in flight may go on after the order to stop.
    pub drain: Duration,
    /// Whether the spelling of header names in HTTP/1 is kept, in both directions; otherwise they are written in lower
    /// case. It costs some time and memory for each request.
    pub preserve_header_case: bool,
    /// Whether HTTP/1 requests whose head can be understood in two ways are marked with [`Ambiguity`] and left to the
    /// handler; otherwise they are answered with 400.
    pub mark_ambiguous_heads: bool,
    /// Paths that GET and HEAD may have without a password, for the probes of orchestrators. A path is one of them byte for
    /// byte, or it is not.
    pub open_paths: Vec<String>,
}

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
            // Prometheus closes its idle connections after five minutes. Ours stay a little longer, so that it is the
            // scraper that closes: the other way round now and then a scrape meets a connection that is just closing.
            idle_timeout: Duration::from_secs(6 * 60),
            tls_handshake_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            preserve_header_case: false,
            mark_ambiguous_heads: false,
            open_paths: Vec::new(),
        }
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut off because they did not end within [`Options::drain`].
    pub cut: usize,
}

/// Time after the cut in which handlers have to reach their next `await`; one that blocks is left behind.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Serves a router, or another handler, on all listeners until `shutdown` is cancelled, then lets requests in flight finish.
///
/// After the order to stop no connection is
/// accepted any more, idle ones are closed, and those with a request in flight are closed after its answer, or after
/// [`Options::drain`]; what was cut is logged and counted. Dropping the future cuts everything at once.
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use prometheus_web::{Options, WebConfigSource};
/// use tokio_util::sync::CancellationToken;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let listeners = prometheus_web::bind(&[":10429".parse()?]).await?;
/// let router = Router::new().route("/-/healthy", get(async || "Healthy\n"));
/// let shutdown = CancellationToken::new();
/// let drained = prometheus_web::serve(listeners, router, Options::default(), WebConfigSource::none(), shutdown).await;
/// assert_eq!(drained.cut, 0);
/// # Ok(())
/// # }
/// ```
pub async fn serve<H: Handler>(
    listeners: Vec<Listener>,
    handler: H,
    options: Options,
    web_config: WebConfigSource,
    shutdown: CancellationToken,
) -> Drained {
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
        shutdown: shutdown.clone(),
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
    shutdown.cancelled().await;
    while let Some(ended) = accepting.join_next().await {
        if let Err(failure) = ended {
            error!(error = %failure, "a listener had stopped before the shutdown");
        }
    }

    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        cut.cancel();
        if tokio::time::timeout(CUT_GRACE, tasks.wait()).await.is_err() {
            error!("a request handler blocks its thread and is left behind");
        }
        warn!(
            connections = server.cut_connections(),
            drain_seconds = drain.as_secs_f64(),
            "connections were cut off because their requests did not end in time"
        );
    }
    Drained { cut: server.cut_connections() }
}
