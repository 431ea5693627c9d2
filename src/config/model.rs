//! The configuration as plain, checked values.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::gateway::GatewayConfig;
use super::telemetry::TelemetryConfig;
use super::{ApiUrl, cron};
use clerk_client::redis::{RedisOptions, RedisPassword};
use clerk_client::secret::{SecretError, SecretSource};
use clerk_quota::Environment;
use clerk_quota::metered::MeteredPlan;

/// A configuration that was checked as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// A window counts as low when less than this share of the limit is left; between 0 and 1, exclusive.
    pub low_threshold: f64,
    /// PEM file with certificate authorities to trust for connections to Clerk, in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// At least one, with unique names.
    pub instances: Vec<InstanceConfig>,
    /// The Redis that several processes share; `None`: this process is on its own.
    pub redis: Option<RedisConfig>,
    /// The gateway; `None`: off.
    pub gateway: Option<GatewayConfig>,
    /// The telemetry source; `None`: off.
    pub telemetry: Option<TelemetryConfig>,
    /// The files that it names, as far as it was read. A change in one of them may change the configuration.
    pub files: Vec<PathBuf>,
    /// Probable mistakes that are allowed, with their position; to be logged at start.
    pub warnings: Vec<String>,
}

/// A Redis that several processes share.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisConfig {
    /// Its URL.
    pub url: SecretSource,
    /// Where its password is; `None`: in the URL, or there is none.
    pub password: Option<RedisPasswordConfig>,
    /// How the names of keys and channels begin; printable ASCII without `{`, at most 128 bytes.
    pub prefix: String,
}

/// Where the password of a Redis is read at each connect.
#[derive(Clone, PartialEq)]
pub enum RedisPasswordConfig {
    /// A file.
    File(SecretSource),
    /// The output of a command: a program and its arguments.
    Command(Vec<String>),
}

/// Without the arguments of a command, which may contain a secret.
impl fmt::Debug for RedisPasswordConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            Self::Command(_) => f.debug_tuple("Command").finish_non_exhaustive(),
        }
    }
}

impl RedisConfig {
    /// The options of a client.
    ///
    /// # Errors
    /// Returns an error if the URL cannot be read.
    pub fn options(&self) -> Result<RedisOptions, SecretError> {
        let password = self.password.as_ref().map(|password| match password {
            RedisPasswordConfig::File(file) => RedisPassword::file(file.file().unwrap_or_default()),
            RedisPasswordConfig::Command(words) => RedisPassword::command(words),
        });
        Ok(RedisOptions::new(self.url.read()?).prefix(&*self.prefix).password(password))
    }
}

/// A monitored Clerk instance.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceConfig {
    /// The alias in labels: 1 to 64 printable characters, no part of a key.
    pub name: Arc<str>,
    /// Where the secret key is stored. It was readable when the configuration was checked.
    pub key: SecretSource,
    /// Other keys of the same Clerk instance, which share its budget.
    pub further_keys: Vec<SecretSource>,
    /// Secret keys of the instance's machines (`ak_`), which also share its budget.
    pub machine_keys: Vec<SecretSource>,
    /// The kind of instance, by the prefix of its key when the configuration was checked.
    pub environment: Environment,
    /// Address of the Backend API.
    pub api_url: ApiUrl,
    /// The rate limit that is assumed until Clerk's headers state it.
    pub limit: LimitSetting,
    /// Number of users that the plan allows, for `clerk_users_limit`.
    pub users_limit: Option<u64>,
    /// How the quota is probed.
    pub probe: ProbeConfig,
    /// How often users are counted; `None`: never.
    pub users: Option<UsersConfig>,
    /// Free parts, prices and the billing day of operations that Clerk bills.
    pub metered: MeteredPlan,
}

/// When a task is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleConfig {
    /// At this interval, by the monotonic clock.
    Interval(Duration),
    /// A cron expression of six fields, seconds first, in UTC.
    Cron(String),
}

