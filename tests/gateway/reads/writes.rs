//! Writes that are sent again where their route says so.

use clerk_exporter::gateway::{InstancePolicies, Mode, RoutePolicies};
use clerk_simulator::Fault;

use super::{CACHE, OFF, Reads, USER, authorized, roomy, status, throttled};
use crate::support::Setup;
use clerk_test_support::KEY;

const RETRY: RoutePolicies = RoutePolicies { retry: Mode::On, ..OFF };
const BODY: &str = r#"{"first_name":"Again"}"#;
const PUT: (&str, &str) = ("PUT", "/v1/users/{user_id}/metadata");
const PATCH: (&str, &str) = ("PATCH", USER.1);
const DELETE: (&str, &str) = ("DELETE", USER.1);

fn lost() -> Fault {
    Fault::Reset { after_bytes: 0 }
}

/// Sends a write of this route, of which the first attempt meets a fault. Gives the status and the attempts.
async fn write(reads: &Reads, (method, template): (&str, &str), fault: Fault) -> (u16, usize) {
    let before = reads.sent();
    reads.fault(fault.times(1));
    let path = template.replace("{user_id}", &reads.user(1));
    let body = if method == "DELETE" { "" } else { BODY };
    let request = authorized(method, &path, KEY)
        .header("content-type", "application/json")
        .header("content-length", body.len().to_string());
    let answer = reads.send_body(request, body).await;
    reads.heal();
    let attempts = reads.sent() - before;
    // An idle connection that just closes costs none.
    let said = answer.value("x-clerk-exporter-attempts");
    assert!(said.is_none() || (said, attempts) == (Some("2"), 2), "{said:?} {attempts}");
    (answer.status, attempts)
}

#[tokio::test(start_paused = true)]
async fn a_write_is_sent_again_where_its_route_says_so_and_http_allows_it() {
    for (route, fault, expected) in [
        (PATCH, throttled(1), (200, 2)),
        // It may have been carried out, and twice is not once.
        (PATCH, status(503), (503, 1)),
        (PATCH, lost(), (502, 1)),
        (PUT, throttled(1), (200, 2)),
        (PUT, status(503), (200, 2)),
        // The simulator deletes nobody.
        (DELETE, throttled(1), (404, 2)),
        (DELETE, status(503), (404, 2)),
        (DELETE, lost(), (404, 2)),
        (DELETE, status(500), (500, 1)),
    ] {
        let reads = Reads::routed(OFF, route, RETRY);
        assert_eq!(write(&reads, route, fault.clone()).await, expected, "{route:?} {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_sent_once_where_only_reads_or_other_writes_are_retried() {
    for (policies, route) in [(RETRY, USER), (OFF, PATCH)] {
        let reads = Reads::routed(policies, route, RETRY);
        assert_eq!(write(&reads, DELETE, throttled(1)).await, (429, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn in_shadow_a_write_is_counted_as_far_as_it_would_be_sent_again() {
    let shadow = RoutePolicies { retry: Mode::Shadow, ..OFF };
    let reads = Reads::routed(OFF, PATCH, shadow);
    for (fault, counted) in [(throttled(1), 1), (status(503), 1)] {
        assert_eq!(write(&reads, PATCH, fault).await.1, 1);
        assert_eq!(reads.shadowed(clerk_exporter::gateway::Decision::Retried), counted);
    }
}

/// The first attempt may have been carried out and its answer lost; the second one finds nothing to delete.
#[tokio::test(start_paused = true)]
async fn what_an_attempt_may_have_changed_is_forgotten_whatever_the_last_one_says() {
    let plan = InstancePolicies { routes: [(USER, CACHE), (DELETE, RETRY)].into(), ..InstancePolicies::default() };
    let reads = Reads::with(roomy(), Setup { plan, ..Setup::default() });
    reads.get(&reads.path(1)).await;
    assert_eq!(reads.get(&reads.path(1)).await.decision(), Some("cache_hit"));
    assert_eq!(write(&reads, DELETE, lost()).await, (404, 2));
    assert_eq!(reads.get(&reads.path(1)).await.decision(), None);
}
