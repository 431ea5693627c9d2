//! Clerk's quotas: what an answer says of them, which budget a request is counted in, and the ledger of it all.
//!
//! This crate is pure. It does no I/O, and every time is passed in, so that each rule is a plain unit test; [`clock`] is
//! where a program takes the time from. An [`Observation`] is what one HTTP exchange with Clerk taught us; the
//! [`ledger::Ledger`] is the only place that observations go to and the only place that numbers come from.

mod bucket;
mod budget;
pub mod clock;
mod closed_windows;
pub mod condition;
pub mod fleet;
mod forecast;
mod histogram;
mod instance;
pub mod ledger;
pub mod limits;
mod method;
mod newest_word;
mod path_params;
mod probe_stats;
mod rolling_max;
pub mod route;
mod route_id;
mod route_limits;
mod settings;
pub mod snapshot;
pub mod spending;
mod top;
pub mod usage_log;
mod window;
pub mod window_kind;
mod windows;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use budget::AttemptEnd;
pub use histogram::Histogram;
pub use instance::{Attempt, InstanceLedger, RequestStart};
pub use limits::{Bucket, Environment, Limit, Scope};
pub use method::MethodLabel;
pub use probe_stats::{ProbeFailure, ProbeSkip, ProbeStats};
pub use ratelimit_headers::{HeaderDialect, HeaderError, HeaderErrors, Quota};
pub use route::{Entity, Route};
pub use route_id::RouteId;
pub use settings::{Coverage, Settings};
pub use spending::CallerId;
pub use top::Span;

/// A point in time on a clock that never goes back, counted from the UNIX epoch.
///
/// The shell anchors it on the wall clock once and lets a monotonic clock drive it from there, so that a step of the
/// wall clock neither closes windows early nor keeps dead values alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The moment that lies this long after the UNIX epoch.
    #[must_use]
    pub const fn from_unix(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// Time since the UNIX epoch.
    #[must_use]
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// Seconds since the UNIX epoch, as metrics carry them.
    #[must_use]
    pub const fn unix_seconds(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// The same moment as wall-clock time; the epoch itself when it cannot be represented.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(self.0).unwrap_or(UNIX_EPOCH)
    }

    /// How long after `earlier` this is; zero if it is not after.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How far apart the two are.
    #[must_use]
    pub fn distance(self, other: Self) -> Duration {
        if self > other { self.since(other) } else { other.since(self) }
    }

    /// This moment, or the last one before it that is a multiple of `step` since the UNIX epoch.
    #[must_use]
    pub fn rounded_down(self, step: Duration) -> Self {
        let (since, step) = (nanos(self.0), nanos(step).max(1));
        Self(Duration::from_nanos(since - since % step))
    }

    /// This moment, or the next one that is a multiple of `step` since the UNIX epoch.
    #[must_use]
    pub fn rounded_up(self, step: Duration) -> Self {
        let (since, step) = (nanos(self.0), nanos(step).max(1));
        Self(Duration::from_nanos(since.checked_next_multiple_of(step).unwrap_or(since)))
    }

    /// The moment `by` later, saturating.
    #[must_use]
    pub const fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// The moment `by` earlier, not before the epoch.
    #[must_use]
    pub const fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

/// Whole nanoseconds, saturating.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Which part of the program made a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The exporter's own probes.
    Probe,
    /// Requests of applications that came through the gateway.
    Gateway,
    /// The client library.
    Client,
}

impl Source {
    /// All sources.
    pub const ALL: [Self; 3] = [Self::Probe, Self::Gateway, Self::Client];

    /// The value of the label `source`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Gateway => "gateway",
            Self::Client => "client",
        }
    }

    /// Position in [`Source::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Codes of 403 answers that mean that a quota of the plan is used up: users, organizations and the like. They are not
/// rate limits and no waiting helps. Names as in Clerk's error bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuotaCode {
    /// `user_quota_exceeded`.
    User,
    /// `quota_exceeded`.
    Any,
    /// `organization_quota_exceeded`.
    Organization,
    /// `organization_membership_quota_exceeded`.
    OrganizationMembership,
    /// `organization_domain_quota_exceeded`.
    OrganizationDomain,
    /// `org_creation_limit_exceeded`.
    OrganizationCreation,
    /// Any code that ends in `_roles_quota_exceeded`.
    Roles,
    /// Another code that ends in `quota_exceeded`.
    Other,
}

impl QuotaCode {
    /// All codes.
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Any,
        Self::Organization,
        Self::OrganizationMembership,
        Self::OrganizationDomain,
        Self::OrganizationCreation,
        Self::Roles,
        Self::Other,
    ];

    /// The value of the label `code`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user_quota_exceeded",
            Self::Any => "quota_exceeded",
            Self::Organization => "organization_quota_exceeded",
            Self::OrganizationMembership => "organization_membership_quota_exceeded",
            Self::OrganizationDomain => "organization_domain_quota_exceeded",
            Self::OrganizationCreation => "org_creation_limit_exceeded",
            Self::Roles => "roles_quota_exceeded",
            Self::Other => "other",
        }
    }

    /// Position in [`QuotaCode::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Reads the code of a Clerk error; `None` if it is not about a quota.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|known| *known != Self::Other && known.as_str() == code);
        known.or_else(|| {
            if code.ends_with("_roles_quota_exceeded") {
                Some(Self::Roles)
            } else {
                code.ends_with("quota_exceeded").then_some(Self::Other)
            }
        })
    }
}

/// What an exchange told us of the key that it carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyVerdict {
    /// Clerk accepted the key.
    Valid,
    /// Clerk refused the key: 401, or 403 that is not about a quota.
    Invalid,
    /// The answer does not tell (429, 5xx, not from Clerk).
    Unknown,
}

/// What one HTTP exchange with Clerk taught us.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// When the head of the answer arrived.
    pub at: Moment,
    /// Who asked.
    pub source: Source,
    /// What was asked for.
    pub route: RouteId,
    /// The budget that the request was counted in, by Clerk's documentation.
    pub bucket: Bucket,
    /// Whose budget, in buckets of [`Scope::Entity`].
    pub entity: Option<Entity>,
    /// HTTP status of the answer, 100 to 999.
    pub status: u16,
    /// Whether this was an answer of Clerk's API that could be used: a 429 is, an HTML page with status 200 is not.
    /// Answers that are not change no quota.
    pub usable: bool,
    /// What it says of the key.
    pub key: KeyVerdict,
    /// The quota of the plan that is used up, from a 403.
    pub quota_code: Option<QuotaCode>,
    /// Whether the error's code names Clerk's limiter (`too_many_requests`), and not a limit of another kind.
    pub is_rate_limit: bool,
    /// What its headers say of the rate limit.
    pub quota: Quota,
    /// Clerk's clock minus ours, in seconds, when the answer carried a date.
    pub clock_offset_seconds: Option<f64>,
}

impl Observation {
    /// Whether Clerk refused the request because of a rate limit.
    #[must_use]
    pub const fn is_throttled(&self) -> bool {
        self.status == 429
    }

    /// Whether Clerk's limiter may have counted the request: all but what it refused. A 5xx may come from the edge in front
    /// of Clerk, or from behind the limiter.
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        self.status != 429
    }

    /// Whether Clerk served it: a sign that nothing blocks the bucket.
    #[must_use]
    pub const fn is_served(&self) -> bool {
        self.usable && self.status < 500 && self.status != 401 && self.status != 429
    }
}
