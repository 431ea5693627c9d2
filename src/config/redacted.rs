//! The configuration in force as YAML, for people to look at.

use std::fmt::{self, Write};
use std::path::Path;

use super::gateway;
use super::model::{Config, InstanceConfig, LimitSetting, ProbeWhen, ScheduleConfig};
use clerk_client::secret::{REDACTED, SecretSource};

impl Config {
    /// The configuration in force, with every default filled in and every secret as `<secret>`. Valid YAML; it can be
    /// read back as a configuration if no key was written into it.
    pub fn masked_yaml(&self) -> String {
        let mut out = String::new();
        // Writing into a string cannot fail.
        let _ = write_config(&mut out, self);
        out
    }
}

fn write_config(out: &mut String, config: &Config) -> fmt::Result {
    writeln!(out, "low_threshold: {}", config.low_threshold)?;
    if let Some(path) = &config.ca_file {
        writeln!(out, "tls_config:\n  ca_file: {}", quoted_path(path))?;
    }
    writeln!(out, "instances:")?;
    config.instances.iter().try_for_each(|instance| write_instance(out, instance))?;
    config.gateway.iter().try_for_each(|section| gateway::redacted::write(out, section))
}

fn write_instance(out: &mut String, instance: &InstanceConfig) -> fmt::Result {
    writeln!(out, "  - name: {}", quoted(&instance.name))?;
    match &instance.key {
        SecretSource::File(path) => writeln!(out, "    secret_key_file: {}", quoted_path(path))?,
        SecretSource::Env(name) => writeln!(out, "    secret_key_env: {}", quoted(name))?,
        SecretSource::Inline(_) => writeln!(out, "    secret_key: {}", quoted(REDACTED))?,
    }
    write_keys(out, "further_secret_key_files", &instance.further_keys)?;
    write_keys(out, "machine_secret_key_files", &instance.machine_keys)?;
    writeln!(out, "    api_url: {}", quoted(instance.api_url.as_str()))?;
    match instance.limit {
        LimitSetting::FromKeyPrefix => {
            writeln!(out, "    # limit: by the prefix of the key ({})", instance.environment)?
        }
        LimitSetting::Plan(plan) => writeln!(out, "    plan: {}", plan.as_str())?,
        LimitSetting::Fixed { requests, window } => {
            let window = humantime::format_duration(window);
            writeln!(out, "    limit:\n      requests: {requests}\n      window: {window}")?;
        }
    }
    if let Some(limit) = instance.users_limit {
        writeln!(out, "    users_limit: {limit}")?;
    }
    let probe = &instance.probe;
    writeln!(out, "    probe:")?;
    write_trigger(out, &probe.trigger)?;
    writeln!(out, "      timeout: {}", humantime::format_duration(probe.timeout))?;
    writeln!(out, "      path: {}", quoted(&probe.path))?;
    writeln!(
        out,
        "      when: {}",
        match probe.when {
            ProbeWhen::Idle => "idle",
            ProbeWhen::Always => "always",
        }
    )?;
    match &instance.users {
        None => writeln!(out, "    users: off"),
        Some(users) => {
            writeln!(out, "    users:")?;
            write_trigger(out, &users.trigger)
        }
    }
}

fn write_keys(out: &mut String, name: &str, keys: &[SecretSource]) -> fmt::Result {
    if !keys.is_empty() {
        writeln!(out, "    {name}:")?;
    }
    for key in keys {
        match key {
            SecretSource::File(path) => writeln!(out, "      - {}", quoted_path(path))?,
            SecretSource::Env(_) | SecretSource::Inline(_) => writeln!(out, "      - {}", quoted(REDACTED))?,
        }
    }
    Ok(())
}

fn write_trigger(out: &mut String, trigger: &ScheduleConfig) -> fmt::Result {
    match trigger {
        ScheduleConfig::Interval(interval) => {
            writeln!(out, "      interval: {}", humantime::format_duration(*interval))
        }
        ScheduleConfig::Cron(expression) => writeln!(out, "      schedule: {}", quoted(expression)),
    }
}

/// A double-quoted scalar. JSON strings are YAML (YAML 1.2.2, section 1.3).
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(super) fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}
