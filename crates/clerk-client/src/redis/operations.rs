//! The client and its operations.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, Value};
use tokio::time::{Instant, timeout};

use super::breaker::{Breaker, BreakerAdmission, Change};
use super::connect::Connector;
use super::connection::ConnectionManager;
use super::error_reply::{self, breaks_connection, is_dropped, is_replica};
use super::keys::{self, RedisChannel, RedisKey};
use super::permissions::{Command, acl_rule};
use super::refusals::{Operation, Refusals};
use super::stats::{RedisCounters, RedisStats};
use super::{ErrorReply, RedisClientError, RedisConfigError, RedisOptions, Script, Subscription};
use crate::secret::Secret;

/// A Redis client. Clones share the connection.
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
pub struct RedisClient(Arc<Inner>);

struct Inner {
    prefix: String,
    timeout: Duration,
    connect_timeout: Duration,
    target: Arc<Connector>,
    link: ConnectionManager,
    breaker: Mutex<Breaker>,
    counters: RedisCounters,
    refusals: Mutex<Refusals>,
}

/// Result of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `nil` or `false`.
    Nil,
    /// A number, or `true` as 1.
    Int(i64),
    /// A string.
    Bytes(Bytes),
    /// A table with indexes from 1, up to the first `nil`.
    List(Vec<Reply>),
}

impl Reply {
    fn read(value: Value) -> Option<Self> {
        Some(match value {
            Value::Nil => Self::Nil,
            Value::Int(number) => Self::Int(number),
            Value::BulkString(bytes) => Self::Bytes(bytes.into()),
            Value::SimpleString(text) => Self::Bytes(text.into()),
            Value::Okay => Self::Bytes(Bytes::from_static(b"OK")),
            Value::Array(values) => Self::List(values.into_iter().map(Self::read).collect::<Option<_>>()?),
            Value::Boolean(is_true) => {
                if is_true {
                    Self::Int(1)
                } else {
                    Self::Nil
                }
            }
            _ => return None,
        })
    }

