//! The budgets and their limits.
//!
//! The numbers are those of Clerk's page "System limits"
//! (<https://clerk.com/docs/guides/how-clerk-works/system-limits>). They are duplicated here on purpose: the simulator
//! shares no quota code with the exporter, so that a wrong assumption cannot be in both.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::options::ParseOptionError;

const TEN_SECONDS: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// Windows are clamped to the range from this to [`LONGEST_WINDOW`].
pub(super) const SHORTEST_WINDOW: Duration = Duration::from_millis(1);
pub(super) const LONGEST_WINDOW: Duration = Duration::from_secs(366 * 24 * 3600);

/// A budget that requests are counted against.
///
/// Routes without their own budget count against [`SimulatedBucket::Instance`]; `GET /v1/jwks` is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SimulatedBucket {
    /// One budget per instance, for all other routes.
    Instance,
    /// `POST /v1/invitations`, per instance.
    Invitations,
    /// `POST /v1/invitations/bulk`, per instance.
    InvitationsBulk,
    /// `POST /v1/organizations/{organization_id}/invitations`, per instance.
    OrganizationInvitations,
    /// `POST /v1/organizations/{organization_id}/invitations/bulk`, per instance.
    OrganizationInvitationsBulk,
    /// Updates of one user and of its metadata, per user.
    UserUpdate,
    /// Updates of one organization and of its metadata, per organization.
    OrganizationUpdate,
    /// Updates of one membership and of its metadata, per organization and user.
    MembershipUpdate,
}

impl SimulatedBucket {
    /// Every bucket, in the order of Clerk's page.
    pub const ALL: [Self; 8] = [
        Self::Instance,
        Self::Invitations,
        Self::InvitationsBulk,
        Self::OrganizationInvitations,
        Self::OrganizationInvitationsBulk,
        Self::UserUpdate,
        Self::OrganizationUpdate,
        Self::MembershipUpdate,
    ];

    /// Returns the name in options, in the truth and in the `RateLimit` header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Invitations => "invitations",
            Self::InvitationsBulk => "invitations_bulk",
            Self::OrganizationInvitations => "organization_invitations",
            Self::OrganizationInvitationsBulk => "organization_invitations_bulk",
            Self::UserUpdate => "user_update",
            Self::OrganizationUpdate => "organization_update",
            Self::MembershipUpdate => "membership_update",
        }
    }

    /// Returns Clerk's published limit for an instance of this environment.
    #[must_use]
    pub const fn published(self, environment: Environment) -> Quota {
        match self {
            Self::Instance => environment.plan().quota(),
            Self::Invitations => Quota::new(100, HOUR),
            Self::InvitationsBulk => Quota::new(25, HOUR),
            Self::OrganizationInvitations => Quota::new(250, HOUR),
            Self::OrganizationInvitationsBulk => Quota::new(50, HOUR),
            Self::UserUpdate | Self::OrganizationUpdate | Self::MembershipUpdate => Quota::new(10, TEN_SECONDS),
        }
    }
}

impl fmt::Display for SimulatedBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for SimulatedBucket {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|bucket| bucket.as_str() == text)
            .ok_or_else(|| ParseOptionError::unknown("bucket", text, &Self::ALL.map(Self::as_str)))
    }
}

/// The environment of an instance, from the prefix of its secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// `sk_live_…`
    Production,
    /// `sk_test_…`
    Development,
}

impl Environment {
    /// Returns the name that `GET /v1/instance` reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "development",
        }
    }

    const fn plan(self) -> Plan {
        match self {
            Self::Production => Plan::Production,
            Self::Development => Plan::Development,
        }
    }
}

/// A number of requests per window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests per window. With 0, every request is rejected.
    pub limit: u32,
    /// Length of the window, clamped to 1 ms to 366 days.
    pub window: Duration,
    /// Capacity of the token bucket, if it differs from `limit`. Other limiters ignore it.
    pub burst: Option<u32>,
}

