//! A reverse proxy in front of Clerk's Backend API that applications' own SDKs talk to.
//!
//! It counts every response without spending quota and attributes requests to callers. With all
//! [policies](RoutePolicies) off it is transparent: it forwards requests and responses byte for byte.
//!
//! A request passes these phases, one file each:
//!
//! 1. `request::headers` rejects requests that an origin server must not accept;
//! 2. `request::identify` finds the Clerk instance by the key, and the caller;
//! 3. [`InstancePolicies::decide`] selects the policies;
//! 4. [`Gateway`] responds: with an error of its own (`request::error_response`), without Clerk where a policy allows
//!    it (`reads::read_path`, and `reads::upstream_fetch` for coalesced requests), or through
//!    [`clerk_client::outbound`], which every request to Clerk takes, so that limiter, retry and ledger see it;
//! 5. `accounting::request_record` counts the request once, when the response ends or the client disconnects.
//!
//! `spans` describes all that to OpenTelemetry, if that is switched on.

mod accounting;
mod config;
mod overrides;
mod reads;
mod request;
mod spans;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use accounting::access_log::{AccessLog, AccessLogStats, LogMessage};
pub use accounting::credential_shape::{CredentialShape, UnknownCredentialCount};
pub use accounting::decision::{Decision, Saving};
pub use accounting::request_record::CLIENT_GONE;
pub use accounting::stats::{
    CacheTotals, GatewayStats, InstanceStats, RequestCount, RouteDurations, ShedCounts, UNKNOWN_KEYS,
};
pub use config::options::{
    CallerToken, ConfigureError, FurtherKey, GatewayOptions, InstanceOptions, UnknownKeyPolicy, passthrough,
};
pub use config::policy::{InstancePolicies, Mode, RoutePolicies, VERIFICATIONS};
pub use overrides::{
    ActiveOverride, MAX_OVERRIDES, OVERRIDE_DURATIONS, OverrideAction, OverrideError, OverrideRequest,
};
pub use request::error_response::{ATTEMPTS, DECISION, WAITED_MS};
pub use request::own_paths::{DEFAULT_WEBHOOK_PATH, is_exporter_page};
pub use spans::RequestTracer;

pub(crate) use accounting::access_record::{
    AccessRecord, KeyedHash, VERSION as ACCESS_LOG_VERSION, WEBHOOK as WEBHOOK_EVENT, WebhookRecord,
};
pub(crate) use accounting::caller_registry::CallerRegistry;
pub(crate) use reads::read_path::USER as USER_LOOKUP;
pub(crate) use reads::shadow_batches::ShadowBatches;

use accounting::counters::RequestCounters;
use accounting::credential_shape::UnknownCredentials;
use clerk_client::cache::Cache;
use clerk_client::limiter::CountingKind;
use clerk_client::webhook;
use clerk_quota::ledger::Handle;
use clerk_quota::{Bucket, CallerId};
use overrides::control::OverrideControl;
use overrides::limits::ConfiguredShares;
use request::routing_table::RoutingTable;
use request::webhooks::{CacheSet, WebhookEndpoint};

/// The gateway: a request handler. The embedding program owns the listeners.
#[derive(Debug)]
pub struct Gateway {
    routing_table: ArcSwap<RoutingTable>,
    callers: Arc<CallerRegistry>,
    /// By alias. An instance that is removed and configured again gets its old counters.
    counters: Mutex<Vec<(Arc<str>, Arc<RequestCounters>)>>,
    unknown_credentials: UnknownCredentials,
    caches: CacheSet,
    webhooks: Option<WebhookEndpoint>,
    access_log: Option<AccessLog>,
    tracer: Option<RequestTracer>,
    overrides: OverrideControl,
}

impl Gateway {
    /// Returns a gateway for these instances.
    ///
    /// # Errors
    /// Returns an error if the options contradict each other.
    pub fn new(options: GatewayOptions) -> Result<Self, ConfigureError> {
        let callers = Arc::new(CallerRegistry::new(options.max_callers));
        let counters = Mutex::default();
        let (access_log, tracer) = (options.access_log.clone(), options.tracer.clone());
        let overrides = OverrideControl::new(ConfiguredShares::of(&options.tokens));
        let routing_table = RoutingTable::new(options, &callers, |name| counters_of(&counters, name))?;
        let caches = CacheSet::new(access_log.clone());
        caches.set(caches_of(&routing_table));
        let gateway = Self {
            routing_table: ArcSwap::from_pointee(routing_table),
            callers,
            counters,
            unknown_credentials: UnknownCredentials::default(),
            caches,
            webhooks: None,
            access_log,
            tracer,
            overrides,
        };
        gateway.apply_shares();
        Ok(gateway)
    }

    /// Adds an endpoint for Clerk's webhooks at this path; a webhook invalidates the cached responses it affects.
    ///
    /// # Errors
    /// Returns an error if the webhooks cannot be verified with these options.
    pub fn with_webhooks(
        self,
        path: String,
        options: webhook::WebhookOptions,
    ) -> Result<Self, webhook::WebhookConfigError> {
        let webhooks = WebhookEndpoint::new(path, options, self.caches.clone())?;
        Ok(Self { webhooks: Some(webhooks), ..self })
    }

