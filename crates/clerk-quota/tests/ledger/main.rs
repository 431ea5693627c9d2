//! The ledger's numbers for single requests and responses. Time is passed in, nothing runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod condition;
mod counted;
mod metered;
mod months;
mod named;
mod observations;
mod others;
mod reported;
mod routes;
mod standby;

use std::time::Duration;

use clerk_quota::snapshot::BucketSnapshot;
use clerk_quota::{
    Attempt, AttemptEnd, Bucket, CallerId, Coverage, Environment, HeaderDialect, InstanceLedger, KeyVerdict, Limit,
    MethodLabel, Moment, Observation, Quota, RequestStart, Route, RouteId, Settings, Source, route,
};

/// The start of a window on the epoch's grid.
const START: u64 = 1_795_608_000;

/// This many seconds after [`START`].
pub fn at(seconds: f64) -> Moment {
    Moment::from_unix(Duration::from_secs(START)).after(Duration::from_secs_f64(seconds))
}

/// A development instance with Clerk's published limits, probed every 15 s.
pub fn settings(name: &str) -> Settings {
    Settings {
        name: name.into(),
        environment: Environment::Development,
        api_host: "clerk.test".into(),
        limit: Some(Limit { requests: 100, window: Duration::from_secs(10) }),
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(45),
        sources: vec![Source::Probe, Source::Gateway],
        coverage: Coverage::Sole,
        lateness: None,
    }
}

/// An empty ledger.
pub fn ledger() -> InstanceLedger {
    InstanceLedger::new(settings("test"))
}

/// A response without quota headers.
pub fn plain(seconds: f64, status: u16) -> Observation {
    Observation {
        at: at(seconds),
        source: Source::Probe,
        route: RouteId::OTHER,
        bucket: Bucket::Instance,
        entity: None,
        status,
        usable: status < 500,
        key: KeyVerdict::Unknown,
        quota_code: None,
        is_rate_limit: status == 429,
        quota: Quota::default(),
        clock_offset_seconds: None,
    }
}

/// A response that reports limit, remaining quota and reset.
pub fn named(seconds: f64, remaining: u64, reset: u64) -> Observation {
    let quota = Quota {
        limit: Some(100),
        remaining: Some(remaining),
        reset: Some(Duration::from_secs(reset)),
        reset_resolution: Duration::from_secs(1),
        dialect: Some(HeaderDialect::XRateLimit),
        ..Quota::default()
    };
    Observation { quota, ..plain(seconds, 200) }
}

/// A 429 with a `Retry-After`.
pub fn throttled(seconds: f64, retry_after: u64) -> Observation {
    let quota = Quota {
        retry_after: Some(Duration::from_secs(retry_after)),
        dialect: Some(HeaderDialect::RetryAfter),
        ..Quota::default()
    };
    Observation { quota, ..plain(seconds, 429) }
}

/// A bucket's numbers.
pub fn bucket(ledger: &mut InstanceLedger, seconds: f64, bucket: Bucket) -> BucketSnapshot {
    ledger.snapshot(at(seconds)).bucket(bucket).unwrap().clone()
}

/// The default bucket's numbers.
pub fn instance(ledger: &mut InstanceLedger, seconds: f64) -> BucketSnapshot {
    bucket(ledger, seconds, Bucket::Instance)
}

/// A ledger that has been counting for more than a window.
pub fn counting() -> InstanceLedger {
    let mut ledger = ledger();
    ledger.count_since(at(0.0).before(Duration::from_secs(60)));
    ledger
}

/// The same for a fleet, or with unknown coverage.
pub fn covering(coverage: Coverage) -> InstanceLedger {
    let mut ledger = InstanceLedger::new(Settings { coverage, ..settings("test") });
    ledger.count_since(at(0.0).before(Duration::from_secs(60)));
    ledger
}

/// A route in the instance's bucket.
pub fn users() -> Route {
    route::find("GET", b"/v1/users")
}

/// A request from an application at this time.
pub fn start(seconds: f64, route: Route) -> RequestStart {
    let (caller, method) = (CallerId::OTHER, MethodLabel::Get);
    RequestStart { at: at(seconds), source: Source::Gateway, caller, route, method }
}

/// Sends a request from an application.
pub fn begin(ledger: &mut InstanceLedger, seconds: f64) -> Attempt {
    ledger.begin(&start(seconds, users()))
}

/// Ends it with a response.
pub fn answer(ledger: &mut InstanceLedger, attempt: Attempt, observation: &Observation) {
    let observation = Observation { source: Source::Gateway, ..*observation };
    ledger.end(attempt, observation.at, AttemptEnd::Answered(&observation));
}

/// A request from an application that takes no time.
pub fn exchange(ledger: &mut InstanceLedger, observation: &Observation) {
    let attempt = ledger.begin(&RequestStart { at: observation.at, ..start(0.0, users()) });
    answer(ledger, attempt, observation);
}
