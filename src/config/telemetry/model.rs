//! The telemetry source's configuration as plain, checked values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_web::ListenAddress;

/// The telemetry source: reads the applications' requests to Clerk from their traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// Listen address of the OTLP/HTTP receiver. Others can reach it only with authentication.
    pub listen: ListenAddress,
    /// TLS and authentication of the port: a Prometheus web configuration file.
    pub web_config_file: Option<PathBuf>,
    /// Hosts of Clerk's API in spans, as `host` or `host:port`. Empty: those of the instances' `api_url`.
    pub hosts: Vec<Arc<str>>,
    /// Instances all of whose callers send spans.
    pub complete: Vec<Arc<str>>,
    /// Resource attributes that name the instance, the first that is present.
    pub instance_attributes: Vec<Arc<str>>,
    /// Instances by the value of that attribute.
    pub instances: BTreeMap<Arc<str>, Arc<str>>,
    /// Resource attributes that together name the caller.
    pub caller_attributes: Vec<Arc<str>>,
    /// How long windows wait for spans; 1 s to 2 min.
    pub lateness: Duration,
    /// Share of requests that the applications report, above 0 and at most 1. A span's own ratio takes precedence.
    pub sampling_ratio: f64,
}

impl TelemetryConfig {
    /// How long the windows of an instance wait for spans; `None` if no span can belong to it.
    pub fn lateness_of(&self, instance: &str) -> Option<Duration> {
        let is_seen = self.instances.is_empty() || self.instances.values().any(|name| **name == *instance);
        is_seen.then_some(self.lateness)
    }
}
