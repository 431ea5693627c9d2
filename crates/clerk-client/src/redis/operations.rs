//! The client and its operations.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clerk_quota::clock::Clock;
use parking_lot::Mutex;
use redis::{FromRedisValue, RedisError, Value};
use tokio::time::Instant;

use super::address::NodeAddress;
use super::breaker::Breaker;
use super::call::{Call, ScriptCall};
use super::connect::Connector;
use super::error_reply;
use super::keys::{self, RedisChannel, RedisKey};
use super::nodes::Nodes;
use super::permissions::Command;
use super::refusals::{Operation, Refusals};
use super::slots::{Node, slot};
use super::stats::{RedisCounters, RedisStats};
use super::{ErrorReply, RedisClientError, RedisConfigError, RedisOptions, Reply, Script, Subscription};
use crate::secret::Secret;

/// A Redis client. Clones share the connection; a cluster has one for each node in use.
///
/// Every operation ends within [`RedisOptions::timeout`]. After 5 failures in a row, operations fail at once for 1 s,
/// doubling up to 30 s while the server is down; then a single operation tries again. If the connection turns out to be
/// closed, an operation is retried once on a new one. So it may run twice, and scripts must tolerate that.
///
/// Every key has a TTL.
///
/// ```
/// use clerk_client::secret::Secret;
/// use clerk_client::redis::{InstanceKeys, RedisOptions, RedisClient};
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let redis = RedisClient::new(RedisOptions::new(Secret::new("redis://127.0.0.1".to_owned())))?;
/// let key = InstanceKeys::new("prod").key(&["greeting"]);
/// redis.set(&key, b"hello", Duration::from_secs(60)).await?;
/// assert_eq!(redis.get(&key).await?.as_deref(), Some(&b"hello"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisClient(pub(super) Arc<ClientInner>);

pub(super) struct ClientInner {
    pub(super) prefix: String,
    pub(super) timeout: Duration,
    connect_timeout: Duration,
    max_age: Duration,
    pub(super) target: Arc<Connector>,
    pub(super) nodes: Nodes,
    pub(super) breaker: Mutex<Breaker>,
    pub(super) counters: RedisCounters,
    pub(super) refusals: Mutex<Refusals>,
    clock: Arc<Clock>,
    /// Servers that refuse `TIME` in scripts, so that scripts use the clock of this process.
    pub(super) refusing_time: Mutex<HashSet<NodeAddress>>,
}

impl RedisClient {
    /// Creates a client. Nothing is sent before the first operation.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL, the prefix or the certificates are invalid. The message does not contain the URL.
    pub fn new(options: RedisOptions) -> Result<Self, RedisConfigError> {
        keys::check_prefix(&options.prefix)?;
        let target = Arc::new(Connector::new(&options)?);
        let RedisOptions { prefix, timeout, connect_timeout, max_connection_age: max_age, clock, .. } = options;
        Ok(Self(Arc::new(ClientInner {
            prefix,
            timeout,
            connect_timeout,
            max_age,
            nodes: Nodes::new(Arc::clone(&target), max_age),
            target,
            breaker: Mutex::new(Breaker::new()),
            counters: RedisCounters::default(),
            refusals: Mutex::default(),
            clock,
            refusing_time: Mutex::default(),
        })))
    }

    /// Returns the key with the prefix, as the server sees it.
    #[must_use]
    pub fn key_name(&self, key: &RedisKey) -> String {
        key.with_prefix(&self.0.prefix)
    }

    /// Returns the channel with the prefix, as the server sees it. A script that publishes needs it as an argument.
    #[must_use]
    pub fn channel_name(&self, channel: &RedisChannel) -> String {
        channel.with_prefix(&self.0.prefix)
    }

