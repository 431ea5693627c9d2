//! What a simulator is started with.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use thiserror::Error;

use super::faults::Faults;
use super::keys::KeyGrant;
use super::limits::{Environment, LimitOverride, Plan, Quota, SimulatedBucket};

/// What a [`Simulator`](super::Simulator) is started with.
///
/// The default behaves like Clerk's published limits (1000 requests per 10 s for `sk_live_` keys, 100 for `sk_test_`
/// keys), counted in fixed windows, with `X-RateLimit-*` headers, 50 000 users, any well-formed key and no faults.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of users in the directory.
    pub users: u32,
    /// Seed of the user data, of the identifiers and of the faults' dice. The same seed and the same number of users
    /// give the same users.
    pub seed: u64,
    /// How requests are counted.
    pub limiter: LimiterKind,
    /// Which quota headers the answers carry.
    pub headers: HeaderProfile,
    /// Size of the instance bucket. `None`: the published figure for the key's environment.
    pub plan: Option<Plan>,
    /// Quotas that replace the published ones; they win over `plan`. If a bucket is named twice, the last one counts.
    pub limits: Vec<LimitOverride>,
    /// Keys that are accepted. Empty: every well-formed `sk_test_` or `sk_live_` key, each an instance of its own.
    pub keys: Vec<KeyGrant>,
    /// Faults from the start. [`Faults::check`] is up to the caller here.
    pub faults: Faults,
    /// Wall-clock time at which the simulator starts. `None`: now. From then on the time runs with tokio's clock, so
    /// that paused time drives it.
    pub base: Option<SystemTime>,
    /// How many windows the [`Truth`](super::Truth) remembers.
    pub kept_windows: usize,
    /// How many single requests the [`Truth`](super::Truth) remembers.
    pub kept_events: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            users: 50_000,
            seed: 1,
            limiter: LimiterKind::FixedWindow,
            headers: HeaderProfile::XRateLimit,
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
    /// The quota of `bucket` in an instance of `environment`.
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

/// How requests are counted. Which of them Clerk uses is not documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimiterKind {
    /// Windows that begin at multiples of their length since the UNIX epoch.
    FixedWindow,
    /// Windows that begin with their first request.
    FixedFromFirst,
    /// At most `limit` requests within any stretch of time as long as the window.
    SlidingWindow,
    /// An estimate from two counters: the current window of the epoch's grid, and of the one before it the part that still
    /// lies within the last window, as if its requests had come evenly.
    SlidingCounter,
    /// A bucket that refills evenly with `limit` requests per window.
    TokenBucket {
        /// Capacity of the instance bucket. `None`: the burst of the quota, else its limit. The other buckets keep
        /// the burst of their own quota.
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

    /// Reads `fixed`, `fixed-from-first`, `sliding`, `sliding-counter`, `token-bucket` or `token-bucket:BURST`.
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

/// Which quota headers the answers carry. `Retry-After` on 429 is always sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderProfile {
    /// None: what public captures of Clerk's answers show.
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

/// An option's text that cannot be used; the message says what can.
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
    fn the_words_of_the_command_line_survive_a_round_trip() {
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
    fn an_override_wins_over_the_plan_and_the_plan_over_the_environment() {
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
    fn a_burst_of_the_limiter_reaches_only_the_instance_bucket() {
        let options = Options { limiter: "token-bucket:500".parse().unwrap(), ..Options::default() };
        assert_eq!(options.quota(SimulatedBucket::Instance, Environment::Development).burst, Some(500));
        assert_eq!(options.quota(SimulatedBucket::UserUpdate, Environment::Development).burst, None);
    }
}
