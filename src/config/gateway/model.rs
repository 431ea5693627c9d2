//! The gateway's configuration as plain, checked values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::Priority;
use clerk_client::secret::SecretSource;
use prometheus_web::ListenAddress;

use crate::gateway::Mode;

/// The gateway: listen address, callers and policies.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// Listen address. Clear text only if no other host can intercept it, or if explicitly allowed.
    pub listen: ListenAddress,
    /// TLS configuration of the port: a Prometheus web configuration file.
    pub web_config_file: Option<PathBuf>,
    /// Handling of requests whose key belongs to no configured instance.
    pub unknown_keys: UnknownKeyMode,
    /// Whether HTTP/2 is offered to Clerk (ALPN). With HTTP/1.1 a request that takes too long is ended by closing its
    /// connection; HTTP/2 needs fewer connections.
    pub upstream_http2: bool,
    /// Whether this gateway is the only one, so that all requests of the applications pass through it and counting them
    /// yields the remaining quota. Several gateways count together through Redis, if configured.
    pub sole: bool,
    /// Maximum time in the limiter's queue before a request is rejected with 429; 1 ms to 60 s.
    pub max_wait: Duration,
    /// Maximum number of requests in flight per instance, if paced; 1 to 65,536.
    pub max_in_flight: usize,
    /// Applications that authenticate with their own token instead of a Clerk key.
    pub callers: Vec<CallerConfig>,
    /// Default policies.
    pub policies: PolicyConfig,
    /// Policies of single routes, by method and template of the catalogue.
    pub routes: BTreeMap<(&'static str, &'static str), PolicyConfig>,
    /// Where cached responses are stored.
    pub cache: CacheStoreConfig,
    /// Clerk's webhooks, which invalidate cached responses.
    pub webhooks: Option<WebhooksConfig>,
    /// The file of the access log. `None`: no log.
    pub access_log: Option<PathBuf>,
    /// Whether the context of the applications' traces is sent to Clerk.
    pub forward_trace_context: bool,
}

/// Handling of requests whose key belongs to no configured instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownKeyMode {
    /// Forwarded and counted as instance `other`, without policies.
    Forward,
    /// Rejected with 401.
    Reject,
}

/// An application with its own token.
#[derive(Clone, Debug, PartialEq)]
pub struct CallerConfig {
    /// The caller name in labels.
    pub name: Arc<str>,
    /// The token, at least 16 bytes. It was readable when the configuration was checked.
    pub token: SecretSource,
    /// The instance whose key replaces the token.
    pub instance: Arc<str>,
    /// Priority in the limiter's queue.
    pub priority: Priority,
    /// Part of the limit that is guaranteed to it, 0 to 1. All callers with this name and instance have the same.
    pub min_share: f64,
    /// Largest part of the limit, above 0, at most 1, and not below `min_share`.
    pub max_share: f64,
    /// Maximum time in the limiter's queue in place of the gateway's; 1 ms to 60 s.
    pub max_wait: Option<Duration>,
}

/// Policies of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyConfig {
    /// Retries failed reads.
    pub retry: Mode,
    /// Coalesces identical concurrent reads.
    pub coalesce: Mode,
    /// Caches responses.
    pub cache: CachePolicyConfig,
    /// Batches concurrent lookups of single users into one list request.
    pub batch: Mode,
    /// Queues requests for the rate limit.
    pub pace: PacePolicyConfig,
    /// Coalesces and keeps verifications of tokens.
    pub verify: VerifyPolicyConfig,
}

/// Policy of verifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyPolicyConfig {
    /// Whether successes are kept.
    pub mode: Mode,
    /// Maximum age, and so how long a token may be accepted after its revocation elsewhere; 1 s to 5 min.
    pub ttl: Duration,
}

/// Caching policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePolicyConfig {
    /// Whether responses are cached.
    pub mode: Mode,
    /// Maximum age; 1 s to 24 h.
    pub ttl: Duration,
}

/// Pacing policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacePolicyConfig {
    /// Whether requests are paced.
    pub mode: Mode,
    /// Share of the limit reserved for callers of high priority, 0 to 0.5.
    pub reserve: f64,
}

impl Default for PolicyConfig {
    /// Retries and coalesces reads, which is safe; policies with larger effects start in shadow mode.
    fn default() -> Self {
        Self {
            retry: Mode::On,
            coalesce: Mode::On,
            cache: CachePolicyConfig { mode: Mode::Shadow, ttl: Duration::from_secs(60) },
            batch: Mode::Shadow,
            pace: PacePolicyConfig { mode: Mode::Shadow, reserve: 0.1 },
            // It changes how soon a revocation elsewhere takes effect.
            verify: VerifyPolicyConfig { mode: Mode::Off, ttl: Duration::from_secs(60) },
        }
    }
}

/// Storage of cached responses.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheStoreConfig {
    /// Memory for responses, in bytes; 1 MiB to 64 GiB.
    pub memory_bytes: u64,
    /// Key that encrypts values in Redis. `None`: no encryption.
    pub encryption_key: Option<SecretSource>,
}

/// Clerk's webhooks.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhooksConfig {
    /// The path of the endpoint.
    pub path: String,
    /// Signing secrets, at least one; several for several instances, or during rotation.
    pub signing_secrets: Vec<SecretSource>,
}