    /// Returns the timeout of an operation.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Returns the value of a key; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns an error if the value could not be read.
    pub async fn get(&self, key: &RedisKey) -> Result<Option<Bytes>, RedisClientError> {
        let name = self.key_name(key);
        let value: Option<Vec<u8>> = self.query(Command::Get, &name, |command| command.arg(&name)).await?;
        Ok(value.map(Bytes::from))
    }

    /// Sets the value of a key for `ttl`, rounded up to milliseconds, at least 1 ms.
    ///
    /// # Errors
    ///
    /// Returns an error if the value was not set, or may not have been.
    pub async fn set(&self, key: &RedisKey, value: &[u8], ttl: Duration) -> Result<(), RedisClientError> {
        let name = self.key_name(key);
        self.query(Command::Set, &name, |command| command.arg(&name).arg(value).arg("PX").arg(millis(ttl))).await
    }

    /// Removes keys and returns how many existed. In a cluster, all of them must belong to one instance.
    ///
    /// # Errors
    ///
    /// Returns an error if they were not removed, or may not have been.
    pub async fn remove(&self, keys: &[&RedisKey]) -> Result<u64, RedisClientError> {
        let names: Vec<_> = keys.iter().map(|key| self.key_name(key)).collect();
        let Some(first) = names.first() else { return Ok(0) };
        self.query(Command::Unlink, first, |command| command.arg(&names)).await
    }

    /// Runs a script. All keys must belong to one instance, and keys that it creates need a TTL.
    ///
    /// # Errors
    ///
    /// Returns an error if the script did not run to its end, or may not have.
    pub async fn run(
        &self,
        script: &Script,
        keys: &[&RedisKey],
        arguments: &[&[u8]],
    ) -> Result<Reply, RedisClientError> {
        self.run_script(script, keys, None, arguments).await
    }

    /// Runs a [`Script::timed_by_log`] with this log.
    pub(crate) async fn run_by_log(
        &self,
        script: &Script,
        keys: &[&RedisKey],
        log: &RedisKey,
        arguments: &[&[u8]],
    ) -> Result<Reply, RedisClientError> {
        self.run_script(script, keys, Some(log), arguments).await
    }

    async fn run_script(
        &self,
        script: &Script,
        keys: &[&RedisKey],
        log: Option<&RedisKey>,
        arguments: &[&[u8]],
    ) -> Result<Reply, RedisClientError> {
        let names: Vec<_> = keys.iter().map(|key| self.key_name(key)).collect();
        let log = log.map(|key| self.key_name(key));
        let operation = Operation::Script(script.hash().into());
        let commands = |line| script.commands(line).into_iter().collect();
        let call = Call::Script(ScriptCall { script, keys: &names, log, arguments, clock: &self.0.clock });
        let value = self.operate(&operation, commands, &call).await;
        Reply::read(value?).ok_or_else(|| RedisClientError::Refused(ErrorReply::Other("unexpected response".into())))
    }

    /// Sends a message to all current subscribers of the channel.
    ///
    /// # Errors
    ///
    /// Returns an error if the message was not sent, or may not have been.
    pub async fn publish(&self, channel: &RedisChannel, message: &[u8]) -> Result<(), RedisClientError> {
        let name = self.channel_name(channel);
        let sent = self.query::<i64>(Command::Publish, &name, |command| command.arg(&name).arg(message));
        sent.await.map(drop)
    }

    /// Records whether a script could publish. Returns the refusal, if any.
    pub(crate) fn published(&self, refused: Option<&str>) -> Option<RedisClientError> {
        let operation = Operation::Command(Command::Publish);
        let Some(line) = refused else {
            self.note(&operation, Ok(()));
            return None;
        };
        let error = error_reply::classify(line).named(|_| vec![Command::Publish.name().into()]);
        self.note(&operation, Err(&error));
        Some(error)
    }

