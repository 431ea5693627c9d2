//! The share of an instance's rate limit that the exporter's own requests use.

use std::time::Duration;

use super::cron;
use super::model::{InstanceConfig, ProbeConfig, ProbeWhen, ScheduleConfig, UsersConfig};

/// Above this share of the limit, the configuration gets a warning.
pub(super) const WARN_ABOVE: f64 = 0.05;
/// Above this share of the limit, the configuration is rejected.
pub(super) const REFUSE_ABOVE: f64 = 0.5;

/// A user count takes two requests: all users, and users active in the last 30 days.
const REQUESTS_PER_USER_COUNT: f64 = 2.0;

/// Shares are averaged over at least this time, so that one request of an hourly job does not count as a burst.
const SHORTEST_HORIZON: Duration = Duration::from_secs(60);

impl InstanceConfig {
    /// Share of the rate limit used by probes and user counts in the busiest minute (or the busiest window, if longer).
    /// May exceed 1. `None` if the limit is unknown.
    pub fn budget_share(&self) -> Option<f64> {
        share(self.limit()?, Some(&self.probe), self.users.as_ref())
    }

    /// The shortest probe interval, in whole seconds, that keeps the share at or below [`WARN_ABOVE`]. `None` if the
    /// user counts alone exceed it, or if no allowed interval is long enough.
    pub(super) fn fitting_interval(&self) -> Option<Duration> {
        let (requests, window) = self.limit()?;
        let left = WARN_ABOVE - share((requests, window), None, self.users.as_ref())?;
        let seconds = (window.as_secs_f64() / (left * requests as f64)).ceil();
        (left > 0.0 && seconds <= super::MAX_PROBE_INTERVAL.as_secs_f64())
            .then(|| Duration::from_secs_f64(seconds.max(1.0)))
    }
}

fn share((requests, window): (u64, Duration), probe: Option<&ProbeConfig>, users: Option<&UsersConfig>) -> Option<f64> {
    let horizon = window.max(SHORTEST_HORIZON);
    let mut ours = 0.0;
    if let Some(probe) = probe.filter(|probe| probe.when != ProbeWhen::Never) {
        ours += runs(&probe.trigger, horizon)?;
    }
    if let Some(users) = users {
        ours += REQUESTS_PER_USER_COUNT * runs(&users.trigger, horizon)?;
    }
    let allowed = requests as f64 * horizon.as_secs_f64() / window.as_secs_f64();
    Some(ours / allowed)
}

/// The maximum number of times `trigger` is due within `horizon`.
fn runs(trigger: &ScheduleConfig, horizon: Duration) -> Option<f64> {
    match trigger {
        ScheduleConfig::Interval(interval) => Some(horizon.as_secs_f64() / interval.as_secs_f64()),
        ScheduleConfig::Cron(expression) => Some(cron::busiest(&cron::parse(expression).ok()?, horizon)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ApiUrl;
    use super::super::model::LimitSetting;
    use super::*;
    use clerk_client::secret::SecretSource;
    use clerk_quota::Environment;
    use clerk_quota::metered::MeteredPlan;

    fn instance(trigger: ScheduleConfig, limit: LimitSetting, environment: Environment) -> InstanceConfig {
        InstanceConfig {
            name: "a".into(),
            key: SecretSource::Env("A".to_owned()),
            further_keys: Vec::new(),
            machine_keys: Vec::new(),
            environment,
            api_url: ApiUrl::default(),
            limit,
            users_limit: None,
            probe: ProbeConfig {
                trigger,
                timeout: Duration::from_secs(5),
                path: "/v1/users/count".to_owned(),
                when: ProbeWhen::Idle,
                lease: None,
            },
            users: None,
            metered: MeteredPlan::PUBLISHED,
        }
    }

    fn seconds(seconds: u64) -> ScheduleConfig {
        ScheduleConfig::Interval(Duration::from_secs(seconds))
    }

    const DEVELOPMENT: (LimitSetting, Environment) = (LimitSetting::FromKeyPrefix, Environment::Development);

    fn assert_share(instance: &InstanceConfig, expected: f64) {
        let share = instance.budget_share().unwrap();
        assert!((share - expected).abs() < 1e-9, "{share} instead of {expected}");
    }

    #[test]
    fn interval_share_follows_its_rate() {
        assert_share(&instance(seconds(1), DEVELOPMENT.0, DEVELOPMENT.1), 0.1);
        assert_share(&instance(seconds(15), DEVELOPMENT.0, DEVELOPMENT.1), 0.1 / 15.0);
        assert_share(&instance(seconds(1), DEVELOPMENT.0, Environment::Production), 0.01);
        let hourly = LimitSetting::Fixed { requests: 100, window: Duration::from_secs(3600) };
        assert_share(&instance(seconds(60), hourly, Environment::Production), 0.6);
    }

    #[test]
    fn cron_share_follows_its_busiest_minute() {
        let cron = |text: &str| instance(ScheduleConfig::Cron(text.to_owned()), DEVELOPMENT.0, DEVELOPMENT.1);
        assert_share(&cron("*/15 * * * * *"), 4.0 / 600.0);
        assert_share(&cron("0-9 0 3 * * *"), 10.0 / 600.0);
        assert_share(&cron("* * * * * *"), 0.1);
    }

    #[test]
    fn user_counts_take_two_requests_each() {
        let mut counted = instance(seconds(60), DEVELOPMENT.0, DEVELOPMENT.1);
        counted.users = Some(UsersConfig { trigger: ScheduleConfig::Cron("0 0 * * * *".to_owned()) });
        assert_share(&counted, 3.0 / 600.0);
    }

    #[test]
    fn fitting_interval_is_the_shortest_without_a_warning() {
        let limits = [(20, 10, 10), (100, 10, 2), (1000, 10, 1), (1, 60, 1200)];
        for (requests, window, expected) in limits {
            let limit = LimitSetting::Fixed { requests, window: Duration::from_secs(window) };
            let mut it = instance(seconds(1), limit, Environment::Unknown);
            let fitting = it.fitting_interval().unwrap();
            assert_eq!(fitting, Duration::from_secs(expected));
            it.probe.trigger = ScheduleConfig::Interval(fitting);
            assert!(it.budget_share().unwrap() <= WARN_ABOVE + 1e-9);
        }
        let tiny = LimitSetting::Fixed { requests: 1, window: Duration::from_secs(86_400) };
        assert_eq!(instance(seconds(1), tiny, Environment::Unknown).fitting_interval(), None);
    }

    #[test]
    fn an_unknown_limit_has_no_share() {
        let unknown = instance(seconds(1), LimitSetting::FromKeyPrefix, Environment::Unknown);
        assert_eq!(unknown.budget_share(), None);
    }
}
