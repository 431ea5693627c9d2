//! Builds the parts of each instance from the configuration.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use file_fingerprint::ReloadStats;

use super::leases::Leases;
use super::upstreams::{NewUpstreams, Upstreams};
use crate::config::{self, ApiUrl, Config, ProbeWhen};
use crate::metrics::{ReloadKind, Reloads};
use crate::probe::{self, ProbeLease, Trigger};
use crate::state::{Journal, Restored};
use clerk_client::limiter::{self, RedisLimiter};
use clerk_client::outbound::{InstanceLimits, Outbound};
use clerk_client::redis::RedisClient;
use clerk_client::secret::{KeySource, SecretSource};
use clerk_client::transport::Transport;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Coverage, Limit, Moment, Settings, Source};

/// Number of intervals without a new observation after which a value is stale.
const STALE_INTERVALS: u32 = 3;

/// Builds the outbound clients, and holds what outlives a reload.
#[derive(Debug)]
pub struct Instances {
    clock: Arc<Clock>,
    upstreams: Option<Upstreams>,
    /// Clients of a configuration that was checked and is not applied yet.
    pending: Option<NewUpstreams>,
    ways: HashMap<Arc<str>, InstanceClient>,
    /// Further keys. A key source is reused while it stays configured.
    further_keys: HashMap<(Arc<str>, PathBuf), Arc<KeySource>>,
    /// Counters of attempts to read keys and certificate authorities.
    stats: FileStats,
    /// The Redis through which processes share the budgets.
    pub(super) store: Option<RedisClient>,
    /// The leases of the right to probe, which need that Redis.
    pub(super) leases: Option<Arc<Leases>>,
    /// The journal of sent requests, and the requests sent before the start.
    pub(super) journal: Option<(Arc<Journal>, Restored)>,
    /// Share of the limit reserved for callers of high priority.
    pub(super) reserve: f64,
    /// Whether the last probe of each instance is kept step by step.
    pub(super) keep_stories: bool,
    /// Maximum number of requests in flight per instance.
    pub(super) max_in_flight: usize,
}

/// Counters of attempts to read files.
#[derive(Debug, Default)]
struct FileStats {
    keys: Arc<ReloadStats>,
    ca_file: Arc<ReloadStats>,
}

