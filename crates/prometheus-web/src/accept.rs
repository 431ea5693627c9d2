//! The accept loop of a listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Options;
use super::connection::{self, HttpBuilder};
use super::connection_limit::{ConnectionLimit, ConnectionPermit};
use super::handler::Handler;
use super::listen::Listener;
use super::socket::Stream;
use super::unsent::UnsentBytes;
use super::web_config::WebConfigSource;

/// Pause after a failed accept: without it, a process out of file descriptors would spin.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Pause after an idle connection was evicted: its file descriptor is free soon.
const SHORT_BACK_OFF: Duration = Duration::from_millis(5);

/// Minimum time between two warnings of the same kind.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The shared state of one server's listeners and connections.
pub(super) struct Server<H> {
    pub(super) admission: ConnectionLimit,
    pub(super) unsent: Arc<UnsentBytes>,
    pub(super) http: HttpBuilder,
    pub(super) handler: H,
    pub(super) options: Options,
    pub(super) web_config: WebConfigSource,
    /// The tasks of all connections and HTTP/2 streams.
    pub(super) tasks: TaskTracker,
    /// Asks clients to go elsewhere; everything is still served.
    pub(super) leaving: CancellationToken,
    /// Closes the listeners.
    pub(super) closing: CancellationToken,
    /// Starts the graceful shutdown of connections, once the listeners are closed: requests in flight may finish.
    pub(super) stopping: CancellationToken,
    /// Ends the graceful shutdown: requests in flight are dropped.
    pub(super) cut: CancellationToken,
    pub(super) cut_connections: AtomicUsize,
}

impl<H> Server<H> {
    /// Returns the number of connections cut so far.
    pub(super) fn cut_connections(&self) -> usize {
        self.cut_connections.load(Ordering::Relaxed)
    }
}

/// Accepts clients until the shutdown. The socket is closed on return.
pub(super) async fn accept_clients<H: Handler>(listener: Listener, server: Arc<Server<H>>) {
    let closing = server.closing.clone();
    let mut warned = Warned::default();
    let accepting = async {
        loop {
            match listener.socket.accept().await {
                Ok((stream, peer)) => {
                    let permit = wait_for_permit(&server, &mut warned).await;
                    start(&server, stream, peer, permit);
                }
                Err(error) => recover(&server, &error, &mut warned).await,
            }
        }
    };
    closing.run_until_cancelled(accepting).await;
}

/// Waits for a connection permit for an accepted client. A permit reserved before `accept` would be held by every
/// listener without a client.
async fn wait_for_permit<H>(server: &Server<H>, warned: &mut Warned) -> ConnectionPermit {
    if let Some(permit) = server.admission.try_admit() {
        return permit;
    }
    if warned.is_due(Instant::now()) {
        warn!(
            max_connections = server.options.max_connections,
            "connection limit reached; closing idle and stalled connections for new clients"
        );
    }
    server.admission.admit().await
}

async fn recover<H>(server: &Server<H>, error: &io::Error, warned: &mut Warned) {
    // The client left while it was queued: no pause needed.
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    ) {
        debug!(%error, "client left before it was accepted");
        return;
    }
    // Most likely out of file descriptors or memory: closing an idle connection may help.
    if warned.is_due(Instant::now()) {
        warn!(%error, "cannot accept clients; if too many files are open, raise the limit (LimitNOFILE)");
    }
    let back_off = if server.admission.evict_one() { SHORT_BACK_OFF } else { BACK_OFF };
    tokio::time::sleep(back_off).await;
}

fn start<H: Handler>(server: &Arc<Server<H>>, stream: Stream, peer: SocketAddr, permit: ConnectionPermit) {
    // An IPv4 client of a dual-stack socket has a mapped address, ::ffff:192.0.2.1: log the IPv4 address.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let server = Arc::clone(server);
    let tasks = server.tasks.clone();
    tasks.spawn(async move {
        let served = connection::serve_client(&server, stream, peer, permit).with_cancellation_token(&server.cut).await;
        match served {
            Some(Ok(())) => {}
            Some(Err(reason)) => debug!(%peer, %reason, "connection closed"),
            None => {
                server.cut_connections.fetch_add(1, Ordering::Relaxed);
                debug!(%peer, "connection cut off");
            }
        }
    });
}

/// When a warning was last logged.
#[derive(Default)]
struct Warned(Option<Instant>);

impl Warned {
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| now - last >= WARN_EVERY);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}
