//! The options of a simulator.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use thiserror::Error;

use super::faults::Faults;
use super::keys::KeyGrant;
use super::limits::{Environment, LimitOverride, Plan, Quota, SimulatedBucket};
use crate::setters::setters;

/// The options of a [`Simulator`](super::Simulator).
///
/// The default has Clerk's published limits (1000 requests per 10 s for `sk_live_` keys, 100 for `sk_test_` keys),
/// fixed windows, no quota headers (as in all public captures of Clerk's responses), 50 000 users, 20 organizations, any
/// well-formed key and no faults.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Number of users.
    pub users: u32,
    /// Number of organizations, each with up to nine of the users. At most 10 000.
    pub organizations: u32,
    /// Seed of the users, the identifiers and random faults. The same seed and number of users give the same users.
    pub seed: u64,
    /// How requests are counted.
    pub limiter: LimiterKind,
    /// Quota headers of the responses.
    pub headers: HeaderProfile,
    /// Limit of the instance bucket. `None`: the published one for the key's environment.
    pub plan: Option<Plan>,
    /// Quotas that replace the published ones and `plan`. If a bucket is named twice, the last one counts.
    pub limits: Vec<LimitOverride>,
    /// Accepted keys. Empty: every well-formed `sk_test_` or `sk_live_` key, each with its own instance, and every
    /// well-formed machine key `ak_`, all of the first instance for development.
    pub keys: Vec<KeyGrant>,
    /// Faults from the start. They are not checked; call [`Faults::check`].
    pub faults: Faults,
    /// Wall-clock time at which the simulator starts. `None`: now. From then on time follows tokio's clock, which
    /// tests can pause.
    pub base: Option<SystemTime>,
    /// Number of windows that the [`Truth`](super::Truth) contains.
    pub kept_windows: usize,
    /// Number of single requests that the [`Truth`](super::Truth) contains.
    pub kept_events: usize,
}

setters!(Options {
    users: u32,
    organizations: u32,
    seed: u64,
    limiter: LimiterKind,
    headers: HeaderProfile,
    plan: impl Into<Option<Plan>>,
    limits: Vec<LimitOverride>,
    keys: Vec<KeyGrant>,
    faults: Faults,
    base: impl Into<Option<SystemTime>>,
    kept_windows: usize,
    kept_events: usize,
});

impl Default for Options {
    fn default() -> Self {
        Self {
            users: 50_000,
            organizations: 20,
            seed: 1,
            limiter: LimiterKind::FixedWindow,
            headers: HeaderProfile::None,
            plan: None,
            limits: Vec::new(),
            keys: Vec::new(),
            faults: Faults::default(),
            base: None,
            kept_windows: 10_000,
            kept_events: 100_000,
        }
    }
}

impl Options {
    /// Returns the quota of `bucket` in an instance of `environment`.
    #[must_use]
    pub fn quota(&self, bucket: SimulatedBucket, environment: Environment) -> Quota {
        let chosen = self.limits.iter().rev().find(|limit| limit.bucket == bucket).map(|limit| limit.quota);
        let planned = self.plan.filter(|_| bucket == SimulatedBucket::Instance).map(Plan::quota);
        let mut quota = chosen.or(planned).unwrap_or_else(|| bucket.published(environment));
        if let LimiterKind::TokenBucket { burst: Some(burst) } = self.limiter
            && bucket == SimulatedBucket::Instance
        {
            quota.burst = Some(burst);
        }
        quota
    }
}

/// How requests are counted. Clerk does not document which one it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimiterKind {
    /// Windows that start at multiples of their length since the UNIX epoch.
    FixedWindow,
    /// Windows that start with their first request.
    FixedFromFirst,
    /// At most `limit` requests within any time of one window length.
    SlidingWindow,
    /// An estimate from two counters: the current window of the epoch's grid, plus the part of the previous window
    /// that lies within the last window length, as if its requests were evenly distributed.
    SlidingCounter,
    /// A token bucket that refills evenly with `limit` requests per window.
    TokenBucket {
        /// Capacity of the instance bucket. `None`: the quota's burst, else its limit. Other buckets use their own
        /// quota's burst.
        burst: Option<u32>,
    },
}

