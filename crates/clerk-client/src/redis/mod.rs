//! A Redis (or Valkey) client for state shared by several processes: one server, one connection, bounded waits.
//!
//! Redis is optional. A [`RedisClient`] is created without contacting the server, connects at its first operation, and
//! completes each operation within [`RedisOptions::timeout`] whatever the server does: refusing, hanging, out of
//! memory, or restarted at another address. Callers continue without the result.
//!
//! - `connect`: the server's address; opens connections over TCP, TLS or a Unix socket.
//! - `connection`: the connection, opened in the background and replaced when it breaks.
//! - `breaker`: a circuit breaker. Pure.
//! - `operations`: the client's operations. `scripts`: the Lua scripts. `keys`: names of keys and channels.
//! - `permissions`: the rights needed for them.
//! - `subscription`: messages of other processes.
//! - `error`, `error_reply`, `stats`: errors, the meaning of the server's error replies, and counters.
//! - `refusals`: what the server currently refuses. Pure.
//!
//! Redis Cluster is not supported. A primary with replicas behind one address is.
//!
//! This module uses [`secret`](crate::secret) only.

mod breaker;
mod connect;
mod connection;
mod error;
mod error_reply;
mod keys;
mod operations;
mod permissions;
mod refusals;
pub(crate) mod scripts;
mod stats;
mod subscription;

use std::fmt;
use std::time::Duration;

pub use error::{ErrorReply, MissingRight, RedisClientError, RedisConfigError, RefusalClass};
pub use keys::{InstanceKeys, RedisChannel, RedisKey, SCHEMA_VERSION};
pub use operations::{RedisClient, Reply};
pub use permissions::acl_rule;
pub use scripts::Script;
pub use stats::{RedisState, RedisStats};
pub use subscription::{Subscription, SubscriptionEvent};

use crate::secret::Secret;

/// Default prefix of keys and channels.
pub const DEFAULT_PREFIX: &str = "clerk-exporter:";

/// Options of a [`RedisClient`].
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisOptions {
    /// `redis://[[user]:password@]host[:port][/database]`, `rediss://` for TLS, or `unix:///path[?db=&user=&pass=]`.
    /// `valkey://` and `valkeys://` are synonyms. Secret because of the password.
    pub url: Secret,
    /// Prefix of all keys and channels, so that several programs can share a server: printable ASCII without `{`.
    pub prefix: String,
    /// Timeout of an operation, including connecting.
    pub timeout: Duration,
    /// Timeout of connecting. Connecting continues in the background after the operation that started it timed out.
    pub connect_timeout: Duration,
    /// CA certificates (PEM) for a `rediss://` server. `None`: those of the system.
    pub authorities: Option<Vec<u8>>,
}

setters!(RedisOptions {
    url: Secret,
    prefix: impl Into<String>,
    timeout: Duration,
    connect_timeout: Duration,
    authorities: impl Into<Option<Vec<u8>>>,
});

impl RedisOptions {
    /// Defaults: [`DEFAULT_PREFIX`], 100 ms per operation, 1 s for connecting, CA certificates of the system.
    #[must_use]
    pub fn new(url: Secret) -> Self {
        Self {
            url,
            prefix: DEFAULT_PREFIX.to_owned(),
            timeout: Duration::from_millis(100),
            connect_timeout: Duration::from_secs(1),
            authorities: None,
        }
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("url", &self.url)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}