    /// Returns the number, if it is one.
    #[must_use]
    pub const fn int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// Returns the bytes, if it is a string.
    #[must_use]
    pub fn into_bytes(self) -> Option<Bytes> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// Returns the entries, if it is a table.
    #[must_use]
    pub fn into_list(self) -> Option<Vec<Self>> {
        if let Self::List(entries) = self { Some(entries) } else { None }
    }
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
        let RedisOptions { prefix, timeout, connect_timeout, .. } = options;
        Ok(Self(Arc::new(Inner {
            prefix,
            timeout,
            connect_timeout,
            link: ConnectionManager::new(Arc::clone(&target), connect_timeout),
            target,
            breaker: Mutex::new(Breaker::new()),
            counters: RedisCounters::default(),
            refusals: Mutex::default(),
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
        let value: Option<Vec<u8>> = self.query(Command::Get, |command| command.arg(self.key_name(key))).await?;
        Ok(value.map(Bytes::from))
    }

    /// Sets the value of a key for `ttl`, rounded up to milliseconds, at least 1 ms.
    ///
    /// # Errors
    ///
    /// Returns an error if the value was not set, or may not have been.
    pub async fn set(&self, key: &RedisKey, value: &[u8], ttl: Duration) -> Result<(), RedisClientError> {
        self.query(Command::Set, |command| command.arg(self.key_name(key)).arg(value).arg("PX").arg(millis(ttl))).await
    }

    /// Removes keys and returns how many existed.
    ///
    /// # Errors
    ///
    /// Returns an error if they were not removed, or may not have been.
    pub async fn remove(&self, keys: &[&RedisKey]) -> Result<u64, RedisClientError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let names: Vec<_> = keys.iter().map(|key| self.key_name(key)).collect();
        self.query(Command::Unlink, |command| command.arg(&names)).await
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
        let names: Vec<_> = keys.iter().map(|key| self.key_name(key)).collect();
        let operation = Operation::Script(script.hash().into());
        let commands = |line| script.commands(line).into_iter().collect();
        let value = self.operate(&operation, commands, |mut connection| {
            let mut invocation = script.script.prepare_invoke();
            for name in &names {
                invocation.key(name);
            }
            for argument in arguments {
                invocation.arg(*argument);
            }
            async move { invocation.invoke_async::<Value>(&mut connection).await }
        });
        Reply::read(value.await?)
            .ok_or_else(|| RedisClientError::Refused(ErrorReply::Other("unexpected response".into())))
    }

    /// Sends a message to all current subscribers of the channel.
    ///
    /// # Errors
    ///
    /// Returns an error if the message was not sent, or may not have been.
    pub async fn publish(&self, channel: &RedisChannel, message: &[u8]) -> Result<(), RedisClientError> {
        let sent = self.query::<i64>(Command::Publish, |command| command.arg(self.channel_name(channel)).arg(message));
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

    /// Returns the number of connections subscribed to a channel on this server.
    pub(crate) async fn subscribers(&self, channel: &RedisChannel) -> Result<u64, RedisClientError> {
        let counts = self.query(Command::PubSubNumSub, |command| command.arg(self.channel_name(channel)));
        let (_, count): (Value, u64) = counts.await?;
        Ok(count)
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
        self.0.counters.health(is_down, refuses, self.0.link.begun())
    }

    pub(super) fn target(&self) -> &Connector {
        &self.0.target
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.0.connect_timeout
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
        arguments: impl FnOnce(&mut redis::Cmd) -> &mut redis::Cmd,
    ) -> Result<T, RedisClientError> {
        let mut built = command.build();
        arguments(&mut built);
        let built = &built;
        let commands = |_| vec![command.name().into()];
        self.operate(&Operation::Command(command), commands, |mut connection| async move {
            built.query_async(&mut connection).await
        })
        .await
    }

    /// Runs an operation within the timeout, if the breaker admits it. `commands` are those it may run.
    async fn operate<T, F>(
        &self,
        operation: &Operation,
        commands: impl FnOnce(Option<usize>) -> Vec<Box<str>>,
        work: impl Fn(MultiplexedConnection) -> F,
    ) -> Result<T, RedisClientError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let shared = &*self.0;
        shared.counters.operations.fetch_add(1, Ordering::Relaxed);
        let permit = BreakerPermit::take(shared)?;
        let result = timeout(shared.timeout, self.attempt(work)).await;
        let result = result.unwrap_or(Err(RedisClientError::Timeout { after: shared.timeout }));
        let result = result.map_err(|error| error.named(commands));
        permit.settle(result.as_ref().err());
        shared.note(operation, result.as_ref().map(|_| ()));
        result
    }

    async fn attempt<T, F>(&self, work: impl Fn(MultiplexedConnection) -> F) -> Result<T, RedisClientError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let link = &self.0.link;
        let mut is_second = false;
        loop {
            let (number, connection) = link.connection();
            let connection = connection.await.inspect_err(|_| link.discard(number))?;
            let error = match work(connection).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if breaks_connection(&error) {
                link.discard(number);
            }
            if is_replica(&error) {
                link.renew(number);
            }
            // A server closes idle connections, which is noticed only now.
            if is_second || !is_dropped(&error) {
                return Err(error.into());
            }
            is_second = true;
        }
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

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient")
            .field("prefix", &self.0.prefix)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

/// Admission by the breaker. Reports to it if the caller is dropped.
struct BreakerPermit<'a> {
    shared: &'a Inner,
    admission: Option<BreakerAdmission>,
}

impl<'a> BreakerPermit<'a> {
    fn take(shared: &'a Inner) -> Result<Self, RedisClientError> {
        let admission = shared.breaker.lock().admit(Instant::now());
        if let BreakerAdmission::Denied { left } = admission {
            let error = RedisClientError::Resting { left };
            shared.counters.failed(&error);
            return Err(error);
        }
        Ok(Self { shared, admission: Some(admission) })
    }

    fn settle(mut self, error: Option<&RedisClientError>) {
        let Some(admission) = self.admission.take() else { return };
        let change = match error {
            Some(error) if error.is_outage() => self.shared.breaker.lock().failed(admission, Instant::now()),
            // A refusal is a response too.
            _ => self.shared.breaker.lock().succeeded(),
        };
        match error {
            Some(error) => self.shared.counters.failed(error),
            None => drop(self.shared.counters.succeeded.fetch_add(1, Ordering::Relaxed)),
        }
        match (change, error) {
            (Change::WentDown, Some(error)) => {
                // A server that vanished never closes the connection.
                self.shared.link.discard_open();
                tracing::warn!(%error, "Redis is down; continuing without it");
            }
            (Change::CameBack, _) => tracing::info!("Redis is back"),
            _ => {}
        }
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        if let Some(admission) = self.admission {
            self.shared.breaker.lock().abandoned(admission, Instant::now());
        }
    }
}

impl Inner {
    fn note(&self, operation: &Operation, result: Result<(), &RedisClientError>) {
        let now = Instant::now();
        match result {
            Ok(()) => {
                let ended = self.refusals.lock().succeeded(operation, now);
                for refusal in ended {
                    tracing::info!(class = refusal.class().as_str(), "Redis accepts operations again");
                }
            }
            Err(RedisClientError::Refused(_)) if operation.is_optional() => {}
            Err(RedisClientError::Refused(refusal)) => {
                if self.refusals.lock().refused(operation, refusal, now) {
                    self.warn(refusal);
                }
            }
            // It is unknown whether it would have been refused.
            Err(_) => {}
        }
    }

    fn warn(&self, refusal: &ErrorReply) {
        let class = refusal.class().as_str();
        match refusal {
            ErrorReply::Permission(_) | ErrorReply::UnknownCommand(_) => {
                let needed = acl_rule(&self.prefix);
                tracing::warn!(class, %refusal, needed, "Redis refuses operations; continuing without them");
            }
            _ => tracing::warn!(class, %refusal, "Redis refuses operations; continuing without them"),
        }
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64)
}
