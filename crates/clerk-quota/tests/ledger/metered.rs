//! Which requests count as operations that Clerk bills, and for whom.

use std::time::Duration;

use clerk_quota::metered::{MeteredKey, MeteredOperation, MeteredPlan};
use clerk_quota::{
    AttemptEnd, CallerId, InstanceLedger, MethodLabel, Observation, Reported, ReportedEnd, ReportedRequest,
    RequestStart, Route, Settings, Source, route,
};

use crate::{at, ledger, plain, settings};

/// The lateness of a ledger that gets reports.
pub(crate) const LATENESS: Duration = Duration::from_secs(15);

/// The route of the operation, as an SDK without `/v1` in its paths requests it.
pub(crate) fn route_of(operation: MeteredOperation) -> Route {
    let path = match operation {
        MeteredOperation::ApiKeyVerify => "/api_keys/verify",
        MeteredOperation::ApiKeyCreate => "/api_keys",
        MeteredOperation::M2mVerify => "/m2m_tokens/verify",
        MeteredOperation::M2mCreate => "/m2m_tokens",
    };
    route::find("POST", path.as_bytes())
}

/// How a request ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Status(u16),
    Unanswered,
    NotSent,
}

/// Sends a request that ends at this time.
pub(crate) fn send(
    ledger: &mut InstanceLedger,
    seconds: f64,
    source: Source,
    caller: CallerId,
    route: Route,
    end: End,
) {
    let attempt = ledger.begin(&RequestStart { at: at(seconds), source, caller, route, method: MethodLabel::Post });
    let response = |status| Observation { source, route: route.id, bucket: route.bucket, ..plain(seconds, status) };
    match end {
        End::Status(status) => ledger.end(attempt, at(seconds), AttemptEnd::Answered(&response(status))),
        End::Unanswered => ledger.end(attempt, at(seconds), AttemptEnd::Unanswered),
        End::NotSent => ledger.end(attempt, at(seconds), AttemptEnd::NotSent),
    };
}

/// Reports a request of an application, which stands for several.
pub(crate) fn report(ledger: &mut InstanceLedger, seconds: f64, route: Route, status: u16, weight: f64) -> Reported {
    let (source, caller, method) = (Source::Telemetry, CallerId(9), MethodLabel::Post);
    let response = Observation { source, route: route.id, bucket: route.bucket, ..plain(seconds, status) };
    let start = RequestStart { at: at(seconds), source, caller, route, method };
    let request = ReportedRequest { start, ended: at(seconds), end: ReportedEnd::Answered(response), weight };
    ledger.report(at(seconds + 1.0), &request)
}

/// A ledger that gets reports of applications.
pub(crate) fn reporting() -> InstanceLedger {
    let sources = vec![Source::Probe, Source::Telemetry];
    InstanceLedger::new(Settings { sources, lateness: Some(LATENESS), ..settings("test") })
}

fn counted(ledger: &mut InstanceLedger, seconds: f64) -> Vec<(MeteredKey, u64)> {
    ledger.snapshot(at(seconds)).metered.operations
}

#[test]
fn paths_with_and_without_version_are_the_same_operation() {
    for operation in MeteredOperation::ALL {
        let bare = route_of(operation);
        let versioned = route::find("POST", bare.template.as_bytes());
        assert!(bare.template.starts_with("/v1/") && versioned.id == bare.id);
        assert_eq!(MeteredOperation::of_route(bare.id), Some(operation));
    }
    for (method, path) in [
        ("GET", "/v1/api_keys"),
        ("POST", "/v1/api_keys/ak_1/revoke"),
        ("POST", "/v1/oauth_applications/access_tokens/verify"),
        ("POST", "/v1/m2m_tokens/mt_1/revoke"),
        ("POST", "/v1/nothing"),
    ] {
        assert_eq!(MeteredOperation::of_route(route::find(method, path.as_bytes()).id), None, "{method} {path}");
    }
}

