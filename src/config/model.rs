//! The configuration as plain, checked values.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::gateway::GatewayConfig;
use super::{ApiUrl, cron};
use clerk_client::secret::SecretSource;
use clerk_quota::Environment;

/// A configuration that was checked as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// A window counts as low when less than this part of the limit is left; between 0 and 1, both excluded.
    pub low_threshold: f64,
    /// PEM file with further certificate authorities to trust when Clerk is called, beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// At least one, each with a name of its own.
    pub instances: Vec<InstanceConfig>,
    /// The gateway; `None` is off.
    pub gateway: Option<GatewayConfig>,
    /// The files that it names, as far as it was read: with another content in one of them it may be another configuration.
    pub files: Vec<PathBuf>,
    /// What is allowed but probably not meant, with its place; to be logged at start.
    pub warnings: Vec<String>,
}

/// One Clerk instance to watch.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceConfig {
    /// The alias that labels carry: 1 to 64 printable characters, no part of a key.
    pub name: Arc<str>,
    /// Where the secret key is kept. It was readable when the configuration was checked.
    pub key: SecretSource,
    /// Other keys of the same Clerk instance, which share its budget.
    pub further_keys: Vec<SecretSource>,
    /// Secret keys of the instance's machines (`ak_`), which share its budget, too.
    pub machine_keys: Vec<SecretSource>,
    /// The kind of instance, by the prefix of its key when the configuration was checked.
    pub environment: Environment,
    /// Where the Backend API is.
    pub api_url: ApiUrl,
    /// What is known about the rate limit before Clerk says anything.
    pub limit: LimitSetting,
    /// How many users the plan allows, for `clerk_users_limit`.
    pub users_limit: Option<u64>,
    /// How the quota is probed.
    pub probe: ProbeConfig,
    /// How often users are counted; `None` is never.
    pub users: Option<UsersConfig>,
}

/// When something is done again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleConfig {
    /// Every so often, by the monotonic clock.
    Interval(Duration),
    /// A cron expression of six fields, seconds first, in UTC.
    Cron(String),
}

/// Whether a probe is made although other traffic has just told us the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeWhen {
    /// Only if nothing was observed within the interval.
    Idle,
    /// Always.
    Always,
}

/// How one instance is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// When probes are due. Intervals are 1 s to 1 h.
    pub trigger: ScheduleConfig,
    /// Time for one probe as a whole; 100 ms to 60 s.
    pub timeout: Duration,
    /// Path and query of the GET request, beginning with `/v1/`.
    pub path: String,
    /// Whether a probe is made although the quota is known.
    pub when: ProbeWhen,
}

impl ProbeConfig {
    /// The time between two probes; of a cron expression, the longest.
    pub fn interval(&self) -> Duration {
        match &self.trigger {
            ScheduleConfig::Interval(interval) => *interval,
            // Expressions were checked: without the error there would be no `Probe`.
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

/// The rate limit, as far as the configuration tells it. Clerk's own headers win over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSetting {
    /// Clerk's published limit for the kind of instance that the key's prefix names.
    FromKeyPrefix,
    /// A named preset.
    Plan(Plan),
    /// So many requests in each window.
    Fixed {
        /// At least 1.
        requests: u64,
        /// 1 s to 24 h.
        window: Duration,
    },
}

/// Named limits. `Development` and `Production` are those of Clerk's documentation ("System limits"); `Free` and `Pro`
/// are tighter budgets for those who want to stay below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// 20 requests in 10 s, 40 in a burst.
    Free,
    /// 100 requests in 10 s, 200 in a burst.
    Pro,
    /// 100 requests in 10 s.
    Development,
    /// 1000 requests in 10 s.
    Production,
}

impl Plan {
    /// Every plan, in the order in which messages list them.
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

    /// Requests that may come at once, where that is more than a window's.
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
    /// Requests and window of the rate limit as configured, or as published for the key's prefix. `None` if neither
    /// tells it.
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
