//! A real Redis Cluster of several primaries, and replicas if wanted.

use std::time::Duration;

use clerk_client::redis::{RedisClient, RedisOptions};
use clerk_client::secret::Secret;
use redis::aio::MultiplexedConnection;
use tokio::time::{sleep, timeout};

use crate::redis::{RedisServer, free_port};

/// Longest wait for the nodes to agree, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster. The primaries have equal parts of the slots.
pub struct RedisCluster {
    nodes: Vec<ClusterNode>,
}

/// One of its servers.
pub struct ClusterNode {
    /// The server.
    pub server: RedisServer,
    /// Its port on this machine.
    pub port: u16,
    /// Its id in the cluster.
    pub id: String,
}

impl RedisCluster {
    /// Starts a cluster of so many primaries, each with so many replicas, and waits until it works.
    pub async fn start(primaries: usize, replicas: usize) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..primaries * (1 + replicas) {
            nodes.push(ClusterNode::start().await);
        }
        let cluster = Self { nodes };
        cluster.join(primaries).await;
        cluster
    }

    async fn join(&self, primaries: usize) {
        let first_port = self.nodes[0].port.to_string();
        let first_bus: Vec<String> = self.nodes[0].server.command(&["CONFIG", "GET", "cluster-port"]).await;
        for (index, node) in self.nodes.iter().enumerate() {
            let epoch = (index + 1).to_string();
            let () = node.server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            if index < primaries {
                let [from, to] = [index, index + 1].map(|index| 16384 * index / primaries);
                let range = [from.to_string(), (to - 1).to_string()];
                let () = node.server.command(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
            }
            if index > 0 {
                let () = node.server.command(&["CLUSTER", "MEET", "127.0.0.1", &first_port, &first_bus[1]]).await;
            }
        }
        self.agree(self.nodes.len(), primaries).await;
        for (index, node) in self.nodes.iter().enumerate().skip(primaries) {
            let primary = &self.nodes[index % primaries].id;
            let () = node.server.command(&["CLUSTER", "REPLICATE", primary]).await;
        }
        for node in self.nodes.iter().skip(primaries) {
            wait_for("replicas follow", async || {
                let info: String = node.server.command(&["INFO", "replication"]).await;
                info.contains("master_link_status:up")
            })
            .await;
        }
    }

    /// Waits until every node knows all others and all slots, and the cluster works.
    async fn agree(&self, nodes: usize, primaries: usize) {
        for node in &self.nodes {
            wait_for("the cluster works", async || {
                let info: String = node.server.command(&["CLUSTER", "INFO"]).await;
                let says = |line: String| info.lines().any(|it| it.trim() == line);
                says("cluster_state:ok".to_owned())
                    && says(format!("cluster_known_nodes:{nodes}"))
                    && says(format!("cluster_size:{primaries}"))
                    && says("cluster_slots_ok:16384".to_owned())
            })
            .await;
        }
    }

    /// Returns the nodes, the primaries first.
    pub fn nodes(&self) -> &[ClusterNode] {
        &self.nodes
    }

    /// Returns a node to change.
    pub fn node_mut(&mut self, index: usize) -> &mut ClusterNode {
        &mut self.nodes[index]
    }

    /// Returns the URL with all nodes.
    pub fn url(&self) -> Secret {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        Secret::new(format!("redis+cluster://{}", hosts.join(",")))
    }

    /// Returns options with timeouts long enough for a busy machine.
    pub fn options(&self) -> RedisOptions {
        self.nodes[0].server.options().url(self.url())
    }

    /// Creates a client with [`options`](Self::options).
    pub fn client(&self) -> RedisClient {
        RedisClient::new(self.options()).unwrap()
    }

    /// Returns the index of the primary that has a slot, as this node knows it.
    pub async fn owner(&self, asked: usize, slot: u16) -> usize {
        let text: String = self.nodes[asked].server.command(&["CLUSTER", "NODES"]).await;
        let has_slot = |range: &str| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let [from, to] = [from, to].map(|end| end.parse::<u16>().ok());
            from.is_some_and(|from| from <= slot) && to.is_some_and(|to| slot <= to)
        };
        let line = text.lines().find(|line| line.split(' ').skip(8).any(has_slot)).unwrap();
        self.nodes.iter().position(|node| line.starts_with(&node.id)).unwrap()
    }

    /// Begins to move a slot.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let () = to.server.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id]).await;
        let () = from.server.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id]).await;
    }

    /// Moves all keys of a slot, and then the slot.
    pub async fn finish_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let port = self.nodes[to].port.to_string();
        let mut connection = self.nodes[from].connection().await;
        loop {
            let keys: Vec<String> = query(&mut connection, &["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "10000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            let _: String = query(&mut connection, &words).await;
        }
        for node in [to, from] {
            let id = &self.nodes[to].id;
            let () = self.nodes[node].server.command(&["CLUSTER", "SETSLOT", &slot, "NODE", id]).await;
        }
    }
}

impl ClusterNode {
    async fn start() -> Self {
        let bus = free_port().to_string();
        let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
        let (server, port) = RedisServer::start_on_port(&arguments).await;
        let id = server.command(&["CLUSTER", "MYID"]).await;
        Self { server, port, id }
    }

    async fn connection(&self) -> MultiplexedConnection {
        self.server.look().await
    }
}

async fn query<T: redis::FromRedisValue>(connection: &mut MultiplexedConnection, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(connection).await.unwrap()
}

pub(crate) async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}
