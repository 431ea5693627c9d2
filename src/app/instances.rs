//! From the configuration to what the rooms below want to know of each instance.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use file_fingerprint::ReloadStats;

use super::upstreams::{NewUpstreams, Upstreams};
use crate::config::{self, ApiUrl, Config, ProbeWhen};
use crate::metrics::{ReloadKind, Reloads};
use crate::probe::{self, Trigger};
use crate::state::{Journal, Restored};
use clerk_client::limiter::{self, RedisLimiter};
use clerk_client::outbound::{InstanceLimits, Outbound};
use clerk_client::redis::RedisClient;
use clerk_client::secret::{KeySource, SecretSource};
use clerk_client::transport::Transport;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Coverage, Limit, Moment, Settings, Source};

/// Intervals after which a value that was not seen again is too old to be true.
const STALE_INTERVALS: u32 = 3;

/// Makes the ways to the instances, and keeps what outlives a reload.
#[derive(Debug)]
pub struct Instances {
    clock: Arc<Clock>,
    upstreams: Option<Upstreams>,
    /// Of a configuration that was checked and is not in force yet.
    pending: Option<NewUpstreams>,
    ways: HashMap<Arc<str>, InstanceClient>,
    /// Further keys, which are the same ones for as long as they are configured.
    further_keys: HashMap<(Arc<str>, PathBuf), Arc<KeySource>>,
    /// Where attempts to read keys and certificate authorities are counted.
    stats: FileStats,
    /// What gateways share their budgets over.
    pub(super) store: Option<RedisClient>,
    /// Where it is written when requests are sent, and what was sent before the start.
    pub(super) journal: Option<(Arc<Journal>, Restored)>,
    /// Share of the limit that work at which nobody waits leaves to others.
    pub(super) reserve: f64,
    /// Most requests to an instance that wait for Clerk at the same time.
    pub(super) max_in_flight: usize,
}

/// Where attempts to read files are counted.
#[derive(Debug, Default)]
struct FileStats {
    keys: Arc<ReloadStats>,
    ca_file: Arc<ReloadStats>,
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
        let limiter::LimiterOptions { reserve, max_in_flight, .. } = limiter::LimiterOptions::default();
        Self {
            clock,
            upstreams: None,
            pending: None,
            ways: HashMap::new(),
            further_keys: HashMap::new(),
            stats: FileStats::default(),
            store: None,
            journal: None,
            reserve,
            max_in_flight,
        }
    }

    /// Counts attempts to read keys and certificate authorities here.
    pub(super) fn counting(mut self, reloads: &Reloads) -> Self {
        let keys = reloads.stats(ReloadKind::SecretKey);
        self.stats = FileStats { keys, ca_file: reloads.stats(ReloadKind::CaFile) };
        self
    }

    /// The present moment.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Whether a configuration can be put in force; sets up what it needs, for [`probes`](Self::probes) to take over.
    ///
    /// # Errors
    /// When an HTTP client cannot be set up.
    pub fn check(&mut self, config: &Config) -> anyhow::Result<()> {
        self.pending = self.upstreams(config)?.prepare(config.ca_file.as_deref())?;
        Ok(())
    }

    /// How each instance is probed. `ledger` knows the instances already.
    ///
    /// # Errors
    /// When an HTTP client cannot be set up.
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
        config.instances.iter().map(|instance| self.probe(instance, ledger, Arc::clone(&upstream))).collect()
    }

    /// The HTTP client of the gateway.
    ///
    /// # Errors
    /// When it cannot be set up.
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

    /// Looks at the files of keys and of certificate authorities, and takes over what has changed in them.
    pub(super) fn refresh(&mut self) {
        for (name, way) in &self.ways {
            // A new key is told by whoever uses it.
            if let Err(error) = way.key.refresh() {
                tracing::warn!(clerk_instance = &**name, %error, "the secret key stays as it was; its file is tried again");
            }
        }
        if let Some(upstreams) = &mut self.upstreams {
            upstreams.refresh();
        }
    }

    /// The further keys of an instance, and those of its machines. One that could be read once stays in force while its file cannot be.
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
        let max_in_flight = descriptors().map_or(self.max_in_flight, |open| self.max_in_flight.min(open / 4).max(1));
        let options = limiter::LimiterOptions { reserve: self.reserve, max_in_flight, ..pace_options(instance) };
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
        let way = self.ways.get(&instance.name).context("a way was just made")?;
        way.flow.limiter.reconfigure(options);
        let base = instance.api_url.as_str().to_owned();
        let (key, flow, clock) = (Arc::clone(&way.key), Arc::clone(&way.flow), Arc::clone(&self.clock));
        Ok(Outbound { transport: upstream, base, key, ledger, clock, limits: flow })
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

/// Files and connections that this process may have open; none where the system does not say.
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
