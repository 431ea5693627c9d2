//! What is configured, and what the gateway makes of it.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;

use super::STRANGERS;
use super::callers::CallerRegistry;
use super::counts::RequestCounters;
use super::forward::UpstreamTarget;
use super::identify::{CredentialStore, KnownKey, KnownToken};
use super::policy::{InstancePolicies, Mode, RoutePolicies};
use super::shared::InstanceState;
use clerk_client::cache::{self, Cache};
use clerk_client::limiter::Priority;
use clerk_client::outbound::{Credentials, Outbound};
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::Transport;
use clerk_quota::clock::Clock;
use clerk_quota::{Environment, InstanceLedger, Route, Settings, Source};

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
    pub plan: InstancePolicies,
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
    /// They are handed on with what they carry, without any policy ([`keyless`] makes such a way).
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
    #[error("no instance can be called {STRANGERS}: that stands for requests of unknown keys")]
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
        name: Arc::from(STRANGERS),
        environment: Environment::Unknown,
        api_host: Arc::from(""),
        limit: None,
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(60),
        sources: vec![Source::Gateway],
    };
    let ledger = Arc::new(Mutex::new(InstanceLedger::new(settings)));
    let no_key = SecretSource::Inline(Secret::new(String::new()));
    Outbound::new(upstream, base, Arc::new(KeySource::new(no_key)), ledger, clock)
}

/// The options, ready for use.
#[derive(Debug)]
pub(super) struct RoutingTable {
    pub(super) register: CredentialStore,
    pub(super) instances: Vec<Arc<InstanceRuntime>>,
    pub(super) strangers: UnknownKeys,
}

#[derive(Debug)]
pub(super) struct InstanceRuntime {
    pub(super) name: Arc<str>,
    pub(super) outbound: Arc<Outbound>,
    pub(super) target: UpstreamTarget,
    pub(super) plan: InstancePolicies,
    pub(super) counts: Arc<RequestCounters>,
    pub(super) shared: InstanceState,
}

impl InstanceRuntime {
    /// Whether pacing would let a request wait, if it is in shadow.
    pub(super) fn would_throttle(&self, policies: &RoutePolicies, route: Route, priority: Priority) -> bool {
        let pacer = &self.outbound.limits.limiter;
        policies.pace == Mode::Shadow && pacer.would_throttle(route.bucket, route.entity, priority)
    }

    /// Our key was refused: it may have been replaced, and the next request finds the new one. A key that cannot be read
    /// leaves the one before in place, and whoever watches the file says why.
    pub(super) fn reload_key_on_unauthorized(&self, authorization: Credentials, status: StatusCode) {
        if authorization == Credentials::Instance && status == StatusCode::UNAUTHORIZED {
            let _ = self.outbound.key.reload();
        }
    }
}

/// What belongs to no instance.
#[derive(Debug)]
pub(super) struct UnknownKeys {
    pub(super) name: Arc<str>,
    pub(super) counts: Arc<RequestCounters>,
    /// None: they are refused.
    pub(super) forward: Option<Arc<InstanceRuntime>>,
}

/// Least length of a token.
const MIN_TOKEN: usize = 16;

impl RoutingTable {
    /// All keys, with the names of their instances.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &KeySource)> {
        let name = |place: usize| self.instances.get(place).map_or(STRANGERS, |instance| &*instance.name);
        self.register.keys.iter().map(move |known| (name(known.instance), &*known.source))
    }

    pub(super) fn new(
        options: GatewayOptions,
        callers: &CallerRegistry,
        counts: impl Fn(&Arc<str>) -> Arc<RequestCounters>,
    ) -> Result<Self, ConfigureError> {
        let mut register = CredentialStore::default();
        let mut instances: Vec<Arc<InstanceRuntime>> = Vec::new();
        for options in options.instances {
            let InstanceOptions { name, outbound, further_keys, caller, plan, cache } = options;
            if *name == *STRANGERS {
                return Err(ConfigureError::Reserved);
            }
            if instances.iter().any(|other| other.name == name) {
                return Err(ConfigureError::Duplicate(name));
            }
            let own = FurtherKey { source: Arc::clone(&outbound.key), caller };
            for FurtherKey { source, caller } in std::iter::once(own).chain(further_keys) {
                let caller = caller.map(|caller| callers.configured(&caller));
                register.keys.push(KnownKey { source, instance: instances.len(), caller });
            }
            instances.push(Arc::new(instance(&name, outbound, plan, cache, counts(&name))?));
        }
        for (first, second) in register.ambiguous() {
            let [first, second] = [first, second].map(|place| &*instances[place].name);
            tracing::warn!(
                "the instances {first} and {second} have the same key: the gateway counts requests that carry it for \
                 {first}; give the two different keys, or remove one"
            );
        }
        CallerToken::check(&options.tokens)?;
        for CallerToken { caller, instance, token, priority } in options.tokens {
            let Some(place) = instances.iter().position(|known| known.name == instance) else {
                return Err(ConfigureError::NoInstance { caller, instance });
            };
            let caller = callers.configured(&caller);
            register.tokens.push(KnownToken { token, instance: place, caller, priority });
        }
        let name: Arc<str> = Arc::from(STRANGERS);
        let counts = counts(&name);
        let forward = match options.unknown_keys {
            UnknownKeyPolicy::Reject => None,
            UnknownKeyPolicy::Forward(outbound) => {
                // Nothing of theirs is ever kept.
                let options = cache::CacheOptions { memory_bytes: 0, ..cache::CacheOptions::new(Arc::clone(&name)) };
                let cache = Cache::new(options, Arc::clone(&outbound.clock));
                Some(Arc::new(instance(&name, outbound, InstancePolicies::default(), cache, Arc::clone(&counts))?))
            }
        };
        Ok(Self { register, instances, strangers: UnknownKeys { name, counts, forward } })
    }
}

fn instance(
    name: &Arc<str>,
    outbound: Arc<Outbound>,
    plan: InstancePolicies,
    cache: Cache,
    counts: Arc<RequestCounters>,
) -> Result<InstanceRuntime, ConfigureError> {
    let target = UpstreamTarget::parse(&outbound.base).map_err(|_| ConfigureError::Address(Arc::clone(name)))?;
    let shared = InstanceState::new(cache, name, &outbound.clock);
    Ok(InstanceRuntime { name: Arc::clone(name), outbound, target, plan, counts, shared })
}