    /// Applies a new configuration. Requests in flight keep the old one; the counters and
    /// [`GatewayOptions::max_callers`] stay.
    ///
    /// # Errors
    /// Returns an error if the options contradict each other; the old configuration then stays in use.
    pub fn configure(&self, options: GatewayOptions) -> Result<(), ConfigureError> {
        let shares = ConfiguredShares::of(&options.tokens);
        let routing_table = RoutingTable::new(options, &self.callers, |name| counters_of(&self.counters, name))?;
        self.caches.set(caches_of(&routing_table));
        self.routing_table.store(Arc::new(routing_table));
        self.configure_shares(shares);
        Ok(())
    }

    /// Reloads keys and webhook signing secrets whose files have changed. If one is invalid, the previous one stays in
    /// use. Blocks on file reads.
    pub fn refresh_keys(&self) {
        if let Some(webhooks) = &self.webhooks {
            webhooks.refresh_secrets();
        }
        for (instance, key) in self.routing_table.load().keys() {
            match key.refresh() {
                Ok(true) => tracing::info!(clerk_instance = instance, source = %key.source(), "reloaded key"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(clerk_instance = instance, %error, "failed to reload key; using the previous one")
                }
            }
        }
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> GatewayStats {
        let routing_table = self.routing_table.load();
        let configured =
            routing_table.instances.iter().map(|instance| (&instance.name, &instance.counters, Some(instance)));
        let unknown_keys = &routing_table.unknown_keys;
        let all = configured.chain([(&unknown_keys.name, &unknown_keys.counters, unknown_keys.forward.as_ref())]);
        let instances = all
            .map(|(name, counters, instance)| {
                let outbound = instance.map(|instance| instance.outbound.limits.stats());
                let policies = instance.map(|instance| instance.policies.policies);
                let callers = instance.map(|instance| instance.outbound.limits.limiter.caller_usage());
                let callers = callers.into_iter().flatten().map(|usage| (self.callers.name(usage.caller), usage));
                let callers = callers.collect();
                (Arc::clone(name), InstanceStats { outbound, policies, callers, ..counters.stats(&self.callers) })
            })
            .collect();
        let caching = routing_table.instances.iter().filter(|instance| instance.policies.caches());
        let cache = caching.fold(None, |sum: Option<CacheTotals>, instance| {
            let cache = &instance.state.cache;
            Some(sum.unwrap_or_default().add(&cache.stats(), cache.is_shared()))
        });
        let verifications = routing_table.instances.iter().filter_map(|instance| instance.state.verifications.as_ref());
        let cache = verifications
            .fold(cache, |sum, cache| Some(sum.unwrap_or_default().add(&cache.stats(), cache.is_shared())));
        // All instances share one Redis client.
        let redis = routing_table.instances.iter().find_map(|instance| instance.state.cache.redis_stats());
        let webhooks = self.webhooks.as_ref().map(WebhookEndpoint::stats);
        let unknown_credentials = self.unknown_credentials.counts();
        let dropped_callers = self.callers.dropped();
        let access_log = self.access_log.as_ref().map(AccessLog::stats);
        let (overrides, spans) = (self.overrides(), self.tracer.as_ref().map(RequestTracer::counts));
        GatewayStats {
            instances,
            dropped_callers,
            unknown_credentials,
            cache,
            redis,
            webhooks,
            access_log,
            overrides,
            spans,
        }
    }
}

impl Gateway {
    /// Returns the name of a caller.
    #[must_use]
    pub fn caller_name(&self, caller: CallerId) -> Arc<str> {
        self.callers.name(caller)
    }

    /// Returns the ledger of requests with unknown keys, if they are forwarded.
    #[must_use]
    pub fn unknown_keys_ledger(&self) -> Option<Handle> {
        let routing_table = self.routing_table.load();
        routing_table.unknown_keys.forward.as_ref().map(|instance| Arc::clone(&instance.outbound.ledger))
    }

    /// Copies the counting method that the limiters detected into the ledgers.
    pub fn tell_counting(&self) {
        for instance in &self.routing_table.load().instances {
            let outbound = &instance.outbound;
            let is_sliding = match outbound.limits.limiter.stats().counting {
                CountingKind::Unknown => None,
                CountingKind::Exact => Some(false),
                CountingKind::SlidingCounter => Some(true),
            };
            outbound.ledger.lock().set_sliding(Bucket::Instance, is_sliding);
        }
    }

    /// Reads all gateways' usage of these buckets into the ledgers, if the gateways share a usage log.
    pub async fn read_fleet(&self, buckets: &[Bucket]) {
        let routing_table = self.routing_table.load_full();
        for instance in &routing_table.instances {
            let outbound = &instance.outbound;
            for bucket in buckets {
                let Some(usage) = outbound.limits.limiter.fleet_usage(*bucket, None) else { break };
                // On an error the last value soon becomes too old to be shown, and the Redis client logs the cause.
                let Ok(usage) = usage.await else { break };
                outbound.ledger.lock().record_fleet(*bucket, outbound.clock.now(), &usage);
            }
        }
    }
}

fn caches_of(routing_table: &RoutingTable) -> Vec<Cache> {
    routing_table.instances.iter().flat_map(|instance| instance.state.caches()).cloned().collect()
}

fn counters_of(all: &Mutex<Vec<(Arc<str>, Arc<RequestCounters>)>>, name: &Arc<str>) -> Arc<RequestCounters> {
    let mut all = all.lock();
    if let Some((_, counters)) = all.iter().find(|(known, _)| known == name) {
        return Arc::clone(counters);
    }
    let counters = Arc::new(RequestCounters::default());
    all.push((Arc::clone(name), Arc::clone(&counters)));
    counters
}
