//! Routes whose responses report their own limit.

use clerk_quota::{AttemptEnd, Bucket, InstanceLedger, Observation, Quota, Source, route};

use crate::{at, counting, instance, named, plain, start, throttled};

/// Sends a request to this path and ends it with a response that reports these values.
fn respond(ledger: &mut InstanceLedger, path: &str, seconds: f64, limit: u64, remaining: u64) -> Bucket {
    let route = route::find("GET", path.as_bytes());
    let attempt = ledger.begin(&start(seconds, route));
    let quota = Quota { limit: Some(limit), ..named(seconds, remaining, 9).quota };
    let observation = Observation { quota, source: Source::Gateway, route: route.id, ..plain(seconds, 200) };
    ledger.end(attempt, at(seconds), AttemptEnd::Answered(&observation))
}

#[test]
fn differing_limit_gets_its_own_bucket() {
    let mut ledger = counting();
    respond(&mut ledger, "/v1/users", 1.0, 40, 39);
    let own = respond(&mut ledger, "/v1/organizations", 2.0, 5, 0);
    assert_eq!(own.as_str(), "route:GET /v1/organizations");
    respond(&mut ledger, "/v1/users", 3.0, 40, 38);
    let bucket = instance(&mut ledger, 3.5);
    assert_eq!((bucket.limit, bucket.remaining, bucket.to_exhaustion), (Some(40), Some(38), None));
    let snapshot = ledger.snapshot(at(13.0));
    let closed = snapshot.bucket(Bucket::Instance).unwrap();
    assert_eq!((closed.windows, closed.low_windows, closed.exhausted_windows), (1, 0, 0));
    let route = snapshot.bucket(own).unwrap();
    assert_eq!((route.limit, route.windows, route.exhausted_windows), (Some(5), 1, 1));
}

#[test]
fn route_that_agrees_again_returns_to_the_instance_bucket() {
    let mut ledger = counting();
    respond(&mut ledger, "/v1/users", 1.0, 40, 39);
    let own = respond(&mut ledger, "/v1/organizations", 2.0, 5, 0);
    assert_eq!(respond(&mut ledger, "/v1/organizations", 12.0, 40, 30), Bucket::Instance);
    let snapshot = ledger.snapshot(at(12.5));
    assert_eq!(snapshot.bucket(Bucket::Instance).unwrap().remaining, Some(30));
    let retired = snapshot.bucket(own).unwrap();
    assert_eq!((retired.limit, retired.remaining, retired.basis), (None, None, None));
    assert_eq!(retired.exhausted_windows, 1, "counters stay");
    assert_eq!(respond(&mut ledger, "/v1/organizations", 13.0, 40, 29), Bucket::Instance);
}

/// The route with its own limit came first: its report no longer stands for the instance once there is another.
#[test]
fn first_route_may_have_its_own_limit() {
    let mut ledger = counting();
    assert_eq!(respond(&mut ledger, "/v1/organizations", 1.0, 5, 0), Bucket::Instance);
    respond(&mut ledger, "/v1/users", 2.0, 40, 38);
    let bucket = instance(&mut ledger, 2.5);
    assert_eq!((bucket.limit, bucket.remaining), (Some(40), Some(38)));
    assert_eq!(instance(&mut ledger, 13.0).low_windows, 0);
    assert!(matches!(respond(&mut ledger, "/v1/organizations", 14.0, 5, 4), Bucket::Route(_)));
}

/// Clerk says that the logs have a limit of their own, and not which.
#[test]
fn logs_never_count_for_the_instance() {
    let mut ledger = counting();
    respond(&mut ledger, "/v1/users", 1.0, 40, 39);
    // The same number as the instance's, and no number with a 429.
    let own = respond(&mut ledger, "/v1/logs", 2.0, 40, 0);
    assert_eq!(own.as_str(), "route:GET /v1/logs");
    let route = route::find("GET", b"/v1/logs");
    let attempt = ledger.begin(&start(2.5, route));
    let refused = Observation { route: route.id, bucket: route.bucket, ..throttled(2.5, 30) };
    assert_eq!(ledger.end(attempt, at(2.5), AttemptEnd::Answered(&refused)), own);
    let bucket = instance(&mut ledger, 3.0);
    assert_eq!((bucket.remaining, bucket.blocked_until, bucket.exhausted_windows), (Some(39), None, 0));
    let snapshot = ledger.snapshot(at(13.0));
    assert_eq!(snapshot.bucket(Bucket::Instance).unwrap().exhausted_windows, 0);
    let logs = snapshot.bucket(own).unwrap();
    assert_eq!((logs.windows, logs.exhausted_windows), (1, 1));
    assert!(logs.blocked_until.is_some());
}
