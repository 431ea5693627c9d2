//! The gateway's configuration as plain, checked values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::Priority;
use clerk_client::secret::SecretSource;
use prometheus_web::ListenAddress;

use crate::gateway::Mode;

/// The gateway: where it listens, for whom, and what it may do beyond handing on.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// Where it listens. Clear text only where no other host can listen in, or where that is said to be intended.
    pub listen: ListenAddress,
    /// TLS of its port: a web configuration file as Prometheus exporters have it.
    pub web_config_file: Option<PathBuf>,
    /// What becomes of requests with keys of no configured instance.
    pub unknown_keys: UnknownKeyMode,
    /// Whether HTTP/2 is offered to Clerk (ALPN). HTTP/1.1 closes what takes too long; HTTP/2 needs fewer connections.
    pub upstream_http2: bool,
    /// Whether this gateway is the only one: all that the applications send to Clerk passes here, so that a count of it tells
    /// what is left. Several gateways count together in Redis, where there is one.
    pub sole: bool,
    /// Longest time that a request waits for the rate limit before it is answered with a 429 of ours; 1 ms to 60 s.
    pub max_wait: Duration,
    /// Most requests to an instance that wait for Clerk at the same time, where they are paced; 1 to 65 536.
    pub max_in_flight: usize,
    /// Who may come with a token of its own in place of a Clerk key.
    pub callers: Vec<CallerConfig>,
    /// What is done to requests, unless their route says otherwise.
    pub policies: PolicyConfig,
    /// What is done to requests of these routes, by method and template of the catalogue.
    pub routes: BTreeMap<(&'static str, &'static str), PolicyConfig>,
    /// Where cached answers are kept.
    pub cache: CacheStoreConfig,
    /// Clerk's webhooks, which say what to forget.
    pub webhooks: Option<WebhooksConfig>,
}

/// What becomes of requests with keys of no configured instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownKeyMode {
    /// They are handed on and counted as instance `other`; no policy applies.
    Forward,
    /// They are answered with 401.
    Reject,
}

/// An application with a token of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct CallerConfig {
    /// The name that labels carry.
    pub name: Arc<str>,
    /// The token, at least 16 bytes. It was readable when the configuration was checked.
    pub token: SecretSource,
    /// The instance whose key takes the token's place.
    pub instance: Arc<str>,
    /// Who goes first.
    pub priority: Priority,
}

/// What is done to requests beyond handing them on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyConfig {
    /// Failed reads are sent again.
    pub retry: Mode,
    /// Identical reads at the same time are one.
    pub coalesce: Mode,
    /// Answers are kept.
    pub cache: CachePolicyConfig,
    /// Look-ups of single users at the same time are one list.
    pub batch: Mode,
    /// Requests wait for the rate limit.
    pub pace: PacePolicyConfig,
}

/// How answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePolicyConfig {
    /// Whether.
    pub mode: Mode,
    /// How long; 1 s to 24 h.
    pub ttl: Duration,
}

/// How requests wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacePolicyConfig {
    /// Whether.
    pub mode: Mode,
    /// Share of the limit that callers of low priority leave to others, 0 to 0.5.
    pub reserve: f64,
}

impl Default for PolicyConfig {
    /// Safe reads are repeated and shared; what changes more is only counted until it is asked for.
    fn default() -> Self {
        Self {
            retry: Mode::On,
            coalesce: Mode::On,
            cache: CachePolicyConfig { mode: Mode::Shadow, ttl: Duration::from_secs(60) },
            batch: Mode::Shadow,
            pace: PacePolicyConfig { mode: Mode::Shadow, reserve: 0.1 },
        }
    }
}

/// Where cached answers are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheStoreConfig {
    /// Memory for answers; 1 MiB to 64 GiB.
    pub memory_bytes: u64,
    /// The URL of a Redis that gateways share. `None` is memory alone.
    pub redis_url: Option<SecretSource>,
    /// The key that values in Redis are encrypted with. `None` is not at all.
    pub encryption_key: Option<SecretSource>,
}

/// Clerk's webhooks.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhooksConfig {
    /// The path of the endpoint.
    pub path: String,
    /// Signing secrets, at least one; of several instances, or two while one is being replaced.
    pub signing_secrets: Vec<SecretSource>,
}
