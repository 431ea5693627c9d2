//! The options, prepared for requests: instances by name, and their keys and tokens.

use std::sync::Arc;

use http::StatusCode;

use super::headers::UpstreamTarget;
use super::identify::{CredentialStore, KnownKey, KnownToken};
use super::turn::Turn;
use crate::gateway::accounting::access_log::{AccessLog, InstanceLog};
use crate::gateway::accounting::caller_registry::CallerRegistry;
use crate::gateway::accounting::counters::RequestCounters;
use crate::gateway::accounting::credential_shape::CredentialShape;
use crate::gateway::accounting::stats::UNKNOWN_KEYS;
use crate::gateway::config::options::{
    CallerToken, ConfigureError, FurtherKey, GatewayOptions, InstanceOptions, UnknownKeyPolicy, passthrough,
};
use crate::gateway::config::policy::{InstancePolicies, Mode, RoutePolicies};
use crate::gateway::reads::instance_state::InstanceState;
use crate::gateway::spans::{RequestTracer, TracedAttempts};
use clerk_client::cache::{self, Cache, CacheContent};
use clerk_client::limiter::ThrottleForecast;
use clerk_client::outbound::{AttemptLog, Credentials, Outbound};
use clerk_client::secret::KeySource;
use clerk_quota::Route;
use clerk_quota::clock::Clock;

/// Memory for verifications, where none is given. One has about 1 KiB.
const VERIFICATION_BYTES: u64 = 16 << 20;

/// The options, prepared for requests.
#[derive(Debug)]
pub(in crate::gateway) struct RoutingTable {
    pub(in crate::gateway) credentials: CredentialStore,
    pub(in crate::gateway) instances: Vec<Arc<InstanceRuntime>>,
    pub(in crate::gateway) unknown_keys: UnknownKeys,
}

#[derive(Debug)]
pub(in crate::gateway) struct InstanceRuntime {
    pub(in crate::gateway) name: Arc<str>,
    pub(in crate::gateway) outbound: Arc<Outbound>,
    pub(in crate::gateway) target: UpstreamTarget,
    pub(in crate::gateway) policies: InstancePolicies,
    pub(in crate::gateway) counters: Arc<RequestCounters>,
    pub(in crate::gateway) state: InstanceState,
    pub(in crate::gateway) access_log: Option<AccessLog>,
}

impl InstanceRuntime {
    /// Runs pacing in shadow mode for a request that is about to be sent. Must be called once per request.
    pub(in crate::gateway) fn forecast_pace(
        &self,
        policies: &RoutePolicies,
        route: Route,
        turn: Turn,
    ) -> Option<ThrottleForecast> {
        let limiter = &self.outbound.limits.limiter;
        let is_shadow = policies.pace == Mode::Shadow;
        is_shadow.then(|| limiter.dry_run(route.bucket, route.entity, turn.sender, turn.max_wait))
    }

    /// Reloads the instance's key after Clerk rejected it: it may have been replaced. An unreadable key leaves the
    /// previous one in place; the file watcher logs the cause.
    pub(in crate::gateway) fn reload_key_on_unauthorized(&self, credentials: Credentials, status: StatusCode) {
        if credentials == Credentials::Instance && status == StatusCode::UNAUTHORIZED {
            let _ = self.outbound.key.reload();
        }
    }
}

/// Requests with unknown keys.
#[derive(Debug)]
pub(in crate::gateway) struct UnknownKeys {
    pub(in crate::gateway) name: Arc<str>,
    pub(in crate::gateway) counters: Arc<RequestCounters>,
    /// `None`: rejected.
    pub(in crate::gateway) forward: Option<Arc<InstanceRuntime>>,
    /// Where requests go that need no credential, although unknown ones are rejected. `None` if the instances have
    /// different addresses.
    keyless: Option<Arc<InstanceRuntime>>,
}

impl UnknownKeys {
    /// The instance state for a request with an unknown credential or none; `None` if the request is rejected.
    pub(in crate::gateway) fn forward(&self, shape: CredentialShape, path: &str) -> Option<&Arc<InstanceRuntime>> {
        let is_keyless = shape == CredentialShape::None && is_keyless(path);
        self.forward.as_ref().or_else(|| self.keyless.as_ref().filter(|_| is_keyless))
    }
}

/// Where applications in keyless development mode get their first keys. Such requests have no credential.
const KEYLESS: [&str; 2] = ["/v1/accountless_applications", "/v1/accountless_applications/complete"];

fn is_keyless(path: &str) -> bool {
    KEYLESS.contains(&path.strip_suffix('/').unwrap_or(path))
}

impl RoutingTable {
    /// All keys, with the names of their instances.
    pub(in crate::gateway) fn keys(&self) -> impl Iterator<Item = (&str, &KeySource)> {
        let name = |place: usize| self.instances.get(place).map_or(UNKNOWN_KEYS, |instance| &*instance.name);
        self.credentials.keys.iter().map(move |known| (name(known.instance), &*known.source))
    }

