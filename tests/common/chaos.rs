//! A TCP proxy that injects the faults of networks and servers.
//!
//! It is independent of HTTP. Request bytes pass unchanged; faults apply to the response bytes, counted from the start
//! of a connection. So connection reuse is affected, too.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Maximum connections waiting to be accepted.
const BACKLOG: u32 = 1024;

/// The fault of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chaos {
    /// No fault.
    Pass,
    /// Accepted and reset immediately.
    Refuse,
    /// Reset after this many response bytes.
    ResetAfter(usize),
    /// Closed gracefully after this many response bytes.
    CutAfter(usize),
    /// No further bytes after this many response bytes; the connection stays open.
    StallAfter(usize),
    /// Responses in pieces of `bytes`, with a pause of `every` after each.
    Drip {
        /// Size of a piece, at least 1.
        bytes: usize,
        /// Pause after each piece.
        every: Duration,
    },
}

/// The proxy. Dropping it closes all its connections.
pub(crate) struct ChaosProxy {
    address: SocketAddr,
    state: Arc<State>,
    _listening: JoinSet<()>,
}

struct State {
    upstream: SocketAddr,
    /// Faults of the next connections, one each.
    next: Mutex<VecDeque<Chaos>>,
    /// Fault of all later connections.
    chaos: Mutex<Chaos>,
    accepted: AtomicUsize,
    connections: Mutex<JoinSet<()>>,
}

impl ChaosProxy {
    /// Starts a proxy on a free port in front of `upstream`.
    pub(crate) fn start(upstream: SocketAddr, chaos: Chaos) -> Self {
        Down::before(upstream).up(chaos)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the fault of new connections; open ones keep theirs.
    pub(crate) fn set(&self, chaos: Chaos) {
        self.state.next.lock().clear();
        *self.state.chaos.lock() = chaos;
    }

    /// Sets the faults of the next connections, one each; later ones have the fault from before.
    pub(crate) fn next(&self, chaos: impl IntoIterator<Item = Chaos>) {
        self.state.next.lock().extend(chaos);
    }

    /// Closes every open connection.
    pub(crate) fn hang_up(&self) {
        self.state.connections.lock().abort_all();
    }

    /// Number of connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

/// A proxy that does not listen yet: its port is reserved, and the operating system refuses connections.
pub(crate) struct Down {
    socket: TcpSocket,
    address: SocketAddr,
    upstream: SocketAddr,
}

impl Down {
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        Self { socket, address, upstream }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to listen on the same port.
    pub(crate) fn up(self, chaos: Chaos) -> ChaosProxy {
        let Self { socket, address, upstream } = self;
        let state = Arc::new(State {
            upstream,
            next: Mutex::default(),
            chaos: Mutex::new(chaos),
            accepted: AtomicUsize::new(0),
            connections: Mutex::default(),
        });
        let listener = socket.listen(BACKLOG).unwrap();
        let mut listening = JoinSet::new();
        let accepting = Arc::clone(&state);
        listening.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.accept(stream);
            }
        });
        ChaosProxy { address, state, _listening: listening }
    }
}

impl State {
    fn accept(&self, client: TcpStream) {
        let chaos = self.next.lock().pop_front().unwrap_or_else(|| *self.chaos.lock());
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let mut connections = self.connections.lock();
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(client, self.upstream, chaos));
    }
}

/// Handles one connection until its end.
async fn connection(mut client: TcpStream, upstream: SocketAddr, chaos: Chaos) {
    if chaos == Chaos::Refuse {
        reset(client);
        return;
    }
    // An immediately closed connection looks like a dead server.
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    // Send pieces as they were cut.
    let _ = client.set_nodelay(true);
    let ended_in_chaos = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let requests = async {
            // A half-closed client may still wait for its response.
            let _ = copy(&mut from_client, &mut to_server).await;
            let _ = to_server.shutdown().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = requests => false,
            ended = answers(&mut from_server, &mut to_client, chaos) => ended,
        }
    };
    if ended_in_chaos && matches!(chaos, Chaos::ResetAfter(_)) {
        reset(client);
    }
}

/// Forwards responses until either side closes (false) or the byte limit is reached (true).
async fn answers(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), chaos: Chaos) -> bool {
    match chaos {
        Chaos::Pass | Chaos::Refuse => {
            let _ = copy(from, to).await;
            false
        }
        Chaos::ResetAfter(bytes) | Chaos::CutAfter(bytes) => pass(from, to, bytes).await,
        Chaos::StallAfter(bytes) => {
            if pass(from, to, bytes).await {
                std::future::pending::<()>().await;
            }
            false
        }
        Chaos::Drip { bytes, every } => {
            while pass(from, to, bytes.max(1)).await {
                tokio::time::sleep(every).await;
            }
            false
        }
    }
}

/// Forwards exactly this many bytes; false if there were fewer.
async fn pass(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), bytes: usize) -> bool {
    let wanted = u64::try_from(bytes).unwrap();
    copy(&mut from.take(wanted), to).await.is_ok_and(|passed| passed == wanted)
}

fn reset(stream: TcpStream) {
    // With zero linger the operating system sends RST instead of FIN.
    let _ = stream.set_zero_linger();
    drop(stream);
}
