//! A real Redis with a replica, and sentinels that watch them.

use clerk_client::redis::{RedisClient, RedisOptions};
use clerk_client::secret::Secret;
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::Process;
use crate::redis::{RedisServer, free_port};
use crate::redis_cluster::wait_for;

/// The name of the primary.
const SERVICE: &str = "clerk";

/// The password of the sentinels. The servers have none.
const PASSWORD: &str = "CANARY-sentinel";

/// Two servers and their sentinels.
pub struct WatchedRedis {
    servers: [(RedisServer, u16); 2],
    sentinels: Vec<RedisSentinel>,
}

/// A running sentinel.
struct RedisSentinel {
    port: u16,
    _process: Process,
    _directory: TempDir,
}

impl WatchedRedis {
    /// Starts a primary, a replica, and so many sentinels, which replace a primary that is silent for so many milliseconds.
    pub async fn start(sentinels: usize, down_after_millis: u32) -> Self {
        let primary = RedisServer::start_on_port(&[]).await;
        let port = primary.1.to_string();
        let replica = RedisServer::start_on_port(&["--replicaof", &format!("127.0.0.1 {port}")]).await;
        let mut started = Vec::new();
        for _ in 0..sentinels {
            started.push(RedisSentinel::start(primary.1, sentinels / 2 + 1, down_after_millis).await);
        }
        let watched = Self { servers: [primary, replica], sentinels: started };
        for sentinel in &watched.sentinels {
            // The sentinels know the replica, and each other.
            wait_for("the sentinels know all servers", async || {
                let known = sentinel.primary_info().await;
                let is_number = |name: &str, number: usize| {
                    known.chunks_exact(2).any(|pair| pair[0] == name && pair[1] == number.to_string())
                };
                is_number("num-slaves", 1) && is_number("num-other-sentinels", sentinels - 1)
            })
            .await;
        }
        watched
    }

    /// Returns the URL of the sentinels, with the password of the sentinels.
    pub fn url(&self) -> Secret {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        Secret::new(format!("redis+sentinel://{}/{SERVICE}?sentinel_password={PASSWORD}", hosts.join(",")))
    }

    /// Returns the URL without the password.
    pub fn url_without_password(&self) -> Secret {
        Secret::new(self.url().expose().split('?').next().unwrap_or_default().to_owned())
    }

    /// Returns options with timeouts long enough for a busy machine.
    pub fn options(&self) -> RedisOptions {
        self.servers[0].0.options().url(self.url())
    }

    /// Creates a client with [`options`](Self::options).
    pub fn client(&self) -> RedisClient {
        RedisClient::new(self.options()).unwrap()
    }

    /// Returns the server that was the primary at the start, and the other one.
    pub fn servers(&self) -> [&RedisServer; 2] {
        [&self.servers[0].0, &self.servers[1].0]
    }

    /// Kills the server that was the primary at the start.
    pub async fn kill_primary(&mut self) {
        self.servers[0].0.kill().await;
    }

    /// Starts it again.
    pub async fn restart_primary(&mut self) {
        self.servers[0].0.restart().await;
    }

    /// Tells the sentinels to make the replica the primary.
    pub async fn fail_over(&self) {
        let port = self.sentinels[0].port;
        let client = redis::Client::open(format!("redis://:{PASSWORD}@127.0.0.1:{port}")).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        // Refused until the sentinel has seen a good replica.
        wait_for("the sentinel begins a fail-over", async || {
            redis::cmd("SENTINEL").arg(&["FAILOVER", SERVICE]).query_async::<()>(&mut connection).await.is_ok()
        })
        .await;
    }
}

impl RedisSentinel {
    async fn start(primary: u16, quorum: usize, down_after_millis: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (file, port) = (directory.path().join("sentinel.conf"), free_port());
        let config = format!(
            "port {port}\nbind 127.0.0.1\nrequirepass {PASSWORD}\nsentinel sentinel-pass {PASSWORD}\n\
            sentinel monitor {SERVICE} 127.0.0.1 {primary} {quorum}\n\
            sentinel down-after-milliseconds {SERVICE} {down_after_millis}\n\
            sentinel failover-timeout {SERVICE} 10000\n"
        );
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("redis-server");
        let mut process = Process::start(command.arg(&file).arg("--sentinel").current_dir(directory.path()));
        process.line(|line| line.contains("+monitor master").then_some(())).await;
        Self { port, _process: process, _directory: directory }
    }

    async fn primary_info(&self) -> Vec<String> {
        let client = redis::Client::open(format!("redis://:{PASSWORD}@127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("SENTINEL").arg(&["MASTER", SERVICE]).query_async(&mut connection).await.unwrap()
    }
}
