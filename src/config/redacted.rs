//! The configuration in force as YAML, without secrets.
//!
//! The views below are serialized, so that every value is quoted where YAML needs it. Their fields are the keys of the
//! file: the text can be read back, unless a key was written into the file itself.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_saphyr::DoubleQuoted;

use super::gateway::redacted::GatewayView;
use super::metered::MeteredView;
use super::model::{Config, InstanceConfig, LimitSetting, ProbeWhen, RedisPasswordConfig, ScheduleConfig};
use super::telemetry::redacted::TelemetryView;
use clerk_client::secret::{REDACTED, SecretSource};

impl Config {
    /// The configuration in force as YAML, with every default and with every secret as `<secret>`.
    pub fn masked_yaml(&self) -> String {
        // Views have no value that YAML lacks.
        serde_saphyr::to_string(&ConfigView::of(self)).unwrap_or_default()
    }
}

/// Free text, always in quotes.
pub(super) type Text = DoubleQuoted<String>;

pub(super) fn text(text: impl ToString) -> Text {
    DoubleQuoted(text.to_string())
}

pub(super) fn path(path: &Path) -> Text {
    text(path.display())
}

/// The path of a secret's file; any other secret is masked.
pub(super) fn secret_file(source: &SecretSource) -> Text {
    match source {
        SecretSource::File(file) => path(file),
        SecretSource::Env(_) | SecretSource::Inline(_) => text(REDACTED),
    }
}

/// The program. Its arguments may contain a secret.
fn masked_command(words: &[String]) -> Vec<Text> {
    let masked = |(index, word)| if index == 0 { text(word) } else { text(REDACTED) };
    words.iter().enumerate().map(masked).collect()
}

pub(super) fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[derive(Serialize)]
struct ConfigView {
    low_threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_config: Option<TlsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_url_file: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_password_file: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_password_command: Option<Vec<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_prefix: Option<Text>,
    instances: Vec<InstanceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<GatewayView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    telemetry: Option<TelemetryView>,
}

#[derive(Serialize)]
struct TlsView {
    ca_file: Text,
}

#[derive(Serialize)]
struct InstanceView {
    name: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_key_file: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_key_env: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_key: Option<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    further_secret_key_files: Vec<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    machine_secret_key_files: Vec<Text>,
    api_url: Text,
    /// Neither a plan nor a limit: the limit follows from the key's prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<LimitView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    users_limit: Option<u64>,
    probe: ProbeView,
    users: UsersView,
    metered: MeteredView,
}

#[derive(Serialize)]
struct LimitView {
    requests: u64,
    window: String,
}

#[derive(Serialize)]
struct ProbeView {
    #[serde(flatten)]
    trigger: TriggerView,
    timeout: String,
    path: Text,
    when: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum UsersView {
    Off(&'static str),
    On(TriggerView),
}

#[derive(Serialize)]
struct TriggerView {
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
}

impl ConfigView {
    fn of(config: &Config) -> Self {
        let (redis_password_file, redis_password_command) =
            match config.redis.as_ref().and_then(|redis| redis.password.as_ref()) {
                Some(RedisPasswordConfig::File(file)) => (Some(secret_file(file)), None),
                Some(RedisPasswordConfig::Command(words)) => (None, Some(masked_command(words))),
                None => (None, None),
            };
        Self {
            low_threshold: config.low_threshold,
            tls_config: config.ca_file.as_deref().map(|file| TlsView { ca_file: path(file) }),
            redis_url_file: config.redis.as_ref().map(|redis| secret_file(&redis.url)),
            redis_password_file,
            redis_password_command,
            redis_prefix: config.redis.as_ref().map(|redis| text(&redis.prefix)),
            instances: config.instances.iter().map(InstanceView::of).collect(),
            gateway: config.gateway.as_ref().map(GatewayView::of),
            telemetry: config.telemetry.as_ref().map(TelemetryView::of),
        }
    }
}

impl InstanceView {
    fn of(instance: &InstanceConfig) -> Self {
        let (mut file, mut env, mut inline) = (None, None, None);
        match &instance.key {
            SecretSource::File(name) => file = Some(path(name)),
            SecretSource::Env(name) => env = Some(text(name)),
            SecretSource::Inline(_) => inline = Some(text(REDACTED)),
        }
        let (plan, limit) = match instance.limit {
            LimitSetting::FromKeyPrefix => (None, None),
            LimitSetting::Plan(plan) => (Some(plan.as_str()), None),
            LimitSetting::Fixed { requests, window } => (None, Some(LimitView { requests, window: duration(window) })),
        };
        let probe = &instance.probe;
        Self {
            name: text(&instance.name),
            secret_key_file: file,
            secret_key_env: env,
            secret_key: inline,
            further_secret_key_files: instance.further_keys.iter().map(secret_file).collect(),
            machine_secret_key_files: instance.machine_keys.iter().map(secret_file).collect(),
            api_url: text(instance.api_url.as_str()),
            plan,
            limit,
            users_limit: instance.users_limit,
            probe: ProbeView {
                trigger: TriggerView::of(&probe.trigger),
                timeout: duration(probe.timeout),
                path: text(&probe.path),
                when: match probe.when {
                    ProbeWhen::Idle => "idle",
                    ProbeWhen::Always => "always",
                    ProbeWhen::Never => "never",
                },
                lease: probe.lease.map(duration),
            },
            users: match &instance.users {
                None => UsersView::Off("off"),
                Some(users) => UsersView::On(TriggerView::of(&users.trigger)),
            },
            metered: MeteredView::of(&instance.metered),
        }
    }
}

impl TriggerView {
    fn of(trigger: &ScheduleConfig) -> Self {
        match trigger {
            ScheduleConfig::Interval(interval) => Self { interval: Some(duration(*interval)), schedule: None },
            ScheduleConfig::Cron(expression) => Self { interval: None, schedule: Some(expression.clone()) },
        }
    }
}
