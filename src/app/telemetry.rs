//! Builds the receiver of traces from the section `telemetry`.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;

use crate::config::{self, Config};
use crate::telemetry::{Telemetry, TelemetryInstance, TelemetryOptions};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;

/// Builds the receiver and keeps it up to date.
#[derive(Debug)]
pub(super) struct TelemetryRunner {
    /// The configuration at start. Listen addresses change only with a restart.
    started: config::TelemetryConfig,
    receiver: Arc<Telemetry>,
}

impl TelemetryRunner {
    /// Builds the receiver.
    ///
    /// # Errors
    /// Returns an error if a host is invalid.
    pub(super) fn new(
        config: &Config,
        section: &config::TelemetryConfig,
        ledger: &Ledger,
        clock: Arc<Clock>,
    ) -> anyhow::Result<Self> {
        let receiver = Telemetry::new(options(config, section, ledger)?, clock)?;
        Ok(Self { started: section.clone(), receiver: Arc::new(receiver) })
    }

    /// The receiver.
    pub(super) const fn receiver(&self) -> &Arc<Telemetry> {
        &self.receiver
    }

    /// Applies another configuration.
    ///
    /// # Errors
    /// As [`TelemetryRunner::new`]; then nothing changes.
    pub(super) fn configure(&self, config: &Config, ledger: &Ledger) -> anyhow::Result<()> {
        let Some(section) = &config.telemetry else {
            tracing::warn!("the section `telemetry` was removed; traces are received until a restart");
            return Ok(());
        };
        let fixed = |it: &config::TelemetryConfig| (it.listen.clone(), it.web_config_file.clone());
        if fixed(section) != fixed(&self.started) {
            tracing::warn!("telemetry: listen_address and web_config_file change only on restart");
        }
        self.receiver.configure(options(config, section, ledger)?)?;
        Ok(())
    }
}

fn options(config: &Config, section: &config::TelemetryConfig, ledger: &Ledger) -> anyhow::Result<TelemetryOptions> {
    let complete: BTreeSet<_> = section.complete.iter().collect();
    let mut instances = Vec::new();
    for instance in &config.instances {
        let hosts = if section.hosts.is_empty() {
            vec![instance.api_url.as_str().to_owned()]
        } else {
            section.hosts.iter().map(ToString::to_string).collect()
        };
        instances.push(TelemetryInstance {
            name: Arc::clone(&instance.name),
            hosts,
            is_complete: complete.contains(&instance.name),
            ledger: ledger.instance(&instance.name).context("an instance without a ledger")?,
        });
    }
    Ok(TelemetryOptions {
        instances,
        instance_attributes: section.instance_attributes.clone(),
        instance_values: section.instances.clone(),
        caller_attributes: section.caller_attributes.clone(),
        sampling_ratio: section.sampling_ratio,
        ..TelemetryOptions::default()
    })
}
