//! The options of a gateway.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::policy::InstancePolicies;
use crate::gateway::accounting::access_log::AccessLog;
use crate::gateway::accounting::stats::UNKNOWN_KEYS;
use crate::gateway::spans::RequestTracer;
use clerk_client::cache::Cache;
#[cfg(doc)]
use clerk_client::cache::CacheContent;
use clerk_client::limiter::Priority;
use clerk_client::outbound::Outbound;
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::Transport;
use clerk_quota::clock::Clock;
use clerk_quota::{Coverage, Environment, InstanceLedger, Settings, Source};

/// The options of a gateway.
#[derive(Debug)]
pub struct GatewayOptions {
    /// The Clerk instances.
    pub instances: Vec<InstanceOptions>,
    /// Handling of requests whose key belongs to no instance.
    pub unknown_keys: UnknownKeyPolicy,
    /// Caller tokens. The gateway replaces a token with the instance's key, so that applications need no key.
    pub tokens: Vec<CallerToken>,
    /// Maximum number of caller names taken from `User-Agent`; further callers become `other`.
    pub max_callers: usize,
    /// Where a line about each attempt goes, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Whether the context of the applications' traces is sent to Clerk. Baggage never is.
    pub forwards_trace_context: bool,
    /// Makes spans of the requests, if anything does.
    pub tracer: Option<RequestTracer>,
}

impl GatewayOptions {
    /// Default of [`GatewayOptions::max_callers`].
    pub const MAX_CALLERS: usize = 20;
}

/// One Clerk instance.
#[derive(Debug)]
pub struct InstanceOptions {
    /// The alias, unique among instances.
    pub name: Arc<str>,
    /// The outbound client, shared with probes and the client library. Its key is one of the instance's.
    pub outbound: Arc<Outbound>,
    /// Further keys of the same instance.
    pub further_keys: Vec<FurtherKey>,
    /// Caller name for requests with the instance's own key; `None`: the name of the SDK.
    pub caller: Option<Arc<str>>,
    /// The policies of the instance's requests.
    pub policies: InstancePolicies,
    /// The cache, which also coalesces requests.
    pub cache: Cache,
    /// The cache of verifications, with [`CacheContent::Verifications`]; `None`: one in memory, if a policy needs it.
    pub verifications: Option<Cache>,
}

/// An additional key of an instance: during key rotation, or for another team.
#[derive(Debug)]
pub struct FurtherKey {
    /// Where the key is stored.
    pub source: Arc<KeySource>,
    /// Caller name for requests with this key; `None`: the name of the SDK.
    pub caller: Option<Arc<str>>,
}

/// A token of an application, sent as `Authorization: Bearer <token>`.
#[derive(Debug)]
pub struct CallerToken {
    /// The application's name, used as the caller.
    pub caller: Arc<str>,
    /// Alias of the instance whose key replaces the token.
    pub instance: Arc<str>,
    /// The token.
    pub token: Secret,
    /// Priority in the limiter's queue.
    pub priority: Priority,
    /// Part of the limit of the instance's bucket that is guaranteed to the caller, 0 to 1.
    pub min_share: f64,
    /// Largest part of that limit, above 0, at most 1.
    pub max_share: f64,
    /// Maximum time in the queue, in place of the instance's.
    pub max_wait: Option<Duration>,
}

impl CallerToken {
    /// Checks that tokens are long enough and distinct.
    ///
    /// # Errors
    /// Returns an error for the first caller whose token is too short or a duplicate.
    pub fn check(tokens: &[Self]) -> Result<(), ConfigureError> {
        for (place, token) in tokens.iter().enumerate() {
            if token.token.len() < MIN_TOKEN || tokens[..place].iter().any(|other| other.token == token.token) {
                return Err(ConfigureError::Token(Arc::clone(&token.caller)));
            }
        }
        Ok(())
    }
}

/// Handling of requests without a key or with a key of no configured instance.
#[derive(Debug)]
pub enum UnknownKeyPolicy {
    /// Forwards them unchanged, without any policy. [`passthrough`] returns a suitable client.
    Forward(Arc<Outbound>),
    /// Rejects them with 401.
    Reject,
}

/// Options that contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// Two instances with the same name.
    #[error("two instances are called {0}: give each a different name")]
    Duplicate(Arc<str>),
    /// `other` is reserved for unknown keys.
    #[error("no instance can be called {UNKNOWN_KEYS}: the name is reserved for unknown keys")]
    Reserved,
    /// A token for an unknown instance.
    #[error("the token of {caller} is for the instance {instance}, which is not configured")]
    NoInstance {
        /// The application.
        caller: Arc<str>,
        /// The unknown instance.
        instance: Arc<str>,
    },
    /// A token that is too short or a duplicate.
    #[error("the token of {0} must have 16 characters or more, and be different from every other token")]
    Token(Arc<str>),
    /// An instance's address is invalid.
    #[error("the address of {0} is not a URL: write `https://api.clerk.com`")]
    Address(Arc<str>),
}

/// Returns an outbound client for requests with unknown keys. It has no key, and its ledger is not exposed: the
/// requests may belong to several Clerk instances.
#[must_use]
pub fn passthrough(upstream: Arc<dyn Transport>, base: String, clock: Arc<Clock>) -> Outbound {
    let settings = Settings {
        name: Arc::from(UNKNOWN_KEYS),
        environment: Environment::Unknown,
        api_host: Arc::from(""),
        limit: None,
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(60),
        sources: vec![Source::Gateway],
        coverage: Coverage::Part,
        lateness: None,
    };
    let ledger = Arc::new(Mutex::new(InstanceLedger::new(settings)));
    let no_key = SecretSource::Inline(Secret::new(String::new()));
    Outbound::new(upstream, base, Arc::new(KeySource::new(no_key)), ledger, clock)
}

/// Minimum length of a token, in bytes.
const MIN_TOKEN: usize = 16;
