//! A server under test, and clients that can misbehave.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use prometheus_web::{Drained, ListenAddress, Options, Shutdown, WebConfigSource};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Short, for time limits that a test lets expire.
pub(crate) const SOON: Duration = Duration::from_millis(50);

/// The same for limits within which a client has to do something first, also on a busy machine.
pub(crate) const LATER: Duration = Duration::from_millis(500);

/// Longer than any test, for time limits that must not end it.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// Options whose time limits never expire; a test sets the one that it is about.
pub(crate) fn patient() -> Options {
    Options::default()
        .max_connections(512)
        .header_read_timeout(NEVER)
        .body_read_timeout(NEVER)
        .write_timeout(NEVER)
        .idle_timeout(NEVER)
        .tls_handshake_timeout(NEVER)
        .drain(NEVER)
}

/// Fails a test that hangs.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("the test hangs")
}

/// A running server.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    /// Announces the shutdown.
    pub(crate) leaving: CancellationToken,
    pub(crate) shutdown: CancellationToken,
    running: JoinSet<Drained>,
}

impl TestServer {
    pub(crate) async fn start(router: Router, options: Options, web_config: WebConfigSource) -> Self {
        let listeners = prometheus_web::bind(&[ListenAddress::Socket(([127, 0, 0, 1], 0).into())]).await.unwrap();
        let address = listeners[0].local_addr();
        let (leaving, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let both = Shutdown::in_two_steps(leaving.clone(), shutdown.clone());
        let mut running = JoinSet::new();
        running.spawn(prometheus_web::serve(listeners, router, options, web_config, both));
        Self { address, leaving, shutdown, running }
    }

    pub(crate) async fn plain(router: Router, options: Options) -> Self {
        Self::start(router, options, WebConfigSource::none()).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.address)).await.unwrap()
    }

    /// Sends one request on its own connection.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> String {
        within(exchange(self.connect().await, path, headers)).await
    }

    /// The same with another method.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str) -> String {
        let mut stream = self.connect().await;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    /// Waits for the end of a server that is shutting down.
    pub(crate) async fn drained(mut self) -> Drained {
        within(self.running.join_next()).await.unwrap().unwrap()
    }

    pub(crate) async fn stop(self) -> Drained {
        self.shutdown.cancel();
        self.drained().await
    }
}

/// Sends a request that closes the connection, and returns the whole response.
pub(crate) async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

/// Reads until the server closes the connection, properly or by a reset.
pub(crate) async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

/// Sends a request that keeps the connection, and returns its response `ok`.
pub(crate) async fn keep_alive_request(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut byte = [0];
        within(stream.read_exact(&mut byte)).await.unwrap();
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no HTTP status: {answer:?}"))
}

/// `alice` with the password `open sesame`, as `htpasswd -B` writes it (cost 4, to be quick).
pub(crate) fn alice(password: &str) -> String {
    let hash = bcrypt::hash_with_result(password, 4).unwrap().format_for_version(bcrypt::Version::TwoY);
    format!("basic_auth_users:\n  alice: {hash}\n")
}

/// Responds `ok` on `/`.
pub(crate) fn ok_router() -> Router {
    Router::new().route("/", get(async || "ok"))
}

/// A handler that signals when it is entered and waits to be released.
#[derive(Clone)]
pub(crate) struct Gate {
    entered: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { entered: Arc::new(Semaphore::new(0)), released: Arc::new(Semaphore::new(0)) }
    }

    /// Responds `ok` on `/` when released.
    pub(crate) fn router(&self) -> Router {
        let gate = self.clone();
        Router::new().route(
            "/",
            get(async move || {
                gate.entered.add_permits(1);
                gate.released.acquire().await.unwrap().forget();
                "ok"
            }),
        )
    }

    /// Waits until a request has arrived.
    pub(crate) async fn entered(&self) {
        within(self.entered.acquire()).await.unwrap().forget();
    }

    /// Returns the number of clones of this gate, in handlers and routers too.
    pub(crate) fn clones(&self) -> usize {
        Arc::strong_count(&self.released)
    }

    pub(crate) fn release(&self, requests: usize) {
        self.released.add_permits(requests);
    }
}

/// A file of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A folder with a web configuration and certificates.
pub(crate) struct ConfigFolder(tempfile::TempDir);

impl ConfigFolder {
    pub(crate) fn new(web_config: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for name in ["ca.pem", "server.pem", "server.key"] {
            folder.copy(name, name);
        }
        folder.write(web_config);
        folder
    }

    pub(crate) fn write(&self, web_config: &str) {
        std::fs::write(self.path(), web_config).unwrap();
    }

    /// Copies a test certificate or key there under another name.
    pub(crate) fn copy(&self, name: &str, as_name: &str) {
        std::fs::copy(data("tls").join(name), self.0.path().join(as_name)).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("web.yml")
    }

    pub(crate) fn source(&self) -> WebConfigSource {
        WebConfigSource::open(self.path()).unwrap()
    }
}