#[test]
fn each_attempt_that_may_be_billed_counts_once() {
    let ends = [
        (End::Status(200), 1),
        (End::Status(201), 1),
        (End::Status(400), 1),
        (End::Status(403), 1),
        (End::Status(404), 1),
        (End::Status(422), 1),
        (End::Status(500), 1),
        (End::Status(503), 1),
        (End::Unanswered, 1),
        (End::NotSent, 0),
        (End::Status(401), 0),
        (End::Status(429), 0),
    ];
    for operation in MeteredOperation::ALL {
        for (end, expected) in ends {
            let mut ledger = ledger();
            send(&mut ledger, 1.0, Source::Gateway, CallerId(5), route_of(operation), end);
            let operations: u64 = counted(&mut ledger, 2.0).iter().map(|(_, operations)| operations).sum();
            assert_eq!(operations, expected, "{operation:?} {end:?}");
        }
    }
}

#[test]
fn operations_count_for_their_source_and_caller() {
    let mut ledger = ledger();
    let verify = route_of(MeteredOperation::M2mVerify);
    for (source, caller, requests) in [
        (Source::Gateway, CallerId(5), 3),
        (Source::Gateway, CallerId(6), 1),
        (Source::Client, CallerId::UNNAMED, 2),
        (Source::Probe, CallerId::UNNAMED, 1),
    ] {
        for _ in 0..requests {
            send(&mut ledger, 1.0, source, caller, verify, End::Status(200));
        }
    }
    send(&mut ledger, 1.0, Source::Gateway, CallerId(5), route::find("POST", b"/v1/users"), End::Status(200));
    let operation = MeteredOperation::M2mVerify;
    let key = |source, caller| MeteredKey { operation, caller, source };
    let mut expected = vec![
        (key(Source::Gateway, CallerId(5)), 3),
        (key(Source::Gateway, CallerId(6)), 1),
        (key(Source::Client, CallerId::UNNAMED), 2),
        (key(Source::Probe, CallerId::UNNAMED), 1),
    ];
    expected.sort_unstable();
    assert_eq!(counted(&mut ledger, 2.0), expected);
}

#[test]
fn reported_operations_count_with_their_weight() {
    let mut ledger = reporting();
    let verify = route_of(MeteredOperation::ApiKeyVerify);
    for second in 0..4 {
        assert!(matches!(report(&mut ledger, f64::from(second), verify, 200, 2.5), Reported::Pending(_)));
    }
    report(&mut ledger, 4.0, verify, 429, 100.0);
    assert_eq!(counted(&mut ledger, 10.0), [], "the reports wait");
    let key = MeteredKey { operation: MeteredOperation::ApiKeyVerify, caller: CallerId(9), source: Source::Telemetry };
    assert_eq!(counted(&mut ledger, 30.0), [(key, 10)]);
    assert_eq!(report(&mut ledger, 5.0, verify, 200, 1.0), Reported::Late);
    assert_eq!(counted(&mut ledger, 30.0), [(key, 11)], "a late report counts at once");
}

#[test]
fn a_withdrawn_report_counts_nothing() {
    let mut ledger = reporting();
    let verify = route_of(MeteredOperation::ApiKeyVerify);
    let Reported::Pending(id) = report(&mut ledger, 1.0, verify, 200, 1.0) else { unreachable!("it is in time") };
    assert!(ledger.cancel_report(id));
    assert_eq!(counted(&mut ledger, 60.0), []);
}

#[test]
fn callers_beyond_the_limit_count_as_other() {
    let mut ledger = ledger();
    let verify = route_of(MeteredOperation::ApiKeyVerify);
    for caller in 2..3002 {
        send(&mut ledger, 1.0, Source::Gateway, CallerId(caller), verify, End::Status(200));
    }
    let counted = counted(&mut ledger, 2.0);
    assert_eq!(counted.iter().map(|(_, operations)| operations).sum::<u64>(), 3000);
    assert!(counted.len() <= 2001, "{}", counted.len());
    assert!(counted.iter().any(|(key, operations)| key.caller == CallerId::OTHER && *operations > 900));
}

#[test]
fn plan_is_the_published_one_unless_set() {
    let mut ledger = ledger();
    assert_eq!(ledger.snapshot(at(0.0)).metered.plan, MeteredPlan::PUBLISHED);
    let plan = MeteredPlan { free: [1, 2, 3, 4], ..MeteredPlan::PUBLISHED };
    ledger.set_metered_plan(plan, at(0.0));
    assert_eq!(ledger.snapshot(at(0.0)).metered.plan, plan);
}