impl Quota {
    /// Creates a quota of `limit` requests per `window` without a larger burst.
    #[must_use]
    pub const fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window, burst: None }
    }

    /// Returns the same quota with a token bucket of `burst` requests.
    #[must_use]
    pub const fn with_burst(self, burst: u32) -> Self {
        Self { burst: Some(burst), ..self }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.limit, humantime::format_duration(self.window))?;
        if let Some(burst) = self.burst {
            write!(f, ":{burst}")?;
        }
        Ok(())
    }
}

impl FromStr for Quota {
    type Err = ParseOptionError;

    /// Parses `LIMIT/WINDOW` or `LIMIT/WINDOW:BURST`, for example `100/10s` or `20/10s:40`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed =
            || ParseOptionError::new(format!("`{text}` is not a quota: write LIMIT/WINDOW[:BURST], as in 100/10s"));
        let (limit, rest) = text.split_once('/').ok_or_else(malformed)?;
        let (window, burst) = match rest.split_once(':') {
            Some((window, burst)) => (window, Some(burst.parse().map_err(|_| malformed())?)),
            None => (rest, None),
        };
        let window = humantime::parse_duration(window).map_err(|_| malformed())?;
        if !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window) {
            return Err(ParseOptionError::new(format!("the window of `{text}` is not between 1ms and 366days")));
        }
        Ok(Self { limit: limit.parse().map_err(|_| malformed())?, window, burst })
    }
}

/// A predefined limit of the instance bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    /// 20 requests per 10 s, burst 40.
    Free,
    /// 100 requests per 10 s, burst 200.
    Pro,
    /// 100 requests per 10 s: Clerk's published limit for development instances.
    Development,
    /// 1000 requests per 10 s: Clerk's published limit for production instances.
    Production,
}

impl Plan {
    const ALL: [Self; 4] = [Self::Free, Self::Pro, Self::Development, Self::Production];

    /// Returns the quota of the instance bucket under this plan.
    #[must_use]
    pub const fn quota(self) -> Quota {
        match self {
            Self::Free => Quota::new(20, TEN_SECONDS).with_burst(40),
            Self::Pro => Quota::new(100, TEN_SECONDS).with_burst(200),
            Self::Development => Quota::new(100, TEN_SECONDS),
            Self::Production => Quota::new(1000, TEN_SECONDS),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Pro => "pro",
            Self::Development => "development",
            Self::Production => "production",
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Plan {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|plan| plan.as_str() == text)
            .ok_or_else(|| ParseOptionError::unknown("plan", text, &Self::ALL.map(Self::as_str)))
    }
}

/// A quota that replaces the published one, for every instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitOverride {
    /// The bucket to change.
    pub bucket: SimulatedBucket,
    /// The new quota.
    pub quota: Quota,
}

impl fmt::Display for LimitOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.bucket, self.quota)
    }
}

impl FromStr for LimitOverride {
    type Err = ParseOptionError;

    /// Parses `BUCKET=LIMIT/WINDOW[:BURST]`, for example `instance=50/10s`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (bucket, quota) = text.split_once('=').ok_or_else(|| {
            ParseOptionError::new(format!(
                "`{text}` does not name a bucket: write BUCKET=LIMIT/WINDOW, as in instance=50/10s"
            ))
        })?;
        Ok(Self { bucket: bucket.parse()?, quota: quota.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_quotas_round_trip_through_text() {
        for bucket in SimulatedBucket::ALL {
            assert_eq!(bucket.to_string().parse::<SimulatedBucket>().unwrap(), bucket);
        }
        for plan in Plan::ALL {
            assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan);
        }
        for text in ["instance=50/10s", "user_update=1/1m:7", "invitations=0/1h"] {
            assert_eq!(text.parse::<LimitOverride>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn invalid_text_error_lists_valid_values() {
        for text in [
            "50/10s",
            "instance=50",
            "instance=x/10s",
            "instance=5/0s",
            "instance=5/400days",
            "instance=5/10s:x",
            "instnce=5/10s",
        ] {
            let error = text.parse::<LimitOverride>().unwrap_err().to_string();
            assert!(!error.is_empty(), "{text}");
        }
        let error = "gratis".parse::<Plan>().unwrap_err().to_string();
        assert!(error.contains("free, pro, development, production"), "{error}");
    }
}
