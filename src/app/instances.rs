//! From the configuration to what the rooms below want to know of each instance.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::clock::Clock;
use crate::config::{self, Config, When};
use crate::outbound::Outbound;
use crate::probe::{self, Trigger};
use crate::quota::ledger::Ledger;
use crate::quota::{Limit, Moment, Settings, Source};
use crate::secret::KeySource;
use crate::upstream::{self, ReqwestUpstream, Upstream};

/// Intervals after which a value that was not seen again is too old to be true.
const STALE_INTERVALS: u32 = 3;

/// Makes the ways to the instances, and keeps what outlives a reload.
#[derive(Debug)]
pub struct Instances {
    clock: Arc<Clock>,
    upstream: Option<(upstream::Options, Arc<ReqwestUpstream>)>,
}

impl Instances {
    /// No instances yet.
    #[must_use]
    pub const fn new(clock: Arc<Clock>) -> Self {
        Self { clock, upstream: None }
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
        anyhow::ensure!(
            config.gateway.is_none(),
            "the gateway is not part of this version; remove the section `gateway`"
        );
        self.upstream(config).map(drop)
    }

    /// How each instance is probed. `ledger` knows the instances already.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn probes(&mut self, config: &Config, ledger: &Ledger) -> anyhow::Result<Vec<probe::Options>> {
        let upstream = self.upstream(config)?;
        config.instances.iter().map(|instance| self.probe(instance, ledger, Arc::clone(&upstream))).collect()
    }

    /// The HTTP client: the one there is, with its connections, unless its options change.
    fn upstream(&mut self, config: &Config) -> anyhow::Result<Arc<dyn Upstream>> {
        let options = upstream::Options { ca_file: config.ca_file.clone(), ..upstream::Options::default() };
        match &self.upstream {
            Some((known, upstream)) if *known == options => Ok(Arc::<ReqwestUpstream>::clone(upstream)),
            _ => {
                let upstream = ReqwestUpstream::new(options.clone())?;
                self.upstream = Some((options, Arc::clone(&upstream)));
                Ok(upstream)
            }
        }
    }

    fn probe(
        &self,
        instance: &config::Instance,
        ledger: &Ledger,
        upstream: Arc<dyn Upstream>,
    ) -> anyhow::Result<probe::Options> {
        let outbound = Outbound::new(
            upstream,
            instance.api_url.as_str().to_owned(),
            Arc::new(KeySource::new(instance.key.clone())),
            ledger.instance(&instance.name).context("an instance is missing in the ledger")?,
            Arc::clone(&self.clock),
        );
        Ok(probe::Options {
            name: Arc::clone(&instance.name),
            trigger: trigger(&instance.probe.trigger),
            interval: instance.probe.interval(),
            timeout: instance.probe.timeout,
            path: instance.probe.path.clone(),
            only_when_idle: instance.probe.when == When::Idle,
            count_users: instance.users.as_ref().map(|users| trigger(&users.trigger)),
            outbound: Arc::new(outbound),
        })
    }
}

/// What the ledger wants to know of an instance.
#[must_use]
pub fn settings(instance: &config::Instance, low_threshold: f64) -> Settings {
    Settings {
        name: Arc::clone(&instance.name),
        environment: instance.environment,
        api_host: instance.api_url.host().into(),
        limit: instance.limit().map(|(requests, window): (u64, Duration)| Limit { requests, window }),
        users_limit: instance.users_limit,
        low_threshold,
        stale_after: instance.probe.interval().saturating_mul(STALE_INTERVALS),
        sources: vec![Source::Probe],
    }
}

fn trigger(trigger: &config::Trigger) -> Trigger {
    match trigger {
        config::Trigger::Interval(interval) => Trigger::Interval(*interval),
        config::Trigger::Cron(expression) => Trigger::Cron(expression.as_str().into()),
    }
}
