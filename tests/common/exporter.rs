//! The binary as a process, and a simulated Clerk for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clerk_simulator::Simulator;
use parking_lot::Mutex;
use prometheus_web::WebConfigSource;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Keys with a valid format that are not real.
pub(crate) const KEY: &str = "sk_test_4bMbJyWZ2vnLx0aQCANARY";
pub(crate) const OTHER_KEY: &str = "sk_test_7hGfDsAqWeRtYuIoPCANARY";

/// Longer than anything takes on a busy machine; only failing tests wait for it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Fails a test that hangs.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: timed out"))
}

/// Polls until there is a result.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// The binary, with a clean environment.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerk-exporter"));
    command.args(arguments).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The output of a command that exited.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command until it exits.
pub(crate) async fn run(mut command: Command) -> Ended {
    let output = within("the command", command.output()).await.unwrap();
    Ended {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A router on a local socket, for the duration of the test.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Web {
    pub(crate) async fn start(router: Router) -> Self {
        Self::start_with(router, WebConfigSource::none()).await
    }

    /// With TLS or passwords.
    pub(crate) async fn start_with(router: Router, web_config: WebConfigSource) -> Self {
        let listeners = prometheus_web::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
        let address = listeners[0].local_addr();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let options = prometheus_web::Options::default();
            prometheus_web::serve(listeners, router, options, web_config, CancellationToken::new()).await;
        });
        Self { address, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A simulated Clerk on a socket.
pub(crate) struct Clerk {
    pub(crate) simulator: Simulator,
    pub(crate) web: Web,
}

impl Clerk {
    pub(crate) async fn start() -> Self {
        Self::with(Self::options()).await
    }

    /// Options with quota headers.
    pub(crate) fn options() -> clerk_simulator::Options {
        clerk_simulator::Options::default().headers(clerk_simulator::HeaderProfile::XRateLimit)
    }

    pub(crate) async fn with(options: clerk_simulator::Options) -> Self {
        let simulator = Simulator::new(options.users(100));
        let web = Web::start(simulator.router()).await;
        Self { simulator, web }
    }

    pub(crate) fn url(&self) -> String {
        self.web.url()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.simulator.truth().requests.total
    }
}

/// A folder with a configuration and keys.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file atomically.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }
}

/// A running exporter.
pub(crate) struct Exporter {
    pub(crate) address: SocketAddr,
    child: Child,
    output: Arc<Mutex<String>>,
    readers: JoinSet<()>,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    /// Status line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Page {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The values of a header.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
    }
}

impl Exporter {
    /// Starts the exporter on a free port and waits until it listens.
    pub(crate) async fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = command(arguments);
        command.arg("--web.listen-address=127.0.0.1:0").envs(environment.iter().copied());
        Self::spawn(command, bound_address).await
    }

    /// The demo, with its simulated Clerk.
    pub(crate) async fn demo(arguments: &[&str]) -> Self {
        let mut command =
            command(&["demo", "--simulator.listen-address=127.0.0.1:0", "--web.listen-address=127.0.0.1:0"]);
        command.arg("--gateway.listen-address=127.0.0.1:0");
        command.args(arguments);
        Self::spawn(command, |output| {
            let (_, url) = output.split_once("Landing page:")?;
            url.trim_start().strip_prefix("http://")?.split('/').next()?.parse().ok()
        })
        .await
    }

    /// Starts with a configuration file.
    pub(crate) async fn with_config(path: &Path, arguments: &[&str]) -> Self {
        let mut all = vec!["--config.file", path.to_str().unwrap()];
        all.extend(arguments);
        Self::start(&all, &[]).await
    }

    /// `address` finds the address in the output so far.
    pub(crate) async fn spawn(mut command: Command, address: impl Fn(&str) -> Option<SocketAddr>) -> Self {
        let mut child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let mut readers = JoinSet::new();
        readers.spawn(collect(child.stdout.take().unwrap(), Arc::clone(&output)));
        readers.spawn(collect(child.stderr.take().unwrap(), Arc::clone(&output)));
        let address = eventually("the address that it listens on", async || {
            if let Ok(Some(status)) = child.try_wait() {
                while readers.join_next().await.is_some() {}
                panic!("it ended with {status}: {}", output.lock());
            }
            address(&output.lock())
        })
        .await;
        Self { address, child, output, readers }
    }

    /// The address of its gateway.
    pub(crate) async fn gateway(&self) -> SocketAddr {
        eventually("the address of the gateway", async || gateway_address(&self.output())).await
    }

    /// The address at which it receives traces.
    pub(crate) async fn telemetry(&self) -> SocketAddr {
        eventually("the address for traces", async || address_of(&self.output(), "telemetry")).await
    }

    /// The output so far.
    pub(crate) fn output(&self) -> String {
        self.output.lock().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Page {
        self.request("GET", path, "").await
    }

    /// Sends one request on a new connection. `headers` end in line breaks.
    pub(crate) async fn request(&self, method: &str, path: &str, headers: &str) -> Page {
        request(self.address, method, path, headers).await
    }

    pub(crate) async fn metrics(&self) -> crate::exposition::Scrape {
        crate::exposition::Scrape::parse(&self.get("/metrics").await.text())
    }

    /// Waits until a metric has a value.
    pub(crate) async fn until(&self, name: &str, labels: &[(&str, &str)], is_right: impl Fn(f64) -> bool) {
        let what = format!("{name} {labels:?}");
        eventually(&what, async || self.metrics().await.value(name, labels).filter(|value| is_right(*value))).await;
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }

    /// Waits until it exits; returns all output.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let status = within("the end", self.child.wait()).await.unwrap();
        while self.readers.join_next().await.is_some() {}
        (status, self.output())
    }

    pub(crate) async fn stopped(self) -> (ExitStatus, String) {
        self.signal("TERM").await;
        self.ended().await
    }
}

