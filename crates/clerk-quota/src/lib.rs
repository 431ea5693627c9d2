//! Tracks how much of Clerk's rate limits is used, from the requests that a program sends and the responses it gets.
//!
//! [Clerk's Backend API](https://clerk.com/docs/reference/backend-api) limits requests per instance, and some routes
//! separately. This crate maps a request to its route and bucket, counts it, reads what responses report, and gives
//! the remaining quota, closed windows, forecasts and top callers as plain data.
//!
//! The crate does no I/O and takes every time as an argument, so each rule can be tested with a plain unit test.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use clerk_quota::{
//!     AttemptEnd, Bucket, CallerId, Coverage, Environment, InstanceLedger, MethodLabel, Moment, RequestStart,
//!     Settings, Source, route,
//! };
//!
//! let now = Moment::from_unix(Duration::from_secs(1_795_608_000));
//! let mut ledger = InstanceLedger::new(Settings {
//!     name: "main".into(),
//!     environment: Environment::Production,
//!     api_host: "api.clerk.com".into(),
//!     limit: None,
//!     users_limit: None,
//!     low_threshold: 0.1,
//!     stale_after: Duration::from_secs(45),
//!     sources: vec![Source::Client],
//!     coverage: Coverage::Sole,
//!     lateness: None,
//! });
//! // A count is usable once it covers a whole window. Here nothing was sent in the last minute.
//! ledger.count_since(now.before(Duration::from_secs(60)));
//!
//! let route = route::find("GET", b"/v1/users/user_1");
//! assert_eq!((route.template, route.bucket), ("/v1/users/{user_id}", Bucket::Instance));
//!
//! let (source, caller, method) = (Source::Client, CallerId::UNNAMED, MethodLabel::Get);
//! let attempt = ledger.begin(&RequestStart { at: now, source, caller, route, method });
//! ledger.end(attempt, now, AttemptEnd::Unanswered);
//!
//! let snapshot = ledger.snapshot(now);
//! let bucket = snapshot.bucket(Bucket::Instance).expect("a snapshot contains every documented bucket");
//! assert_eq!((bucket.limit, bucket.remaining), (Some(1000), Some(999)));
//! ```
//!
//! # Which type to use
//!
//! | Task | Type |
//! |---|---|
//! | Find a request's route and bucket | [`route::find`] |
//! | Look up a documented limit | [`Bucket::limit`] |
//! | Count the requests of one instance | [`InstanceLedger`] |
//! | Count the requests of all instances, from several threads | [`ledger::Ledger`] |
//! | Count requests that others report after they ended | [`InstanceLedger::report`] |
//! | Describe a response | [`Observation`] |
//! | Read the numbers | [`snapshot::InstanceSnapshot`] |
//! | Summarize an instance in one verdict | [`condition::Condition`] |
//! | Count what Clerk bills | [`metered::MeteredOperation`] |
//! | Get the time | [`clock::Clock`] |
//!
//! # Features and MSRV
//!
//! The crate has no features. It requires Rust 1.95.

mod bucket;
mod budget;
pub mod clock;
mod closed_windows;
pub mod condition;
mod delayed;
pub mod fleet;
mod forecast;
mod histogram;
mod instance;
mod latest_report;
pub mod ledger;
pub mod limits;
pub mod metered;
mod method;
mod path_params;
mod probe_stats;
mod reported;
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
pub use reported::{ReportId, Reported, ReportedEnd, ReportedRequest};
pub use route::{Entity, Route};
pub use route_id::RouteId;
pub use settings::{Coverage, Settings};
pub use spending::CallerId;
pub use top::Span;

/// A point in time on a clock that never runs backwards, stored as the time since the UNIX epoch.
///
/// [`clock::Clock`] reads the wall clock once and follows a monotonic clock from then on. A step of the wall clock
/// therefore neither closes windows early nor keeps expired values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment {
    /// Since the UNIX epoch: enough until the year 2554, and a single number to compare.
    nanos: u64,
}

impl Moment {
    /// Creates the moment that is this long after the UNIX epoch; saturates after 584 years.
    #[must_use]
    pub const fn from_unix(since_epoch: Duration) -> Self {
        Self { nanos: nanos(since_epoch) }
    }

