//! From the configuration to what the rooms below want to know of each instance.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::config::{self, ApiUrl, Config, ProbeWhen};
use crate::probe::{self, Trigger};
use crate::state::{Journal, Restored};
use clerk_client::limiter::{self, RedisLimiter};
use clerk_client::outbound::{InstanceLimits, Outbound};
use clerk_client::redis::RedisClient;
use clerk_client::secret::{KeySource, SecretSource};
use clerk_client::transport::{self, ReqwestTransport, Transport};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Coverage, Limit, Moment, Settings, Source};

/// Intervals after which a value that was not seen again is too old to be true.
const STALE_INTERVALS: u32 = 3;

/// Makes the ways to the instances, and keeps what outlives a reload.
#[derive(Debug)]
pub struct Instances {
    clock: Arc<Clock>,
    upstream: Option<(transport::ReqwestOptions, Arc<ReqwestTransport>)>,
    ways: HashMap<Arc<str>, InstanceClient>,
    /// What gateways share their budgets over.
    pub(super) store: Option<RedisClient>,
    /// Where it is written when requests are sent, and what was sent before the start.
    pub(super) journal: Option<(Arc<Journal>, Restored)>,
    /// Share of the limit that work at which nobody waits leaves to others.
    pub(super) reserve: f64,
}

/// What all requests to an instance share: of probes and of the gateway, before and after a reload.
#[derive(Debug)]
struct InstanceClient {
    api_url: ApiUrl,
    source: SecretSource,
    key: Arc<KeySource>,
    flow: Arc<InstanceLimits>,
}

impl Instances {
    /// No instances yet.
    #[must_use]
    pub fn new(clock: Arc<Clock>) -> Self {
        let reserve = limiter::LimiterOptions::default().reserve;
        Self { clock, upstream: None, ways: HashMap::new(), store: None, journal: None, reserve }
    }

    /// The present moment.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Whether a configuration can be put in force; sets up what it needs.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn check(&mut self, config: &Config) -> anyhow::Result<()> {
        self.upstream(config).map(drop)
    }

    /// How each instance is probed. `ledger` knows the instances already.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn probes(&mut self, config: &Config, ledger: &Ledger) -> anyhow::Result<Vec<probe::ProbeOptions>> {
        let upstream = self.upstream(config)?;
        self.ways.retain(|name, _| config.instances.iter().any(|instance| instance.name == *name));
        config.instances.iter().map(|instance| self.probe(instance, ledger, Arc::clone(&upstream))).collect()
    }

    /// The way to an instance over an HTTP client. All ways to it share its key, its pacer and its retry budget.
    ///
    /// # Errors
    /// When the ledger does not know the instance.
    pub(super) fn outbound(
        &mut self,
        instance: &config::InstanceConfig,
        ledger: &Ledger,
        upstream: Arc<dyn Transport>,
    ) -> anyhow::Result<Outbound> {
        let options = limiter::LimiterOptions { reserve: self.reserve, ..pace_options(instance) };
        let ledger = ledger.instance(&instance.name).context("an instance is missing in the ledger")?;
        let known = self.ways.get(&instance.name);
        let known = known.filter(|way| way.api_url == instance.api_url && way.source == instance.key);
        if known.is_none() {
            let clock = Arc::clone(&self.clock);
            let mut flow = match &self.store {
                Some(store) => {
                    InstanceLimits::sharing(options, clock, RedisLimiter::new(store.clone(), &instance.name))
                }
                None => InstanceLimits::new(options, clock),
            };
            if let Some((journal, restored)) = &self.journal {
                flow.journal = Some(journal.of(&instance.name));
                let now = self.clock.now();
                for (bucket, entity, at) in
                    restored.of(&instance.name).filter(|(bucket, _, at)| now.since(*at) < bucket.window())
                {
                    flow.limiter.restore(bucket, entity, at, None);
                }
            }
            let way = InstanceClient {
                api_url: instance.api_url.clone(),
                source: instance.key.clone(),
                key: Arc::new(KeySource::new(instance.key.clone())),
                flow: Arc::new(flow),
            };
            self.ways.insert(Arc::clone(&instance.name), way);
        }
        let way = self.ways.get(&instance.name).context("a way was just made")?;
        way.flow.limiter.reconfigure(options);
        let base = instance.api_url.as_str().to_owned();
        let (key, flow, clock) = (Arc::clone(&way.key), Arc::clone(&way.flow), Arc::clone(&self.clock));
        Ok(Outbound { transport: upstream, base, key, ledger, clock, limits: flow })
    }

    /// The HTTP client: the one there is, with its connections, unless its options change.
    fn upstream(&mut self, config: &Config) -> anyhow::Result<Arc<dyn Transport>> {
        let options =
            transport::ReqwestOptions { ca_file: config.ca_file.clone(), ..transport::ReqwestOptions::default() };
        match &self.upstream {
            Some((known, upstream)) if *known == options => Ok(Arc::<ReqwestTransport>::clone(upstream)),
            _ => {
                let upstream = ReqwestTransport::new(options.clone())?;
                self.upstream = Some((options, Arc::clone(&upstream)));
                Ok(upstream)
            }
        }
    }

    fn probe(
        &mut self,
        instance: &config::InstanceConfig,
        ledger: &Ledger,
        upstream: Arc<dyn Transport>,
    ) -> anyhow::Result<probe::ProbeOptions> {
        let outbound = self.outbound(instance, ledger, upstream)?;
        Ok(probe::ProbeOptions {
            name: Arc::clone(&instance.name),
            trigger: trigger(&instance.probe.trigger),
            interval: instance.probe.interval(),
            timeout: instance.probe.timeout,
            path: instance.probe.path.clone(),
            only_when_idle: instance.probe.when == ProbeWhen::Idle,
            count_users: instance.users.as_ref().map(|users| trigger(&users.trigger)),
            outbound: Arc::new(outbound),
        })
    }
}