/// Sends one request on a new connection. `headers` end in line breaks.
pub(crate) async fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> Page {
    send(address, method, path, headers, "").await
}

/// Sends one request with a body of JSON on a new connection.
pub(crate) async fn post_json(address: SocketAddr, path: &str, body: &str) -> Page {
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    send(address, "POST", path, &headers, body).await
}

/// Sends one request with a body on a new connection. The headers say its length.
pub(crate) async fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Page {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n{body}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    page(&within(path, exchange).await)
}

async fn collect(stream: impl tokio::io::AsyncRead + Unpin, output: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut output = output.lock();
        output.push_str(&line);
        output.push('\n');
    }
}

/// The address in the log, in either format.
pub(crate) fn bound_address(log: &str) -> Option<SocketAddr> {
    address_of(log, "exporter").or_else(|| address_of(log, "simulator"))
}

/// The gateway's address in the log, in either format.
pub(crate) fn gateway_address(log: &str) -> Option<SocketAddr> {
    address_of(log, "gateway")
}

fn address_of(log: &str, server: &str) -> Option<SocketAddr> {
    let names = [format!("server={server}"), format!("\"server\":\"{server}\"")];
    let is_of =
        |line: &&str| line.contains("listening for HTTP clients") && names.iter().any(|name| line.contains(name));
    let line = log.lines().find(is_of)?;
    let value = line.split_once("address\":\"").or_else(|| line.split_once("address="))?.1;
    let end = value.find(['"', ' ']).unwrap_or(value.len());
    value[..end].parse().ok()
}

fn page(answer: &[u8]) -> Page {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = answer[end + 4..].to_vec();
    if head.contains("transfer-encoding: chunked") && !body.is_empty() {
        body = unchunked(&body);
    }
    Page { status, head, body }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line_end = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line_end]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&bytes[line_end + 2..line_end + 2 + size]);
        bytes = &bytes[line_end + 2 + size + 2..];
    }
}