/// When to probe although other traffic may report the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeWhen {
    /// Only if nothing was observed within the interval.
    Idle,
    /// Always.
    Always,
    /// Never: another process does.
    Never,
}

/// How one instance is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// When probes are due. Intervals are 1 s to 1 h.
    pub trigger: ScheduleConfig,
    /// Deadline of one probe; 100 ms to 60 s.
    pub timeout: Duration,
    /// Path and query of the GET request; starts with `/v1/`.
    pub path: String,
    /// Whether to probe although the quota is known.
    pub when: ProbeWhen,
    /// How long one of several processes has the right to probe, unless it renews it; 5 s to 5 min. `None`: this process
    /// probes, whatever others do.
    pub lease: Option<Duration>,
}

impl ProbeConfig {
    /// The length of the lease; `None` also if this process never probes.
    pub fn lease_in_use(&self) -> Option<Duration> {
        self.lease.filter(|_| self.when != ProbeWhen::Never)
    }

    /// The time between two probes; for a cron expression, the longest.
    pub fn interval(&self) -> Duration {
        match &self.trigger {
            ScheduleConfig::Interval(interval) => *interval,
            // Expressions are checked when read: an invalid one never gets into a `Probe`.
            ScheduleConfig::Cron(expression) => {
                cron::parse(expression).map_or(Duration::from_secs(60), |cron| cron::longest_gap(&cron))
            }
        }
    }
}

/// How often users are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersConfig {
    /// When a count is due. Intervals are 1 min to 24 h.
    pub trigger: ScheduleConfig,
}

/// The configured rate limit. Clerk's headers take precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSetting {
    /// Clerk's published limit for the kind of instance in the key's prefix.
    FromKeyPrefix,
    /// A named preset.
    Plan(Plan),
    /// This number of requests per window.
    Fixed {
        /// At least 1.
        requests: u64,
        /// 1 s to 24 h.
        window: Duration,
    },
}

/// Named limits. `Development` and `Production` are those of Clerk's documentation ("System limits"); `Free` and `Pro`
/// are tighter budgets for staying below them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// 20 requests in 10 s, with bursts of 40.
    Free,
    /// 100 requests in 10 s, with bursts of 200.
    Pro,
    /// 100 requests in 10 s.
    Development,
    /// 1000 requests in 10 s.
    Production,
}

impl Plan {
    /// Every plan, in the order of messages.
    pub const ALL: [Self; 4] = [Self::Free, Self::Pro, Self::Development, Self::Production];

    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Pro => "pro",
            Self::Development => "development",
            Self::Production => "production",
        }
    }

    /// Requests in each [`window`](Self::window).
    pub const fn requests(self) -> u64 {
        match self {
            Self::Free => 20,
            Self::Pro | Self::Development => 100,
            Self::Production => 1000,
        }
    }

    /// Burst size, if larger than [`requests`](Self::requests).
    pub const fn burst(self) -> Option<u64> {
        match self {
            Self::Free => Some(40),
            Self::Pro => Some(200),
            Self::Development | Self::Production => None,
        }
    }

    /// The length of the window.
    pub const fn window(self) -> Duration {
        Duration::from_secs(10)
    }
}

impl InstanceConfig {
    /// The configured limit, or the published one for the key's prefix, as requests and window. `None` if both are
    /// unknown.
    pub fn limit(&self) -> Option<(u64, Duration)> {
        let plan = match (self.limit, self.environment) {
            (LimitSetting::Fixed { requests, window }, _) => return Some((requests, window)),
            (LimitSetting::Plan(plan), _) => plan,
            (LimitSetting::FromKeyPrefix, Environment::Production) => Plan::Production,
            (LimitSetting::FromKeyPrefix, Environment::Development) => Plan::Development,
            (LimitSetting::FromKeyPrefix, Environment::Unknown) => return None,
        };
        Some((plan.requests(), plan.window()))
    }
}