    /// Returns the number of connections subscribed to a channel. `None` in a cluster, of which each node knows only its
    /// own.
    pub(crate) async fn subscribers(&self, channel: &RedisChannel) -> Result<Option<u64>, RedisClientError> {
        let name = self.channel_name(channel);
        let counts = self.query(Command::PubSubNumSub, &name, |command| command.arg(&name));
        let (_, count): (Value, u64) = counts.await?;
        Ok(Some(count).filter(|_| !self.0.nodes.is_cluster()))
    }

    /// Subscribes to a channel on a separate connection. Nothing is sent before the first [`next`](Subscription::next).
    #[must_use]
    pub fn subscribe(&self, channel: &RedisChannel) -> Subscription {
        Subscription::new(self.clone(), self.channel_name(channel))
    }

    /// Returns state and counters.
    #[must_use]
    pub fn health(&self) -> RedisStats {
        let is_down = !self.0.breaker.lock().is_closed();
        let refuses = self.0.refusals.lock().by_class();
        self.0.counters.health(is_down, refuses, self.0.nodes.begun())
    }

    pub(super) fn target(&self) -> &Connector {
        &self.0.target
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.0.connect_timeout
    }

    pub(super) fn max_age(&self) -> Duration {
        self.0.max_age
    }

    /// Returns the server to subscribe to a channel at. In a cluster it is the one that scripts of the same instance
    /// publish at: its messages depend on no other node.
    pub(super) async fn locate(&self, channel: &str) -> Node {
        let nodes = &self.0.nodes;
        if nodes.is_cluster() && nodes.node(slot(channel)) == Node::Entry {
            // The name of the channel as a key: the response does not matter, but that a node redirects it.
            let _ = self.query::<Value>(Command::Get, channel, |command| command.arg(channel)).await;
        }
        nodes.node(slot(channel))
    }

    /// Whether a channel belongs to another server, as far as known.
    pub(super) fn has_moved(&self, channel: &str, node: &Node) -> bool {
        let now = self.0.nodes.node(slot(channel));
        now != Node::Entry && now != *node
    }

    /// A server that had been subscribed to, or was to be, is lost.
    pub(super) fn lost(&self, node: &Node) {
        self.0.nodes.lost(node);
    }

    /// The server was reached by a subscription: the next operation may try.
    pub(super) fn reached(&self) {
        self.0.breaker.lock().hint(Instant::now());
    }

    /// Records whether the server refuses an operation, and logs when that begins or ends.
    pub(super) fn note(&self, operation: &Operation, result: Result<(), &RedisClientError>) {
        self.0.note(operation, result);
    }

    async fn query<T: FromRedisValue>(
        &self,
        command: Command,
        name: &str,
        arguments: impl FnOnce(&mut redis::Cmd) -> &mut redis::Cmd,
    ) -> Result<T, RedisClientError> {
        let mut built = command.build();
        arguments(&mut built);
        let call = Call::command(name, built);
        let commands = |_| vec![command.name().into()];
        let value = self.operate(&Operation::Command(command), commands, &call).await?;
        // A response of another kind is a fault of the server, like an error that is not known.
        T::from_redis_value(value).map_err(|error| RedisError::from(error).into())
    }
}

/// A client with the default [`RedisOptions`] for a URL.
impl TryFrom<&str> for RedisClient {
    type Error = RedisConfigError;

    fn try_from(url: &str) -> Result<Self, RedisConfigError> {
        Self::new(RedisOptions::new(Secret::from(url)))
    }
}

impl TryFrom<String> for RedisClient {
    type Error = RedisConfigError;

    fn try_from(url: String) -> Result<Self, RedisConfigError> {
        Self::new(RedisOptions::new(Secret::new(url)))
    }
}

/// A client with these options, as [`RedisClient::new`] creates it.
impl TryFrom<RedisOptions> for RedisClient {
    type Error = RedisConfigError;

    fn try_from(options: RedisOptions) -> Result<Self, RedisConfigError> {
        Self::new(options)
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient")
            .field("prefix", &self.0.prefix)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64)
}