    pub(in crate::gateway) fn new(
        options: GatewayOptions,
        callers: &Arc<CallerRegistry>,
        counters: impl Fn(&Arc<str>) -> Arc<RequestCounters>,
    ) -> Result<Self, ConfigureError> {
        let (access_log, forwards_context) = (options.access_log, options.forwards_trace_context);
        let tracer = options.tracer;
        let instance_log = |name: &Arc<str>| {
            let log = access_log.clone()?;
            Some(InstanceLog { log, instance: Arc::clone(name), callers: Arc::clone(callers) })
        };
        let mut credentials = CredentialStore::default();
        let mut instances: Vec<Arc<InstanceRuntime>> = Vec::new();
        for options in options.instances {
            let InstanceOptions { name, outbound, further_keys, caller, policies, cache, verifications } = options;
            if *name == *UNKNOWN_KEYS {
                return Err(ConfigureError::Reserved);
            }
            if instances.iter().any(|other| other.name == name) {
                return Err(ConfigureError::Duplicate(name));
            }
            let own = FurtherKey { source: Arc::clone(&outbound.key), caller };
            for FurtherKey { source, caller } in std::iter::once(own).chain(further_keys) {
                let caller = caller.map(|caller| callers.configured(&caller));
                credentials.keys.push(KnownKey { source, instance: instances.len(), caller });
            }
            let log = (instance_log(&name), tracer.as_ref());
            let caches = (cache, verifications);
            instances.push(Arc::new(instance(
                &name,
                outbound,
                policies,
                caches,
                counters(&name),
                log,
                forwards_context,
            )?));
        }
        for (first, second) in credentials.ambiguous() {
            let [first, second] = [first, second].map(|place| &*instances[place].name);
            tracing::warn!(
                "the instances {first} and {second} have the same key: the gateway counts requests with it for \
                 {first}; give them different keys, or remove one"
            );
        }
        CallerToken::check(&options.tokens)?;
        let mut tokens = Vec::new();
        for CallerToken { caller, instance, token, priority, max_wait, .. } in options.tokens {
            let Some(place) = instances.iter().position(|known| known.name == instance) else {
                return Err(ConfigureError::NoInstance { caller, instance });
            };
            let caller = callers.reserve(&caller);
            tokens.push(KnownToken { token, instance: place, caller, priority, max_wait });
        }
        credentials.set_tokens(tokens);
        let name: Arc<str> = Arc::from(UNKNOWN_KEYS);
        let counters = counters(&name);
        let way = |outbound: Arc<Outbound>| {
            // Responses of unknown instances are never cached.
            let options = cache::CacheOptions::new(Arc::clone(&name)).memory_bytes(0);
            let cache = Cache::new(options, Arc::clone(&outbound.clock));
            let (counters, log) = (Arc::clone(&counters), (instance_log(&name), tracer.as_ref()));
            let policies = InstancePolicies::default();
            let mut unknown = instance(&name, outbound, policies, (cache, None), counters, log, forwards_context)?;
            let others = instances.iter().filter_map(|known| known.state.verifications.clone());
            unknown.state.verifications_of_others = others.collect();
            Ok(Arc::new(unknown))
        };
        let (forward, keyless) = match options.unknown_keys {
            UnknownKeyPolicy::Forward(outbound) => (Some(way(outbound)?), None),
            UnknownKeyPolicy::Reject => (None, common_way(&instances).map(way).transpose()?),
        };
        Ok(Self { credentials, instances, unknown_keys: UnknownKeys { name, counters, forward, keyless } })
    }
}

/// An outbound client without a key, if all instances have the same address.
fn common_way(instances: &[Arc<InstanceRuntime>]) -> Option<Arc<Outbound>> {
    let (first, others) = instances.split_first()?;
    let Outbound { transport, base, clock, .. } = &*first.outbound;
    let is_common = others.iter().all(|other| other.outbound.base == *base);
    is_common.then(|| Arc::new(passthrough(Arc::clone(transport), base.clone(), Arc::clone(clock))))
}

/// A cache of verifications of this process alone.
fn verifications_in_memory(name: &Arc<str>, clock: &Arc<Clock>) -> Cache {
    let options = cache::CacheOptions::new(Arc::clone(name)).content(CacheContent::Verifications);
    Cache::new(options.memory_bytes(VERIFICATION_BYTES), Arc::clone(clock))
}

fn instance(
    name: &Arc<str>,
    outbound: Arc<Outbound>,
    policies: InstancePolicies,
    (cache, verifications): (Cache, Option<Cache>),
    counters: Arc<RequestCounters>,
    (log, tracer): (Option<InstanceLog>, Option<&RequestTracer>),
    forwards_context: bool,
) -> Result<InstanceRuntime, ConfigureError> {
    let target = UpstreamTarget::parse(&outbound.base).map_err(|_| ConfigureError::Address(Arc::clone(name)))?;
    let target = target.forward_trace_context(forwards_context);
    // One that is given stays, also while no policy needs it: it must not miss a revocation.
    let new = || policies.keeps_verifications().then(|| verifications_in_memory(name, &outbound.clock));
    let verifications = verifications.or_else(new);
    let state = InstanceState::new(cache, verifications, name, &outbound.clock);
    let access_log = log.as_ref().map(|log| log.log.clone());
    let log = log.map(|log| Arc::new(log) as Arc<dyn AttemptLog>);
    let log = match tracer {
        Some(tracer) => Some(Arc::new(TracedAttempts::new(tracer, target.server(), log)) as Arc<dyn AttemptLog>),
        None => log,
    };
    let outbound = match log {
        Some(log) => Arc::new(Outbound { log: Some(log), ..(*outbound).clone() }),
        None => outbound,
    };
    Ok(InstanceRuntime { name: Arc::clone(name), outbound, target, policies, counters, state, access_log })
}