impl fmt::Display for LimiterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FixedWindow => f.pad("fixed"),
            Self::FixedFromFirst => f.pad("fixed-from-first"),
            Self::SlidingWindow => f.pad("sliding"),
            Self::SlidingCounter => f.pad("sliding-counter"),
            Self::TokenBucket { burst: None } => f.pad("token-bucket"),
            Self::TokenBucket { burst: Some(burst) } => write!(f, "token-bucket:{burst}"),
        }
    }
}

impl FromStr for LimiterKind {
    type Err = ParseOptionError;

    /// Parses `fixed`, `fixed-from-first`, `sliding`, `sliding-counter`, `token-bucket` or `token-bucket:BURST`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "fixed" => Ok(Self::FixedWindow),
            "fixed-from-first" => Ok(Self::FixedFromFirst),
            "sliding" => Ok(Self::SlidingWindow),
            "sliding-counter" => Ok(Self::SlidingCounter),
            "token-bucket" => Ok(Self::TokenBucket { burst: None }),
            _ => text
                .strip_prefix("token-bucket:")
                .and_then(|burst| burst.parse().ok())
                .map(|burst| Self::TokenBucket { burst: Some(burst) })
                .ok_or_else(|| {
                    let known = [
                        "fixed",
                        "fixed-from-first",
                        "sliding",
                        "sliding-counter",
                        "token-bucket",
                        "token-bucket:BURST",
                    ];
                    ParseOptionError::unknown("limiter", text, &known)
                }),
        }
    }
}

/// The quota headers of responses. `Retry-After` is always sent with a 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderProfile {
    /// None, as in public captures of Clerk's responses.
    None,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, the last in seconds from now.
    XRateLimit,
    /// The same with `-Reset` in seconds since the UNIX epoch.
    XRateLimitEpoch,
    /// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).
    Ietf,
}

impl HeaderProfile {
    const ALL: [Self; 4] = [Self::None, Self::XRateLimit, Self::XRateLimitEpoch, Self::Ietf];

    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::XRateLimit => "x-ratelimit",
            Self::XRateLimitEpoch => "x-ratelimit-epoch",
            Self::Ietf => "ietf",
        }
    }
}

impl fmt::Display for HeaderProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for HeaderProfile {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| ParseOptionError::unknown("header profile", text, &Self::ALL.map(Self::as_str)))
    }
}

/// An option that could not be parsed; the message lists valid values.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ParseOptionError(String);

impl ParseOptionError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    pub(super) fn unknown(what: &str, text: &str, known: &[&str]) -> Self {
        Self(format!("unknown {what} `{text}`: use one of {}", known.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_names_round_trip_through_text() {
        for text in ["fixed", "fixed-from-first", "sliding", "sliding-counter", "token-bucket", "token-bucket:40"] {
            assert_eq!(text.parse::<LimiterKind>().unwrap().to_string(), text);
        }
        for profile in HeaderProfile::ALL {
            assert_eq!(profile.to_string().parse::<HeaderProfile>().unwrap(), profile);
        }
        let error = "leaky".parse::<LimiterKind>().unwrap_err().to_string();
        assert!(error.contains("fixed, fixed-from-first, sliding, sliding-counter, token-bucket"), "{error}");
    }

    #[test]
    fn override_precedes_plan_and_plan_precedes_environment() {
        let mut options = Options::default();
        let quota = |options: &Options| options.quota(SimulatedBucket::Instance, Environment::Development).limit;
        assert_eq!(quota(&options), 100);
        assert_eq!(options.quota(SimulatedBucket::Instance, Environment::Production).limit, 1000);
        options.plan = Some(Plan::Free);
        assert_eq!(quota(&options), 20);
        options.limits = vec!["instance=7/10s".parse().unwrap()];
        assert_eq!(quota(&options), 7);
        assert_eq!(options.quota(SimulatedBucket::UserUpdate, Environment::Development).limit, 10);
    }

    #[test]
    fn limiter_burst_applies_to_the_instance_bucket_only() {
        let options = Options { limiter: "token-bucket:500".parse().unwrap(), ..Options::default() };
        assert_eq!(options.quota(SimulatedBucket::Instance, Environment::Development).burst, Some(500));
        assert_eq!(options.quota(SimulatedBucket::UserUpdate, Environment::Development).burst, None);
    }
}