    /// Returns the time since the UNIX epoch.
    #[must_use]
    pub const fn since_epoch(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// Returns the seconds since the UNIX epoch, the unit of timestamps in metrics.
    #[must_use]
    pub const fn unix_seconds(self) -> f64 {
        self.since_epoch().as_secs_f64()
    }

    /// Converts the moment to wall-clock time; the UNIX epoch if it cannot be represented.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(self.since_epoch()).unwrap_or(UNIX_EPOCH)
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// Returns the time between the two moments, in either direction.
    #[must_use]
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_nanos(self.nanos.abs_diff(other.nanos))
    }

    /// Rounds down to a multiple of `step` since the UNIX epoch.
    #[must_use]
    pub fn rounded_down(self, step: Duration) -> Self {
        Self { nanos: self.nanos - self.nanos % nanos(step).max(1) }
    }

    /// Rounds up to a multiple of `step` since the UNIX epoch.
    #[must_use]
    pub fn rounded_up(self, step: Duration) -> Self {
        Self { nanos: self.nanos.checked_next_multiple_of(nanos(step).max(1)).unwrap_or(self.nanos) }
    }

    /// Returns the moment `by` later; saturates.
    #[must_use]
    pub const fn after(self, by: Duration) -> Self {
        Self { nanos: self.nanos.saturating_add(nanos(by)) }
    }

    /// Returns the moment `by` earlier, but not before the UNIX epoch.
    #[must_use]
    pub const fn before(self, by: Duration) -> Self {
        Self { nanos: self.nanos.saturating_sub(nanos(by)) }
    }
}

/// Returns whole nanoseconds; saturates.
const fn nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.subsec_nanos() as u64)
}

/// The sender of a request, or who reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The exporter's probes.
    Probe,
    /// Requests that the gateway forwards.
    Gateway,
    /// The client library.
    Client,
    /// Applications, which report their requests in traces.
    Telemetry,
}

impl Source {
    /// All sources, in the order of [`Source::index`].
    pub const ALL: [Self; 4] = [Self::Probe, Self::Gateway, Self::Client, Self::Telemetry];

    /// Returns the value of the label `source`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Gateway => "gateway",
            Self::Client => "client",
            Self::Telemetry => "telemetry",
        }
    }

    /// Returns the position in [`Source::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The error code of a 403 response that means that a quota of the plan, such as users or organizations, is used up.
///
/// These are not rate limits: waiting does not help. Named as in Clerk's error bodies.
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
    /// All codes, in the order of [`QuotaCode::index`].
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

    /// Returns the value of the label `code`.
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

    /// Returns the position in [`QuotaCode::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Parses the code of a Clerk error; `None` if it is not about a quota.
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

/// What a response says about the secret key that the request carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyVerdict {
    /// Clerk accepted the key.
    Valid,
    /// Clerk rejected the key: 401, or a 403 that is not about a quota.
    Invalid,
    /// The response does not tell (429, 5xx, or not from Clerk).
    Unknown,
}

/// What one HTTP response from Clerk says about quota and key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// When the response head arrived.
    pub at: Moment,
    /// The part of the program that sent the request.
    pub source: Source,
    /// The route of the request.
    pub route: RouteId,
    /// The bucket that counts the request, according to Clerk's documentation.
    pub bucket: Bucket,
    /// The owner of the budget, for buckets of [`Scope::Entity`].
    pub entity: Option<Entity>,
    /// HTTP status, 100 to 999.
    pub status: u16,
    /// Whether this is a usable response from Clerk's API: a 429 is, an HTML page with status 200 is not.
    ///
    /// Unusable responses do not change any quota.
    pub usable: bool,
    /// What the response says about the key.
    pub key: KeyVerdict,
    /// The plan's quota that is used up, from a 403.
    pub quota_code: Option<QuotaCode>,
    /// Whether the error code names Clerk's rate limiter (`too_many_requests`) and not another limit.
    pub is_rate_limit: bool,
    /// What the headers report about the rate limit.
    pub quota: Quota,
    /// Clerk's clock minus the local clock, in seconds; `None` without a `Date` header.
    pub clock_offset_seconds: Option<f64>,
}

impl Observation {
    /// Returns whether Clerk rejected the request because of a rate limit.
    #[must_use]
    pub const fn is_throttled(&self) -> bool {
        self.status == 429
    }

    /// Returns whether Clerk's limiter may have counted the request: any status but 429.
    ///
    /// A 5xx may come from the edge in front of Clerk's limiter or from behind it.
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        self.status != 429
    }

    /// Returns whether Clerk served the request, which shows that nothing blocks the bucket.
    #[must_use]
    pub const fn is_served(&self) -> bool {
        self.usable && self.status < 500 && self.status != 401 && self.status != 429
    }
}
