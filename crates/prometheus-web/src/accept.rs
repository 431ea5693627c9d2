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

/// Rest after a failed accept: without it a process out of file descriptors would spin.
const BACK_OFF: Duration = Duration::from_millis(200);

/// The same when an idle connection was told to go: its file descriptor is free in a moment.
const SHORT_BACK_OFF: Duration = Duration::from_millis(5);

/// Least time between two warnings of the same kind.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What all listeners and connections of one server share.
pub(super) struct Server<H> {
    pub(super) admission: ConnectionLimit,
    pub(super) unsent: Arc<UnsentBytes>,
    pub(super) http: HttpBuilder,
    pub(super) handler: H,
    pub(super) options: Options,
    pub(super) web_config: WebConfigSource,
    /// Every task of a connection or an HTTP/2 stream.
    pub(super) tasks: TaskTracker,
    /// The order to stop: finish what is in flight.
    pub(super) shutdown: CancellationToken,
    /// The end of patience: drop what is in flight.
    pub(super) cut: CancellationToken,
    pub(super) cut_connections: AtomicUsize,
}

impl<H> Server<H> {
    /// Connections cut off so far.
    pub(super) fn cut_connections(&self) -> usize {
        self.cut_connections.load(Ordering::Relaxed)
    }
}

/// Accepts clients until the order to stop. The socket is closed on return.
pub(super) async fn accept_clients<H: Handler>(listener: Listener, server: Arc<Server<H>>) {
    let shutdown = server.shutdown.clone();
    let mut warned = Warned::default();
    let accepting = async {
        loop {
            match listener.socket.accept().await {
                Ok((stream, peer)) => {
                    let place = place_for_client(&server, &mut warned).await;
                    start(&server, stream, peer, place);
                }
                Err(error) => recover(&server, &error, &mut warned).await,
            }
        }
    };
    shutdown.run_until_cancelled(accepting).await;
}

/// The client is accepted first and waits here for its place. A place reserved before `accept` would be held by every
/// listener without a client.
async fn place_for_client<H>(server: &Server<H>, warned: &mut Warned) -> ConnectionPermit {
    if let Some(place) = server.admission.try_admit() {
        return place;
    }
    if warned.is_due(Instant::now()) {
        warn!(
            max_connections = server.options.max_connections,
            "all connections are taken: idle and stalled ones are closed for new clients"
        );
    }
    server.admission.admit().await
}

async fn recover<H>(server: &Server<H>, error: &io::Error, warned: &mut Warned) {
    // The client went away while it was queued: nothing to wait for.
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    ) {
        debug!(%error, "a client left before it was accepted");
        return;
    }
    // Out of file descriptors or memory, most likely: an idle connection less may help.
    if warned.is_due(Instant::now()) {
        warn!(%error, "clients cannot be accepted; if too many files are open, raise the limit (LimitNOFILE)");
    }
    let back_off = if server.admission.shed_one() { SHORT_BACK_OFF } else { BACK_OFF };
    tokio::time::sleep(back_off).await;
}

fn start<H: Handler>(server: &Arc<Server<H>>, stream: Stream, peer: SocketAddr, place: ConnectionPermit) {
    // An IPv4 client of a socket that takes both has a mapped address, ::ffff:192.0.2.1: nobody wants to read that.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let server = Arc::clone(server);
    let tasks = server.tasks.clone();
    tasks.spawn(async move {
        let served = connection::serve_client(&server, stream, peer, place).with_cancellation_token(&server.cut).await;
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

/// When something was last warned about.
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