/// What the ledger wants to know of an instance.
#[must_use]
pub fn settings(instance: &config::InstanceConfig, low_threshold: f64) -> Settings {
    Settings {
        name: Arc::clone(&instance.name),
        environment: instance.environment,
        api_host: instance.api_url.host().into(),
        limit: limit(instance),
        users_limit: instance.users_limit,
        low_threshold,
        stale_after: instance.probe.interval().saturating_mul(STALE_INTERVALS),
        sources: vec![Source::Probe],
        coverage: Coverage::Part,
    }
}

/// The settings of all instances, as they are watched: by probes, and by the gateway if there is one.
pub(super) fn all_settings(config: &Config) -> impl Iterator<Item = Settings> {
    let gateway = config.gateway.as_ref().map(|_| Source::Gateway);
    config.instances.iter().map(move |instance| {
        let mut settings = settings(instance, config.low_threshold);
        settings.sources.extend(gateway);
        settings.coverage = coverage(config);
        settings
    })
}

/// How much of what applications send is counted here: all of it where a gateway is the only one, and in Redis what all
/// gateways send. Otherwise a count tells nothing of what is left.
fn coverage(config: &Config) -> Coverage {
    match &config.gateway {
        Some(gateway) if gateway.cache.redis_url.is_some() => Coverage::Fleet,
        Some(gateway) if gateway.sole => Coverage::Sole,
        _ => Coverage::Part,
    }
}

fn limit(instance: &config::InstanceConfig) -> Option<Limit> {
    instance.limit().map(|(requests, window): (u64, Duration)| Limit { requests, window })
}

fn pace_options(instance: &config::InstanceConfig) -> limiter::LimiterOptions {
    limiter::LimiterOptions {
        limit: limit(instance),
        environment: instance.environment,
        ..limiter::LimiterOptions::default()
    }
}

fn trigger(trigger: &config::ScheduleConfig) -> Trigger {
    match trigger {
        config::ScheduleConfig::Interval(interval) => Trigger::Interval(*interval),
        config::ScheduleConfig::Cron(expression) => Trigger::Cron(expression.as_str().into()),
    }
}
