//! Child processes of tests: captures their output and ends them with the test, even if it panics.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest wait for a program to start or to end, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of output shown when a test fails.
const SHOWN_LINES: usize = 40;

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    lines: watch::Receiver<Vec<String>>,
    _readers: JoinSet<()>,
}

impl Process {
    /// Starts a program without standard input.
    pub fn start(command: &mut Command) -> Self {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}; run scripts/setup"));
        let (writer, lines) = watch::channel(Vec::new());
        let mut readers = JoinSet::new();
        readers.spawn(read(child.stdout.take().unwrap(), writer.clone()));
        readers.spawn(read(child.stderr.take().unwrap(), writer));
        Self { name, child, lines, _readers: readers }
    }

    /// Waits for a line of output for which `pick` returns a value.
    pub async fn line<T>(&mut self, pick: impl Fn(&str) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            let mut seen = 0;
            loop {
                let found = {
                    let lines = self.lines.borrow_and_update();
                    let new = seen;
                    seen = lines.len();
                    lines[new..].iter().find_map(|line| pick(line))
                };
                if found.is_some() || self.lines.changed().await.is_err() {
                    return found;
                }
            }
        });
        match found.await {
            Ok(Some(found)) => found,
            Ok(None) => panic!("{} ended without writing the expected line", self.name),
            Err(_) => panic!("{} did not write the expected line", self.name),
        }
    }

    /// Waits for the listen address, which clerk-exporter, Prometheus and Alertmanager log as `address=`.
    pub async fn address(&mut self) -> SocketAddr {
        let address = |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix("address="))?.parse().ok();
        self.line(|line| {
            let listens = line.contains("\"listening for HTTP clients\"") || line.contains("\"Listening on\"");
            if listens { address(line) } else { None }
        })
        .await
    }

    /// Returns the output so far.
    pub fn output(&self) -> String {
        self.lines.borrow().join("\n")
    }

    /// Stops the program with SIGTERM, as an init system does, and waits for its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        self.ended().await
    }

    /// Sends a signal, such as `STOP` or `CONT`.
    pub async fn signal(&self, signal: &str) {
        let id = self.child.id().unwrap_or_else(|| panic!("{} has ended already", self.name));
        let command = format!("kill -{signal} {id}");
        let sent = Command::new("sh").args(["-c", &command]).status().await.unwrap();
        assert!(sent.success(), "{command}");
    }

    /// Waits until the program ends.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = timeout(PATIENCE, self.child.wait()).await;
        status.unwrap_or_else(|_| panic!("{} does not end", self.name)).unwrap()
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "shows why a test failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines.borrow();
            let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("-- last lines of {}:\n{}\n", self.name, last.join("\n"));
        }
    }
}

async fn read(output: impl AsyncRead + Unpin, writer: watch::Sender<Vec<String>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        writer.send_modify(|lines| lines.push(line));
    }
}
