//! The Redis (or Valkey) that several processes share: one server, one connection, and an end to every wait.
//!
//! Nothing here is needed for the program to work. A [`RedisClient`] is made without a server, connects at its first
//! operation, and answers each operation within [`RedisOptions::timeout`] whatever the server does: refused, stopped, full,
//! or gone and back at another address. Those who use it go on without what they asked for.
//!
//! - `connect`: where the server is and how a connection is opened, over TCP, TLS or a Unix socket.
//! - `connection`: the one connection, opened in the background and replaced when it breaks.
//! - `breaker`: whether to ask at all. Pure.
//! - `operations`: what can be asked. `scripts`: what runs in the server. `keys`: the names of keys and channels.
//! - `permissions`: which rights all of that needs.
//! - `subscription`: messages of other processes.
//! - `error`, `error_reply`, `stats`: what went wrong, what the server means by it, and how often.
//! - `refusals`: what the server refuses for the time being. Pure.
//!
//! Redis Cluster is not supported. A primary with replicas behind one address is.
//!
//! This room uses [`secret`](crate::secret) only.

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

/// What keys and channels begin with unless something else is wanted.
pub const DEFAULT_PREFIX: &str = "clerk-exporter:";

/// How to reach the server.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[[user]:password@]host[:port][/database]`, `rediss://` for TLS, or `unix:///path[?db=&user=&pass=]`.
    /// `valkey://` and `valkeys://` mean the same. Secret because of the password.
    pub url: Secret,
    /// What all keys and channels begin with, so that several programs can share a server: printable ASCII without `{`.
    pub prefix: String,
    /// How long an operation may take, connecting included.
    pub timeout: Duration,
    /// How long opening a connection may take. It goes on in the background when the operation that asked for it has
    /// given up.
    pub connect_timeout: Duration,
    /// Certificates (PEM) of the authorities that may vouch for a `rediss://` server. `None`: those that the system
    /// trusts.
    pub authorities: Option<Vec<u8>>,
}

impl RedisOptions {
    /// The usual prefix, 100 ms for an operation and 1 s for a connection.
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
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}
