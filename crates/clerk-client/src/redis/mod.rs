//! A Redis (or Valkey) client for state shared by several processes: one connection to each server, bounded waits.
//!
//! Redis is optional. A [`RedisClient`] is created without contacting the server, connects at its first operation, and
//! completes each operation within [`RedisOptions::timeout`] whatever the server does: refusing, hanging, out of
//! memory, or restarted at another address. Callers continue without the result.
//!
//! The server is a single one, the primary that sentinels name, or a cluster.
//!
//! - `address`: what a URL says. Pure. `password`: a password that is read at each connect.
//! - `connect`: opens connections over TCP, TLS or a Unix socket, and logs in. `sentinel`: asks for the primary.
//! - `connection`: the connection to a server, opened in the background and replaced when it breaks or is old.
//! - `nodes`: the connections to all servers. `slots`: which server of a cluster has a key. Pure.
//! - `breaker`: a circuit breaker. Pure.
//! - `operations`: the client's operations. `call`: what is sent for one. `attempt`: runs it in time.
//! - `scripts`: the Lua scripts. `reply`: what they return. `keys`: names of keys and channels.
//! - `permissions`: the rights needed for them.
//! - `subscription`: messages of other processes.
//! - `error`, `error_reply`, `stats`: errors, the meaning of the server's error replies, and counters.
//! - `refusals`: what the server currently refuses. Pure.
//!
//! This module uses [`secret`](crate::secret) only.

mod address;
mod attempt;
mod breaker;
mod call;
mod connect;
mod connection;
mod error;
mod error_reply;
mod keys;
mod nodes;
mod operations;
mod password;
mod permissions;
mod refusals;
mod reply;
pub(crate) mod scripts;
mod sentinel;
mod slots;
mod stats;
mod subscription;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clerk_quota::clock::Clock;

pub use error::{ErrorReply, MissingRight, RedisClientError, RedisConfigError, RefusalClass};
pub use keys::{InstanceKeys, RedisChannel, RedisKey, SCHEMA_VERSION};
pub use operations::RedisClient;
pub use password::RedisPassword;
pub use permissions::acl_rule;
pub use reply::Reply;
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
    /// A server: `redis://[[user]:password@]host[:port][/database]`, `rediss://` for TLS, or
    /// `unix:///path[?db=&user=&pass=]`. If it belongs to a cluster, the others are found.
    ///
    /// Several nodes of a cluster, in case one is lost: `redis+cluster://[[user]:password@]host[:port][,host[:port]…]`, or
    /// `rediss+cluster://`.
    ///
    /// Sentinels, with the name of the primary:
    /// `redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/name[/database]`, or `rediss+sentinel://` for TLS to
    /// sentinels and servers. `?sentinel_username=…&sentinel_password=…` are for the sentinels.
    ///
    /// In all of them, `valkey` may be written for `redis`. Secret because of the password.
    pub url: Secret,
    /// Where the password is read at each connect, instead of the URL.
    pub password: Option<RedisPassword>,
    /// Prefix of all keys and channels, so that several programs can share a server: printable ASCII without `{`.
    pub prefix: String,
    /// Timeout of an operation, including connecting.
    pub timeout: Duration,
    /// Timeout of connecting. Connecting continues in the background after the operation that started it timed out.
    pub connect_timeout: Duration,
    /// Connections are replaced before they are older, without failing an operation: some servers end them after 12 hours,
    /// and a password may change.
    pub max_connection_age: Duration,
    /// The clock for servers that refuse `TIME` in scripts.
    pub clock: Arc<Clock>,
    /// CA certificates (PEM) for a `rediss://` server. `None`: those of the system.
    pub authorities: Option<Vec<u8>>,
}

setters!(RedisOptions {
    url: Secret,
    password: impl Into<Option<RedisPassword>>,
    prefix: impl Into<String>,
    timeout: Duration,
    connect_timeout: Duration,
    max_connection_age: Duration,
    clock: Arc<Clock>,
    authorities: impl Into<Option<Vec<u8>>>,
});

impl RedisOptions {
    /// Defaults: [`DEFAULT_PREFIX`], the password of the URL, 100 ms per operation, 1 s for connecting, 10 h for the age of
    /// a connection, CA certificates of the system.
    #[must_use]
    pub fn new(url: Secret) -> Self {
        Self {
            url,
            password: None,
            prefix: DEFAULT_PREFIX.to_owned(),
            timeout: Duration::from_millis(100),
            connect_timeout: Duration::from_secs(1),
            max_connection_age: Duration::from_secs(10 * 3600),
            clock: Arc::new(Clock::new()),
            authorities: None,
        }
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("url", &self.url)
            .field("password", &self.password)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_connection_age", &self.max_connection_age)
            .finish_non_exhaustive()
    }
}
