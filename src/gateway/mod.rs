//! A reverse proxy in front of Clerk's Backend API that applications' own SDKs talk to.
//!
//! It sees every answer at no cost of quota, and says who uses what. With all [policies](Policies) off it is transparent:
//! what comes in goes out byte for byte, in both directions.
//!
//! One request goes through these phases, each in a file:
//!
//! 1. `forward` refuses what is no request to an origin server;
//! 2. `identify` finds the Clerk instance by the key, and the caller;
//! 3. [`Plan::decide`] says which policies apply;
//! 4. [`Gateway`] answers: on its own (`answer`), without Clerk where a policy can (`reads`, and `fetch` for all who want
//!    the same), or over [`clerk_client::outbound`], which every request to Clerk takes, so that pacing, retry and ledger know
//!    of it;
//! 5. `seen` counts it, once, when the answer is over or nobody waits for it any more.

mod accounting;
mod config;
mod reads;
mod request;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use accounting::decision::{Decision, MethodLabel, Saving};
pub use accounting::request_record::CLIENT_GONE;
pub use accounting::stats::{CacheTotals, GatewayStats, InstanceStats, RequestCount, RouteDurations, STRANGERS};
pub use accounting::top::{Share, Span};
pub use config::options::{
    CallerToken, ConfigureError, FurtherKey, GatewayOptions, InstanceOptions, UnknownKeyPolicy, passthrough,
};
pub use config::policy::{InstancePolicies, Mode, RoutePolicies};
pub use request::error_response::{ATTEMPTS, DECISION, WAITED_MS};

use accounting::caller_registry::CallerRegistry;
use accounting::counters::RequestCounters;
use clerk_client::cache::Cache;
use clerk_client::webhook;
use clerk_quota::clock::Clock;
use request::routing_table::RoutingTable;
use request::webhooks::{CacheSet, WebhookEndpoint};

/// The gateway. Answers requests; whoever has it listens.
#[derive(Debug)]
pub struct Gateway {
    table: ArcSwap<RoutingTable>,
    callers: Arc<CallerRegistry>,
    clock: Arc<Clock>,
    /// By alias; an instance that comes back has its counters again.
    counts: Mutex<Vec<(Arc<str>, Arc<RequestCounters>)>>,
    caches: CacheSet,
    hooks: Option<WebhookEndpoint>,
}

impl Gateway {
    /// A gateway to these instances.
    ///
    /// # Errors
    /// When the options contradict themselves.
    pub fn new(options: GatewayOptions, clock: Arc<Clock>) -> Result<Self, ConfigureError> {
        let callers = Arc::new(CallerRegistry::new(options.max_callers));
        let counts = Mutex::default();
        let table = RoutingTable::new(options, &callers, |name| counters_of(&counts, name))?;
        let caches = CacheSet::default();
        caches.set(caches_of(&table));
        Ok(Self { table: ArcSwap::from_pointee(table), callers, clock, counts, caches, hooks: None })
    }

    /// The same gateway with an endpoint for Clerk's webhooks at this path: what they report, the caches forget.
    ///
    /// # Errors
    /// When the webhooks cannot be checked.
    pub fn with_webhooks(
        self,
        path: String,
        options: webhook::WebhookOptions,
    ) -> Result<Self, webhook::WebhookConfigError> {
        let hooks = WebhookEndpoint::new(path, options, self.caches.clone())?;
        Ok(Self { hooks: Some(hooks), ..self })
    }

    /// Takes over a new configuration. Requests in flight end as they began; counters stay, as does
    /// [`Options::max_callers`].
    ///
    /// # Errors
    /// When the options contradict themselves; then nothing changes.
    pub fn configure(&self, options: GatewayOptions) -> Result<(), ConfigureError> {
        let table = RoutingTable::new(options, &self.callers, |name| counters_of(&self.counts, name))?;
        self.caches.set(caches_of(&table));
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// Reads keys again whose files have changed: whoever has a new one is known, and whoever has an old one is not. One
    /// that cannot be used leaves the one before in place. Blocks for a look at each file.
    pub fn refresh_keys(&self) {
        for (instance, key) in self.table.load().keys() {
            match key.refresh() {
                Ok(true) => tracing::info!(clerk_instance = instance, source = %key.source(), "key read again"),
                Ok(false) => {}
                Err(error) => tracing::warn!(clerk_instance = instance, %error, "the key stays as it was"),
            }
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn stats(&self) -> GatewayStats {
        let table = self.table.load();
        let now = self.clock.now();
        let configured = table.instances.iter().map(|instance| (&instance.name, &instance.counts, Some(instance)));
        let strangers = &table.strangers;
        let all = configured.chain([(&strangers.name, &strangers.counts, strangers.forward.as_ref())]);
        let instances = all
            .map(|(name, counts, instance)| {
                let flow = instance.map(|instance| instance.outbound.limits.stats());
                (Arc::clone(name), InstanceStats { flow, ..counts.stats(&self.callers, now) })
            })
            .collect();
        let caching = table.instances.iter().filter(|instance| instance.plan.caches());
        let cache = caching.fold(None, |sum: Option<CacheTotals>, instance| {
            let cache = &instance.shared.cache;
            Some(sum.unwrap_or_default().add(&cache.stats(), cache.is_shared()))
        });
        let webhooks = self.hooks.as_ref().map(WebhookEndpoint::stats);
        GatewayStats { instances, dropped_callers: self.callers.dropped(), cache, webhooks }
    }
}

fn caches_of(table: &RoutingTable) -> Vec<Cache> {
    table.instances.iter().flat_map(|instance| instance.shared.caches()).cloned().collect()
}

fn counters_of(all: &Mutex<Vec<(Arc<str>, Arc<RequestCounters>)>>, name: &Arc<str>) -> Arc<RequestCounters> {
    let mut all = all.lock();
    if let Some((_, counts)) = all.iter().find(|(known, _)| known == name) {
        return Arc::clone(counts);
    }
    let counts = Arc::new(RequestCounters::default());
    all.push((Arc::clone(name), Arc::clone(&counts)));
    counts
}
