//! What a gateway is made of, as it is given.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::policy::InstancePolicies;
use crate::gateway::accounting::stats::UNKNOWN_KEYS;
use clerk_client::cache::Cache;
use clerk_client::limiter::Priority;
use clerk_client::outbound::Outbound;
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::Transport;
use clerk_quota::clock::Clock;
use clerk_quota::{Coverage, Environment, InstanceLedger, Settings, Source};

/// What a gateway is made of.
#[derive(Debug)]
pub struct GatewayOptions {
    /// The Clerk instances.
    pub instances: Vec<InstanceOptions>,
    /// What becomes of requests whose key belongs to none of them.
    pub unknown_keys: UnknownKeyPolicy,
    /// Tokens that are exchanged for an instance's key, so that applications need not have one.
    pub tokens: Vec<CallerToken>,
    /// Most names of callers that come from `User-Agent`; further ones are `other`.
    pub max_callers: usize,
}

impl GatewayOptions {
    /// Distinct callers found in `User-Agent`, unless configured.
    pub const MAX_CALLERS: usize = 20;
}

/// One Clerk instance.
#[derive(Debug)]
pub struct InstanceOptions {
    /// The alias, unique among instances.
    pub name: Arc<str>,
    /// The way to it, shared with probes and client. Its key is one of the instance's.
    pub outbound: Arc<Outbound>,
    /// Further keys of the same instance.
    pub further_keys: Vec<FurtherKey>,
    /// Name of the callers that use the instance's own key; none: the name of their SDK.
    pub caller: Option<Arc<str>>,
    /// What its requests get.
    pub policies: InstancePolicies,
    /// Where its answers are kept, and shared by those who ask for the same.
    pub cache: Cache,
}

/// A key of an instance beside its own: while keys are rotated, or of another team.
#[derive(Debug)]
pub struct FurtherKey {
    /// Where it is kept.
    pub source: Arc<KeySource>,
    /// Name of the callers that use it; none: the name of their SDK.
    pub caller: Option<Arc<str>>,
}

/// A token of an application: `Authorization: Bearer <token>`.
#[derive(Debug)]
pub struct CallerToken {
    /// The application's name.
    pub caller: Arc<str>,
    /// Alias of the instance whose key it stands for.
    pub instance: Arc<str>,
    /// The token.
    pub token: Secret,
    /// Who goes first.
    pub priority: Priority,
}

impl CallerToken {
    /// Checks whether these tokens can be told from one another.
    ///
    /// # Errors
    /// With the first caller whose token is too short, or another's.
    pub fn check(tokens: &[Self]) -> Result<(), ConfigureError> {
        for (place, token) in tokens.iter().enumerate() {
            if token.token.len() < MIN_TOKEN || tokens[..place].iter().any(|other| other.token == token.token) {
                return Err(ConfigureError::Token(Arc::clone(&token.caller)));
            }
        }
        Ok(())
    }
}

/// What becomes of requests whose key belongs to no configured instance, or that have none.
#[derive(Debug)]
pub enum UnknownKeyPolicy {
    /// They are handed on with what they carry, without any policy ([`passthrough`] makes such a way).
    Forward(Arc<Outbound>),
    /// They are answered 401.
    Reject,
}

/// The options contradict themselves.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// Two instances of one name.
    #[error("two instances are called {0}: give each a name of its own")]
    Duplicate(Arc<str>),
    /// `other` is the name of what belongs to no instance.
    #[error("no instance can be called {UNKNOWN_KEYS}: that stands for requests of unknown keys")]
    Reserved,
    /// A token for an instance that there is not.
    #[error("the token of {caller} is for the instance {instance}, which is not configured")]
    NoInstance {
        /// The application.
        caller: Arc<str>,
        /// The name that is not known.
        instance: Arc<str>,
    },
    /// A token that is a key, or another token, or too short to be one.
    #[error("the token of {0} must have 16 characters or more, and be different from every other token")]
    Token(Arc<str>),
    /// The base of an instance is no address.
    #[error("the address of {0} is none: write `https://api.clerk.com`")]
    Address(Arc<str>),
}

/// A way to Clerk for requests of unknown keys. It has no key of its own, and what it observes goes to no ledger that
/// anybody sees: several Clerk instances may hide behind it.
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
    };
    let ledger = Arc::new(Mutex::new(InstanceLedger::new(settings)));
    let no_key = SecretSource::Inline(Secret::new(String::new()));
    Outbound::new(upstream, base, Arc::new(KeySource::new(no_key)), ledger, clock)
}

/// Least length of a token.
const MIN_TOKEN: usize = 16;
