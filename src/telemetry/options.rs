//! The options of the telemetry source.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::receiver::ReceiverLimits;
use super::senders::{Attribution, Choice};
use super::span::{HostId, Hosts, InvalidHost};
use clerk_quota::ledger::Handle;

/// Attributes that tell deployments apart: the current name in OpenTelemetry's conventions, and the old one.
const INSTANCE_ATTRIBUTES: [&str; 2] = ["deployment.environment.name", "deployment.environment"];

/// The options of the telemetry source.
#[derive(Debug, Clone)]
pub struct TelemetryOptions {
    /// The instances whose calls are counted.
    pub instances: Vec<TelemetryInstance>,
    /// The attributes of resources that name the instance; the first that is present counts. Used where the host does
    /// not tell the instance.
    pub instance_attributes: Vec<Arc<str>>,
    /// The aliases of instances by the attribute's values.
    pub instance_values: BTreeMap<Arc<str>, Arc<str>>,
    /// The attributes of resources that name the caller, joined with `/`.
    pub caller_attributes: Vec<Arc<str>>,
    /// The share of spans that applications keep, above 0 and at most 1, where spans do not say it themselves.
    pub sampling_ratio: f64,
    /// Limits on requests and memory. Only those of [`Telemetry::new`](super::Telemetry::new) count.
    pub limits: ReceiverLimits,
}

/// An instance of Clerk whose calls are counted.
#[derive(Debug, Clone)]
pub struct TelemetryInstance {
    /// The alias.
    pub name: Arc<str>,
    /// The hosts of its API, each `host`, `host:port` or a URL.
    pub hosts: Vec<String>,
    /// Whether all its callers send spans, by the operator's word.
    pub is_complete: bool,
    /// Where its calls are counted. Its [`lateness`](clerk_quota::Settings::lateness) must be set.
    pub ledger: Handle,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self {
            instances: Vec::new(),
            instance_attributes: INSTANCE_ATTRIBUTES.map(Arc::from).into(),
            instance_values: BTreeMap::new(),
            caller_attributes: vec![Arc::from("service.name")],
            sampling_ratio: 1.0,
            limits: ReceiverLimits::default(),
        }
    }
}

/// Options that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidTelemetryOptions {
    /// A host that is none.
    #[error("telemetry.hosts")]
    Host(#[from] InvalidHost),
    /// A ratio that is not above 0 and at most 1.
    #[error("telemetry.sampling_ratio: {0} is not a ratio; write a number above 0 and at most 1")]
    SamplingRatio(f64),
}

/// The options in the form in which spans are looked at.
#[derive(Debug)]
pub(super) struct SpanPlan {
    pub hosts: Hosts,
    pub instances: Vec<PlannedInstance>,
    pub attribution: Attribution,
    pub caller_attributes: Vec<Arc<str>>,
    pub weight: f64,
}

#[derive(Debug)]
pub(super) struct PlannedInstance {
    pub name: Arc<str>,
    pub is_complete: bool,
    pub hosts: Vec<HostId>,
    pub ledger: Handle,
}

impl SpanPlan {
    /// Returns the instance of a call to this host.
    pub(super) fn instance(&self, choice: Choice<'_>, host: HostId) -> Option<&PlannedInstance> {
        let mut with_host = self.instances.iter().filter(|instance| instance.hosts.contains(&host));
        match choice {
            Choice::ByHost => with_host.next().filter(|_| with_host.next().is_none()),
            Choice::Named(alias) => with_host.find(|instance| *instance.name == *alias),
            Choice::Unattributed => None,
        }
    }

    pub(super) fn new(options: TelemetryOptions) -> Result<Self, InvalidTelemetryOptions> {
        let ratio = options.sampling_ratio;
        if !(ratio > 0.0 && ratio <= 1.0) {
            return Err(InvalidTelemetryOptions::SamplingRatio(ratio));
        }
        let mut hosts = Hosts::default();
        let mut instances = Vec::new();
        for instance in options.instances {
            let own = Hosts::new(instance.hosts.iter().map(String::as_str))?;
            hosts.extend(&own);
            let TelemetryInstance { name, is_complete, ledger, .. } = instance;
            instances.push(PlannedInstance { name, is_complete, hosts: own.ids().collect(), ledger });
        }
        Ok(Self {
            hosts,
            instances,
            attribution: Attribution { attributes: options.instance_attributes, values: options.instance_values },
            caller_attributes: options.caller_attributes,
            weight: 1.0 / ratio,
        })
    }
}
