//! Writes that are retried where their route enables it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::response::IntoResponse;
use clerk_exporter::gateway::{InstancePolicies, Mode, RoutePolicies};
use clerk_simulator::Fault;
use http::StatusCode;
use tokio::time::{Instant, sleep, timeout};

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

/// Sends a write of this route, whose first attempt has a fault. Returns the status and the attempts.
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
    // A closed idle connection does not count as an attempt.
    let said = answer.value("x-clerk-exporter-attempts");
    assert!(said.is_none() || (said, attempts) == (Some("2"), 2), "{said:?} {attempts}");
    (answer.status, attempts)
}

#[tokio::test(start_paused = true)]
async fn write_is_retried_if_its_route_and_http_allow_it() {
    for (route, fault, expected) in [
        (PATCH, throttled(1), (200, 2)),
        // It may have been executed, and executing it twice differs.
        (PATCH, status(503), (503, 1)),
        (PATCH, lost(), (502, 1)),
        (PUT, throttled(1), (200, 2)),
        (PUT, status(503), (200, 2)),
        (DELETE, throttled(1), (200, 2)),
        // It was executed: the second one finds nothing to delete.
        (DELETE, status(503), (404, 2)),
        (DELETE, lost(), (200, 2)),
        (DELETE, status(500), (500, 1)),
    ] {
        let reads = Reads::routed(OFF, route, RETRY);
        assert_eq!(write(&reads, route, fault.clone()).await, expected, "{route:?} {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn write_is_not_retried_for_policies_of_other_routes() {
    for (policies, route) in [(RETRY, USER), (OFF, PATCH)] {
        let reads = Reads::routed(policies, route, RETRY);
        assert_eq!(write(&reads, DELETE, throttled(1)).await, (429, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn shadow_retry_counts_writes_that_would_be_retried() {
    let shadow = RoutePolicies { retry: Mode::Shadow, ..OFF };
    let reads = Reads::routed(OFF, PATCH, shadow);
    for (fault, counted) in [(throttled(1), 1), (status(503), 1)] {
        assert_eq!(write(&reads, PATCH, fault).await.1, 1);
        assert_eq!(reads.shadowed(clerk_exporter::gateway::Decision::Retried), counted);
    }
}

/// The first attempt may have been executed and its response lost; the second one finds nothing to delete.
#[tokio::test(start_paused = true)]
async fn retried_write_invalidates_whatever_its_last_status() {
    let plan = InstancePolicies { routes: [(USER, CACHE), (DELETE, RETRY)].into(), ..InstancePolicies::default() };
    let reads = Reads::with(roomy(), Setup { plan, ..Setup::default() });
    reads.get(&reads.path(1)).await;
    assert_eq!(reads.get(&reads.path(1)).await.decision(), Some("cache_hit"));
    reads.delete_elsewhere(1).await;
    assert_eq!(write(&reads, DELETE, lost()).await, (404, 2));
    assert_eq!(reads.get(&reads.path(1)).await.decision(), None);
}

/// A Clerk that returns how often a user was written, counted when the writes are executed.
fn slow_writes(carries_out: Duration, answers: Option<u16>) -> axum::Router {
    let version = Arc::new(AtomicU64::new(1));
    let going_on = Arc::<parking_lot::Mutex<tokio::task::JoinSet<()>>>::default();
    axum::Router::new().fallback(move |request: axum::extract::Request| {
        let (version, going_on) = (Arc::clone(&version), Arc::clone(&going_on));
        async move {
            if request.method() == "GET" {
                let body = format!(r#"{{"id":"user_1","version":{}}}"#, version.load(Ordering::SeqCst));
                return ([("content-type", "application/json")], body).into_response();
            }
            // Continues if the client disconnects.
            going_on.lock().spawn(async move {
                sleep(carries_out).await;
                version.fetch_add(1, Ordering::SeqCst);
            });
            match answers {
                Some(status) => StatusCode::from_u16(status).unwrap().into_response(),
                None => std::future::pending().await,
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn no_stale_response_is_cached_after_an_unknown_write() {
    // Cancelled by its client, or timed out, or answered by a proxy in between.
    for (gives_up, answers) in
        [(Some(400), None), (None, None), (None, Some(502)), (None, Some(504)), (None, Some(524)), (None, Some(408))]
    {
        let reads = Reads::before(slow_writes(Duration::from_secs(8), answers), CACHE);
        let version = async || reads.get("/v1/users/user_1").await.json()["version"].as_u64().unwrap();
        assert_eq!(version().await, 1);
        let from = Instant::now();
        let write = reads.send_body(authorized("PATCH", "/v1/users/user_1", KEY), "");
        match gives_up {
            Some(millis) => assert!(timeout(Duration::from_millis(millis), write).await.is_err()),
            None => assert!(write.await.status >= 400),
        }
        let ended = from.elapsed();
        let mut is_new = false;
        for _ in 0..180 {
            let version = version().await;
            assert_eq!(
                version,
                if from.elapsed() >= Duration::from_secs(8) { 2 } else { 1 },
                "{gives_up:?} {answers:?}"
            );
            is_new |= version == 2;
            sleep(Duration::from_millis(330)).await;
        }
        assert!(is_new);
        // Then responses are cached as before; within a minute only for a few seconds.
        sleep((ended + Duration::from_secs(72)).saturating_sub(from.elapsed())).await;
        let sent = reads.sent();
        for _ in 0..40 {
            version().await;
            sleep(Duration::from_secs(1)).await;
        }
        assert!(reads.sent() <= sent + 2, "{} requests", reads.sent() - sent);
    }
}

#[tokio::test(start_paused = true)]
async fn resource_reported_missing_is_invalidated() {
    for status in [404, 410] {
        for method in ["PATCH", "DELETE", "HEAD", "GET"] {
            let gone = Arc::new(AtomicBool::new(false));
            let is_gone = Arc::clone(&gone);
            let clerk = axum::Router::new().fallback(move || {
                let status = if is_gone.load(Ordering::SeqCst) { status } else { 200 };
                async move {
                    let body = ([("content-type", "application/json")], r#"{"id":"user_1"}"#);
                    (StatusCode::from_u16(status).unwrap(), body).into_response()
                }
            });
            let reads = Reads::before(clerk, CACHE);
            let below = "/v1/users/user_1/organization_memberships";
            for path in ["/v1/users/user_1", below, "/v1/users/user_2"] {
                assert_eq!(reads.get(path).await.status, 200);
                assert_eq!(reads.get(path).await.decision(), Some("cache_hit"), "{path}");
            }
            gone.store(true, Ordering::SeqCst);
            let request = authorized(method, "/v1/users/user_1", KEY).header("cache-control", "no-cache");
            assert_eq!(reads.send(request).await.status, status);
            for path in ["/v1/users/user_1", below] {
                assert_eq!(reads.get(path).await.status, status, "{method} {path}");
            }
            // Other users are unaffected.
            assert_eq!(reads.get("/v1/users/user_2").await.decision(), Some("cache_hit"), "{method}");
        }
    }
}