/// State shared by all requests to an instance: from probes and the gateway, across reloads.
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
        let limiter::LimiterOptions { reserve, max_in_flight, .. } = limiter::LimiterOptions::default();
        Self {
            clock,
            upstreams: None,
            pending: None,
            ways: HashMap::new(),
            further_keys: HashMap::new(),
            stats: FileStats::default(),
            store: None,
            leases: None,
            journal: None,
            reserve,
            keep_stories: false,
            max_in_flight,
        }
    }

    /// Sets the counters of attempts to read keys and certificate authorities.
    pub(super) fn counting(mut self, reloads: &Reloads) -> Self {
        let keys = reloads.stats(ReloadKind::SecretKey);
        self.stats = FileStats { keys, ca_file: reloads.stats(ReloadKind::CaFile) };
        self
    }

    /// The current time.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Checks whether a configuration can be applied, and prepares what it needs for [`probes`](Self::probes).
    ///
    /// # Errors
    /// Returns an error if an HTTP client cannot be built.
    pub fn check(&mut self, config: &Config) -> anyhow::Result<()> {
        self.pending = self.upstreams(config)?.prepare(config.ca_file.as_deref())?;
        Ok(())
    }

    /// The probing options of each instance. `ledger` must contain the instances.
    ///
    /// # Errors
    /// Returns an error if an HTTP client cannot be built.
    pub fn probes(&mut self, config: &Config, ledger: &Ledger) -> anyhow::Result<Vec<probe::ProbeOptions>> {
        if self.pending.is_none() {
            self.check(config)?;
        }
        let pending = self.pending.take();
        let upstreams = self.upstreams(config)?;
        if let Some(pending) = pending {
            upstreams.install(pending);
        }
        let upstream = upstreams.of_probes();
        self.ways.retain(|name, _| config.instances.iter().any(|instance| instance.name == *name));
        if let Some(leases) = &self.leases {
            leases.retain(config);
        }
        config.instances.iter().map(|instance| self.probe(instance, ledger, Arc::clone(&upstream))).collect()
    }

    /// The gateway's HTTP client.
    ///
    /// # Errors
    /// Returns an error if it cannot be built.
    pub(super) fn gateway_upstream(&mut self, config: &Config, http2: bool) -> anyhow::Result<Arc<dyn Transport>> {
        Ok(self.upstreams(config)?.of_gateway(http2)?)
    }

    fn upstreams(&mut self, config: &Config) -> anyhow::Result<&mut Upstreams> {
        let upstreams = match self.upstreams.take() {
            Some(upstreams) => upstreams,
            None => Upstreams::new(config.ca_file.as_deref(), Arc::clone(&self.stats.ca_file))?,
        };
        Ok(self.upstreams.insert(upstreams))
    }

    /// Reloads keys and certificate authorities whose files have changed.
    pub(super) fn refresh(&mut self) {
        for (name, way) in &self.ways {
            // The probes and the gateway log new keys.
            if let Err(error) = way.key.refresh() {
                tracing::warn!(
                    clerk_instance = &**name, %error,
                    "failed to reload the secret key; using the previous one and retrying"
                );
            }
        }
        if let Some(upstreams) = &mut self.upstreams {
            upstreams.refresh();
        }
    }

    /// The further keys and the machine keys of an instance. If the file of a key becomes unreadable, the key stays in
    /// use.
    pub(super) fn further_keys(&mut self, instance: &config::InstanceConfig) -> Vec<Arc<KeySource>> {
        let of_users = instance.further_keys.iter().map(|source| (source, false));
        let sources: Vec<_> = of_users.chain(instance.machine_keys.iter().map(|source| (source, true))).collect();
        self.further_keys.retain(|(name, path), _| {
            *name != instance.name || sources.iter().any(|(it, _)| it.file().as_ref() == Some(path))
        });
        let mut keys = Vec::new();
        for (source, is_machine) in sources {
            let made = || {
                let key = KeySource::counting(source.clone(), Arc::clone(&self.stats.keys));
                Arc::new(if is_machine { key.for_machine() } else { key })
            };
            keys.push(match source.file() {
                Some(path) => {
                    Arc::clone(self.further_keys.entry((Arc::clone(&instance.name), path)).or_insert_with(made))
                }
                None => made(),
            });
        }
        keys
    }

    /// An outbound client of an instance over this HTTP client. All clients of an instance share its key, limiter and
    /// retry budget.
    ///
    /// # Errors
    /// Returns an error if the ledger does not contain the instance.
    pub(super) fn outbound(
        &mut self,
        instance: &config::InstanceConfig,
        ledger: &Ledger,
        upstream: Arc<dyn Transport>,
    ) -> anyhow::Result<Outbound> {
        let max_in_flight = descriptors().map_or(self.max_in_flight, |open| self.max_in_flight.min(open / 4).max(1));
        let options = pace_options(instance).reserve(self.reserve).max_in_flight(max_in_flight);
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
                key: Arc::new(KeySource::counting(instance.key.clone(), Arc::clone(&self.stats.keys))),
                flow: Arc::new(flow),
            };
            self.ways.insert(Arc::clone(&instance.name), way);
        }
        let way = self.ways.get(&instance.name).context("the instance's client is missing")?;
        way.flow.limiter.reconfigure(options);
        let base = instance.api_url.as_str().to_owned();
        let (key, flow, clock) = (Arc::clone(&way.key), Arc::clone(&way.flow), Arc::clone(&self.clock));
        Ok(Outbound { transport: upstream, base, key, ledger, clock, limits: flow, log: None })
    }

    fn probe(
        &mut self,
        instance: &config::InstanceConfig,
        ledger: &Ledger,
        upstream: Arc<dyn Transport>,
    ) -> anyhow::Result<probe::ProbeOptions> {
        let outbound = self.outbound(instance, ledger, upstream)?;
        let lease = self.lease(instance, &outbound);
        Ok(probe::ProbeOptions {
            name: Arc::clone(&instance.name),
            trigger: (instance.probe.when != ProbeWhen::Never).then(|| trigger(&instance.probe.trigger)),
            interval: instance.probe.interval(),
            timeout: instance.probe.timeout,
            path: instance.probe.path.clone(),
            only_when_idle: instance.probe.when == ProbeWhen::Idle,
            count_users: instance.users.as_ref().map(|users| trigger(&users.trigger)),
            keeps_story: self.keep_stories,
            lease,
            outbound: Arc::new(outbound),
        })
    }

    /// Until it is known which process probes an instance, this one is a standby.
    fn lease(&self, instance: &config::InstanceConfig, outbound: &Outbound) -> Option<Arc<ProbeLease>> {
        let lease = self
            .leases
            .as_ref()
            .zip(instance.probe.lease_in_use())
            .map(|(leases, length)| leases.of(&instance.name, length));
        match lease {
            Some((_, false)) => {}
            Some((_, true)) => outbound.ledger.lock().set_standby(true),
            None => outbound.ledger.lock().set_standby(false),
        }
        lease.map(|(lease, _)| lease)
    }
}

/// The ledger settings of an instance.
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
        sources: is_asked(instance).then_some(Source::Probe).into_iter().collect(),
        coverage: Coverage::Part,
        lateness: None,
    }
}

/// Whether this process itself asks Clerk about the instance.
fn is_asked(instance: &config::InstanceConfig) -> bool {
    instance.probe.when != ProbeWhen::Never || instance.users.is_some()
}

/// The ledger settings of all instances, as observed by probes and, if configured, by the gateway and in traces.
pub(super) fn all_settings(config: &Config) -> impl Iterator<Item = Settings> {
    let gateway = config.gateway.as_ref().map(|_| Source::Gateway);
    config.instances.iter().map(move |instance| {
        let mut settings = settings(instance, config.low_threshold);
        settings.sources.extend(gateway);
        settings.lateness = config.telemetry.as_ref().and_then(|telemetry| telemetry.lateness_of(&instance.name));
        settings.sources.extend(settings.lateness.map(|_| Source::Telemetry));
        settings.coverage = coverage(config);
        settings
    })
}

/// Which part of the applications' requests is counted here: all if the gateway is the only one, or if all gateways
/// count in Redis. Otherwise the count does not yield the remaining quota.
fn coverage(config: &Config) -> Coverage {
    match &config.gateway {
        Some(_) if config.redis.is_some() => Coverage::Fleet,
        Some(gateway) if gateway.sole => Coverage::Sole,
        _ => Coverage::Part,
    }
}

fn limit(instance: &config::InstanceConfig) -> Option<Limit> {
    instance.limit().map(|(requests, window): (u64, Duration)| Limit { requests, window })
}

fn pace_options(instance: &config::InstanceConfig) -> limiter::LimiterOptions {
    limiter::LimiterOptions::default().limit(limit(instance)).environment(instance.environment)
}

/// Maximum number of open files and connections of this process; `None` if unknown.
fn descriptors() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

fn trigger(trigger: &config::ScheduleConfig) -> Trigger {
    match trigger {
        config::ScheduleConfig::Interval(interval) => Trigger::Interval(*interval),
        config::ScheduleConfig::Cron(expression) => Trigger::Cron(expression.as_str().into()),
    }
}
