//! A TCP proxy that breaks what goes through it, in the ways that networks and servers do.
//!
//! It knows nothing of HTTP: bytes of requests pass as they are, and what goes wrong, goes wrong with the bytes of the
//! answers, counted from the start of a connection. Clients and servers that keep connections open see that, too.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chaos {
    /// Everything passes.
    Pass,
    /// It is accepted and reset at once.
    Refuse,
    /// It is reset when this many bytes of answers have passed.
    ResetAfter(usize),
    /// It is closed in good order when this many bytes of answers have passed.
    CutAfter(usize),
    /// Nothing more comes when this many bytes of answers have passed, and it stays open.
    StallAfter(usize),
    /// Answers come in pieces of `bytes`, with a pause of `every` after each.
    Drip {
        /// Size of a piece, at least 1.
        bytes: usize,
        /// Pause after each piece.
        every: Duration,
    },
}

/// The proxy; with it end all its connections.
pub(crate) struct ChaosProxy {
    address: SocketAddr,
    state: Arc<State>,
    _listening: JoinSet<()>,
}

struct State {
    upstream: SocketAddr,
    /// What becomes of the next connections, one each.
    next: Mutex<VecDeque<Chaos>>,
    /// What becomes of those after them.
    chaos: Mutex<Chaos>,
    accepted: AtomicUsize,
    connections: Mutex<JoinSet<()>>,
}

impl ChaosProxy {
    /// A proxy on a free port before `upstream`.
    pub(crate) fn start(upstream: SocketAddr, chaos: Chaos) -> Self {
        Down::before(upstream).up(chaos)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what becomes of connections from now on; those that are open go on as they began.
    pub(crate) fn set(&self, chaos: Chaos) {
        self.state.next.lock().clear();
        *self.state.chaos.lock() = chaos;
    }

    /// Says what becomes of the next connections, one after the other; then it is as it was.
    pub(crate) fn next(&self, chaos: impl IntoIterator<Item = Chaos>) {
        self.state.next.lock().extend(chaos);
    }

    /// Ends every open connection.
    pub(crate) fn hang_up(&self) {
        self.state.connections.lock().abort_all();
    }

    /// Number of connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

/// A proxy that is not there yet: its port is taken, and whoever connects is refused by the operating system.
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

    /// Begins to listen, on the same port.
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

/// One connection to its end.
async fn connection(mut client: TcpStream, upstream: SocketAddr, chaos: Chaos) {
    if chaos == Chaos::Refuse {
        reset(client);
        return;
    }
    // A client that sees its connection closed at once is told as much as one whose server is gone can be.
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    // Pieces arrive as they were cut.
    let _ = client.set_nodelay(true);
    let ended_in_chaos = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let requests = async {
            // A client that will send nothing more may still wait for its answer.
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

/// Passes answers on until the server or the client ends them (false), or their number of bytes is reached (true).
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

/// Passes exactly this many bytes on; false if there were not as many.
async fn pass(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), bytes: usize) -> bool {
    let wanted = u64::try_from(bytes).unwrap();
    copy(&mut from.take(wanted), to).await.is_ok_and(|passed| passed == wanted)
}

fn reset(stream: TcpStream) {
    // Without lingering the operating system sends RST instead of FIN.
    let _ = stream.set_zero_linger();
    drop(stream);
}
