//! A real Redis on a Unix socket, to avoid port conflicts.

use std::path::PathBuf;

use clerk_client::redis::{RedisClient, RedisOptions};
use clerk_client::secret::Secret;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::process::Process;

/// A running server without persistence. Ends with the test.
pub struct RedisServer {
    directory: TempDir,
    arguments: Vec<String>,
    process: Process,
}

impl RedisServer {
    /// Starts a server with additional arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let process = run(&directory, &arguments).await;
        Self { directory, arguments, process }
    }

    /// Returns the path of the server's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Returns the server's URL.
    pub fn url(&self) -> Secret {
        Secret::new(format!("unix://{}", self.socket().display()))
    }

    /// Starts a server that also listens to a port of this machine, and returns the port.
    pub async fn start_on_port(arguments: &[&str]) -> (Self, u16) {
        let port = free_port();
        let text = port.to_string();
        let server = Self::start(&[&["--port", &text, "--bind", "127.0.0.1"], arguments].concat()).await;
        (server, port)
    }

    /// Returns options with timeouts long enough for a busy machine. Tests of timeouts set their own.
    pub fn options(&self) -> RedisOptions {
        let patience = std::time::Duration::from_secs(20);
        RedisOptions::new(self.url()).timeout(patience).connect_timeout(patience)
    }

    /// Creates a client with [`options`](Self::options).
    pub fn store(&self) -> RedisClient {
        RedisClient::new(self.options()).unwrap()
    }

    /// Kills the server.
    pub async fn kill(&mut self) {
        self.process.signal("KILL").await;
        self.process.ended().await;
    }

    /// Starts the server again, empty, on the same socket.
    pub async fn restart(&mut self) {
        self.process = run(&self.directory, &self.arguments).await;
    }

    /// Suspends the server: connections stay open without responses.
    pub async fn pause(&self) {
        self.process.signal("STOP").await;
    }

    /// Resumes the server.
    pub async fn resume(&self) {
        self.process.signal("CONT").await;
    }

    /// Opens a connection to inspect the server.
    pub async fn look(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url().expose()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// Returns the server's replication role: `master` or `slave`. `None` if it closes the connection, as when that changes.
    pub async fn replication_role(&self) -> Option<String> {
        let client = redis::Client::open(self.url().expose()).ok()?;
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await.ok()?;
        info.lines().find_map(|line| line.strip_prefix("role:")).map(|role| role.trim_end().to_owned())
    }

    /// Runs a command on the server.
    pub async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.look().await).await.unwrap()
    }

    /// Creates a user with only these permissions and returns the server's URL for it.
    pub async fn url_of_user(&self, user: &str, rights: &[&str]) -> Secret {
        let rights = [&["ACL", "SETUSER", user, "reset", "on", ">CANARY-right", "resetchannels"], rights].concat();
        let () = self.command(&rights).await;
        Secret::new(format!("unix://{}?user={user}&pass=CANARY-right", self.socket().display()))
    }

    /// Returns the objects of denied commands from the ACL log.
    pub async fn denied(&self) -> Vec<String> {
        let entries: Vec<std::collections::HashMap<String, redis::Value>> = self.command(&["ACL", "LOG", "128"]).await;
        let object = |entry: &std::collections::HashMap<String, redis::Value>| {
            redis::from_redis_value::<String>(entry["object"].clone()).unwrap()
        };
        entries.iter().map(object).collect()
    }

    /// Returns the keys in a command.
    pub async fn keys_of(&self, command: &[String]) -> Vec<String> {
        let mut getkeys = redis::cmd("COMMAND");
        getkeys.arg("GETKEYS").arg(command);
        // Most commands have no keys, which the server reports as an error.
        getkeys.query_async(&mut self.look().await).await.unwrap_or_default()
    }

    /// Returns the server's error for a failing command sent to this URL.
    pub async fn error(&self, url: &Secret, words: &[&str]) -> String {
        let client = redis::Client::open(url.expose()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let error = command.query_async::<redis::Value>(&mut connection).await.unwrap_err();
        format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default())
    }

    /// Monitors all commands from now on.
    pub async fn monitor(&self) -> Monitor {
        let mut stream = BufReader::new(UnixStream::connect(self.socket()).await.unwrap());
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).await.unwrap();
        assert_eq!(answer, "+OK\r\n");
        Monitor(stream)
    }

    /// Returns the names and values of all keys, which are strings.
    pub async fn strings(&self) -> String {
        let mut all = String::new();
        for (key, _) in self.keys().await {
            let value: Vec<u8> = self.command(&["GET", &key]).await;
            all.push_str(&key);
            all.push_str(&String::from_utf8_lossy(&value));
        }
        all
    }

    /// Returns all keys with their TTL in milliseconds.
    pub async fn keys(&self) -> Vec<(String, i64)> {
        let keys: Vec<String> = self.command(&["KEYS", "*"]).await;
        let mut found = Vec::new();
        for key in keys {
            let ttl = self.command(&["PTTL", &key]).await;
            found.push((key, ttl));
        }
        found
    }
}

/// Returns the number of calls in a script, all of which the documented rights allow.
///
/// # Panics
/// Panics if one of them is not allowed.
pub fn calls_within_rights(script: &str) -> usize {
    let rule = clerk_client::redis::acl_rule(clerk_client::redis::DEFAULT_PREFIX);
    let calls = script.split("redis.call('").skip(1).filter_map(|rest| rest.split('\'').next());
    let commands: Vec<String> = calls.map(str::to_ascii_lowercase).collect();
    for command in &commands {
        assert!(rule.split(' ').any(|right| right == format!("+{command}")), "{command} is not in {rule}");
    }
    commands.len()
}

/// Returns a port that was free a moment ago: below those that systems give to connections, so that none takes it before
/// the server does.
pub(crate) fn free_port() -> u16 {
    loop {
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
        let port = 11_000 + u16::try_from(random % 20_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The commands that a server runs, including those of scripts.
pub struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// Returns the words of the next command, and whether a script runs it.
    pub async fn next(&mut self) -> (Vec<String>, bool) {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        // `+1795608000.123456 [0 lua] "GET" "key"`
        let (head, words) = line.split_once("] ").unwrap();
        (quoted_words(words), head.ends_with("lua"))
    }
}

/// Parses quoted words. Unprintable bytes stay escaped.
fn quoted_words(line: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), line.chars());
    while rest.any(|character| character == '"') {
        let mut word = String::new();
        while let Some(character) = rest.next().filter(|character| *character != '"') {
            word.push(character);
            if character == '\\' {
                word.extend(rest.next());
            }
        }
        words.push(word);
    }
    words
}

async fn run(directory: &TempDir, arguments: &[String]) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", "redis.sock", "--dir"]);
    command.arg(directory.path()).args(arguments).current_dir(directory.path());
    let mut process = Process::start(&mut command);
    process.line(|line| line.to_lowercase().contains("ready to accept connections").then_some(())).await;
    process
}
