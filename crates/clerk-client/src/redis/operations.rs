//! What can be asked of the server, and how each question comes to an end.

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
use super::error::{breaks_connection, is_dropped, is_replica};
use super::stats::{RedisCounters, RedisStats};
use super::{ErrorReply, RedisClientError, RedisConfigError, RedisOptions, Subscription};

/// How long a refusal of the same kind is not logged again.
const QUIET: Duration = Duration::from_secs(600);

/// The way to the server. Clones share it.
///
/// Every operation ends within [`RedisOptions::timeout`]. After 5 failures in a row, operations fail at once for 1 s, which
/// grows to 30 s as long as the server stays away; then one operation tries again. An operation whose connection turns
/// out to be gone is repeated once on a new one, so it may be done twice: scripts have to bear that.
///
/// Every key has a time to live. Keys and channels are given without the prefix.
///
/// ```
/// use clerk_client::secret::Secret;
/// use clerk_client::redis::{RedisOptions, RedisClient};
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let redis = RedisClient::new(RedisOptions::new(Secret::new("redis://127.0.0.1".to_owned())))?;
/// redis.set("greeting", b"hello", Duration::from_secs(60)).await?;
/// assert_eq!(redis.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
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
    /// The refusal that was logged last, and when.
    logged: Mutex<Option<(ErrorReply, Instant)>>,
}

/// A Lua script. Sent by its hash, and whole when the server does not know it.
pub struct Script(redis::Script);

impl Script {
    /// A script with this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(redis::Script::new(text))
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.0.get_hash()).finish()
    }
}

/// What a script returned.
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

    /// The number, if it is one.
    #[must_use]
    pub const fn int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The bytes, if it is some.
    #[must_use]
    pub fn into_bytes(self) -> Option<Bytes> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The entries, if it is a table.
    #[must_use]
    pub fn into_list(self) -> Option<Vec<Self>> {
        if let Self::List(entries) = self { Some(entries) } else { None }
    }
}

impl RedisClient {
    /// Makes the way to a server, which need not be there. Nothing is sent before the first operation.
    ///
    /// # Errors
    ///
    /// If the URL or the certificates cannot be used. The message does not show the URL.
    pub fn new(options: RedisOptions) -> Result<Self, RedisConfigError> {
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
            logged: Mutex::default(),
        })))
    }

    /// The key or channel as the server knows it: with the prefix. For names that a script needs as an argument.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.0.prefix)
    }

    /// How long an operation may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// The value of a key; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the server could not say.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, RedisClientError> {
        let mut command = redis::cmd("GET");
        command.arg(self.name(key));
        let value: Option<Vec<u8>> = self.query(&command).await?;
        Ok(value.map(Bytes::from))
    }

    /// Sets the value of a key for `ttl`, rounded up to milliseconds, at least 1 ms.
    ///
    /// # Errors
    ///
    /// If it was not set, or may not have been.
    pub async fn set(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), RedisClientError> {
        let mut command = redis::cmd("SET");
        command.arg(self.name(key)).arg(value).arg("PX").arg(millis(ttl));
        self.query(&command).await
    }

    /// Removes keys and says how many there were.
    ///
    /// # Errors
    ///
    /// If they were not removed, or may not have been.
    pub async fn remove(&self, keys: &[&str]) -> Result<u64, RedisClientError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut command = redis::cmd("UNLINK");
        for key in keys {
            command.arg(self.name(key));
        }
        self.query(&command).await
    }

    /// Runs a script with these keys and arguments. Keys that it makes need a time to live.
    ///
    /// # Errors
    ///
    /// If it was not run to its end, or may not have been.
    pub async fn run(&self, script: &Script, keys: &[&str], arguments: &[&[u8]]) -> Result<Reply, RedisClientError> {
        let names: Vec<_> = keys.iter().map(|key| self.name(key)).collect();
        let value = self.operate(|mut connection| {
            let mut invocation = script.0.prepare_invoke();
            for name in &names {
                invocation.key(name);
            }
            for argument in arguments {
                invocation.arg(*argument);
            }
            async move { invocation.invoke_async::<Value>(&mut connection).await }
        });
        Reply::read(value.await?)
            .ok_or_else(|| RedisClientError::Refused(ErrorReply::Other("unexpected answer".into())))
    }

    /// Sends a message to all who are subscribed to the channel now.
    ///
    /// # Errors
    ///
    /// If it was not sent, or may not have been.
    pub async fn publish(&self, channel: &str, message: &[u8]) -> Result<(), RedisClientError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.name(channel)).arg(message);
        self.query::<i64>(&command).await.map(drop)
    }

    /// The messages of a channel, on a connection of their own. Nothing is sent before the first
    /// [`next`](Subscription::next).
    #[must_use]
    pub fn subscribe(&self, channel: &str) -> Subscription {
        Subscription::new(self.clone(), self.name(channel))
    }

    /// Whether the server answers, and how often it did not.
    #[must_use]
    pub fn health(&self) -> RedisStats {
        let is_down = !self.0.breaker.lock().is_closed();
        self.0.counters.health(is_down, self.0.link.begun())
    }

    pub(super) fn target(&self) -> &Connector {
        &self.0.target
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.0.connect_timeout
    }

    /// The server was reached on another way: the next operation may try.
    pub(super) fn reached(&self) {
        self.0.breaker.lock().hint(Instant::now());
    }

    async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, RedisClientError> {
        self.operate(|mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// Does something on the connection, within the time, if the breaker lets it.
    async fn operate<T, F>(&self, work: impl Fn(MultiplexedConnection) -> F) -> Result<T, RedisClientError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let shared = &*self.0;
        shared.counters.operations.fetch_add(1, Ordering::Relaxed);
        let ticket = BreakerPermit::take(shared)?;
        let result = timeout(shared.timeout, self.attempt(work)).await;
        let result = result.unwrap_or(Err(RedisClientError::Timeout { after: shared.timeout }));
        ticket.settle(result.as_ref().err());
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
            // A server closes connections that were idle, and that shows only now.
            if is_second || !is_dropped(&error) {
                return Err(error.into());
            }
            is_second = true;
        }
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("prefix", &self.0.prefix).field("health", &self.health()).finish_non_exhaustive()
    }
}

/// The breaker's leave to operate. Tells the breaker when the caller gives up.
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
            // A refusal is an answer, too.
            _ => self.shared.breaker.lock().succeeded(),
        };
        if let Some(error) = error {
            self.shared.counters.failed(error);
        }
        match (change, error) {
            (Change::WentDown, Some(error)) => {
                // A server that went without a word never closes the connection.
                self.shared.link.discard_open();
                tracing::warn!(%error, "Redis is down, going on without it");
            }
            (Change::CameBack, _) => tracing::info!("Redis is back"),
            _ => {}
        }
        if let Some(RedisClientError::Refused(refusal)) = error {
            self.shared.log_refusal(refusal);
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
    fn log_refusal(&self, refusal: &ErrorReply) {
        let now = Instant::now();
        let mut logged = self.logged.lock();
        if logged.as_ref().is_some_and(|(last, at)| last == refusal && now.duration_since(*at) < QUIET) {
            return;
        }
        *logged = Some((refusal.clone(), now));
        tracing::warn!(%refusal, "Redis refuses operations, going on without them");
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64)
}
