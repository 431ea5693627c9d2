//! Identical concurrent reads share a response.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get as route;
use clerk_exporter::gateway::{CLIENT_GONE, Decision, Mode, RoutePolicies, Saving};
use clerk_simulator::Fault;
use http::HeaderMap;

use super::{COALESCE, OFF, Reads, authorized, get, status, throttled};
use crate::support::TOKEN;
use clerk_test_support::KEY;

const PATH: &str = "/v1/users/count";

#[tokio::test(start_paused = true)]
async fn identical_reads_share_one_request() {
    let reads = Reads::new(COALESCE);
    reads.lag(50);
    let answers = reads.together((0..20).map(|_| get(PATH))).await;
    assert_eq!(reads.sent(), 1);
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    let shared = answers.iter().filter(|answer| answer.decision() == Some("coalesced")).count();
    assert_eq!((shared, answers.iter().filter(|answer| answer.decision().is_none()).count()), (19, 1));
    assert_eq!((reads.decided(Decision::Coalesced), reads.decided(Decision::Forwarded)), (19, 1));
    assert_eq!(reads.saved(Saving::Coalesce), 19);
}

#[tokio::test(start_paused = true)]
async fn coalesced_response_is_shared_only_while_in_flight() {
    let reads = Reads::new(COALESCE);
    for _ in 0..3 {
        assert_eq!(reads.get(PATH).await.decision(), None);
    }
    assert_eq!(reads.sent(), 3);
}

#[tokio::test(start_paused = true)]
async fn different_reads_are_not_coalesced() {
    let reads = Reads::new(COALESCE);
    reads.lag(50);
    let list = |query: &str| get(&format!("/v1/users?{query}"));
    let different = [
        list("limit=1"),
        list("limit=2"),
        list("limit=1&offset=0"),
        list("limit=1").header("accept", "application/json"),
        list("limit=1").header("accept", "*/*"),
        list("limit=1").header("clerk-api-version", "2024-10-01"),
        list("limit=1").header("clerk-api-version", "2025-04-10"),
        get("/v1/users"),
        get("/v1/users?"),
    ];
    let count = different.len();
    let answers = reads.together(different).await;
    assert!(answers.iter().all(|answer| answer.decision().is_none()));
    assert_eq!(reads.sent(), count);
}

#[tokio::test(start_paused = true)]
async fn reordered_parameters_are_coalesced() {
    let reads = Reads::new(COALESCE);
    reads.lag(50);
    let queries = ["limit=3&offset=1&order_by=-created_at", "order_by=-created_at&limit=3&offset=1"];
    let answers = reads.together(queries.map(|query| get(&format!("/v1/users?{query}")))).await;
    assert_eq!((reads.sent(), &answers[0].body), (1, &answers[1].body));
}

#[tokio::test(start_paused = true)]
async fn disconnecting_client_does_not_affect_others() {
    let reads = Arc::new(Reads::new(COALESCE));
    reads.lag(1000);
    let leaving = tokio::time::timeout(Duration::from_millis(300), reads.get(PATH));
    let staying = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        reads.together((0..3).map(|_| get(PATH))).await
    };
    let (left, stayed) = tokio::join!(leaving, staying);
    assert!(left.is_err());
    assert!(stayed.iter().all(|answer| answer.status == 200 && answer.decision() == Some("coalesced")));
    assert_eq!(reads.sent(), 1);
    let requests = reads.world.numbers().requests;
    let gone: u64 = requests.iter().filter(|request| request.code == CLIENT_GONE).map(|request| request.count).sum();
    assert_eq!((gone, reads.decided(Decision::Abandoned)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn errors_are_coalesced_but_not_cached() {
    for (fault, path, code) in [
        (Some(throttled(7)), PATH, 429),
        (Some(status(500)), PATH, 500),
        (None, "/v1/users/user_2NNEqL2nrIRdJ194ndJqAHwEfxC", 404),
    ] {
        let reads = Reads::new(COALESCE);
        reads.lag(50);
        if let Some(fault) = fault {
            reads.fault(fault.times(1));
        }
        let answers = reads.together((0..5).map(|_| get(path))).await;
        assert_eq!(reads.sent(), 1, "{code}");
        for answer in &answers {
            assert_eq!((answer.status, &answer.body), (code, &answers[0].body));
            assert_eq!(answer.value("retry-after"), (code == 429).then_some("7"));
        }
        reads.get(path).await;
        assert_eq!(reads.sent(), 2, "{code} is not cached");
    }
}

#[tokio::test(start_paused = true)]
async fn writes_are_never_shared() {
    let all = RoutePolicies { cache: Mode::On, batch: Mode::On, ..COALESCE };
    let reads = Reads::new(all);
    let body = r#"{"email_address":"a@example.com"}"#;
    let post = || authorized("POST", "/v1/invitations", KEY).header("content-type", "application/json");
    futures_util::future::join_all((0..5).map(|_| reads.send_body(post(), body))).await;
    assert_eq!(reads.sent(), 5);
    reads.together((0..4).map(|_| authorized("DELETE", "/v1/users/user_1", KEY))).await;
    assert_eq!(reads.sent(), 9);
}

#[tokio::test(start_paused = true)]
async fn cache_control_requests_are_not_coalesced() {
    for (name, value) in [
        ("cache-control", "max-age=0, No-Cache"),
        ("cache-control", "no-store"),
        ("pragma", "no-cache"),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"a\""),
        ("if-modified-since", "Tue, 24 Nov 2026 00:00:00 GMT"),
        ("if-match", "\"a\""),
    ] {
        for policies in [COALESCE, RoutePolicies { cache: Mode::On, ..COALESCE }] {
            let reads = Reads::new(policies);
            reads.lag(50);
            let answers = reads.together((0..3).map(|_| get(PATH).header(name, value))).await;
            assert_eq!(reads.sent(), 3, "{name}: {value}");
            assert!(answers.iter().all(|answer| answer.decision().is_none()));
            assert!(reads.asked().iter().all(|asked| asked.headers[name] == value));
        }
    }
}

/// Compresses responses if accepted, with a cookie for one client.
fn personal() -> Router {
    let answer = async |headers: HeaderMap| {
        let is_compressed = headers.contains_key("accept-encoding");
        let mut answer = HeaderMap::new();
        answer.insert("content-type", "application/json".parse().unwrap());
        answer.append("set-cookie", "__cf_bm=personal; Secure".parse().unwrap());
        if is_compressed {
            answer.insert("content-encoding", "gzip".parse().unwrap());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        (answer, if is_compressed { "\u{1f}compressed" } else { "{}" })
    };
    Router::new().route(PATH, route(answer))
}

#[tokio::test(start_paused = true)]
async fn client_specific_fields_are_not_shared() {
    let requests = || {
        [
            get(PATH).header("accept-encoding", "gzip").header("cookie", "__cf_bm=of-the-first"),
            get(PATH),
            get(PATH).header("accept-encoding", "br"),
        ]
    };
    for policies in [COALESCE, RoutePolicies { cache: Mode::On, ..OFF }] {
        let reads = Reads::before(personal(), policies);
        let answers = reads.together(requests()).await;
        let asked = reads.asked();
        assert_eq!(asked.len(), 1);
        assert!(!asked[0].headers.contains_key("accept-encoding") && !asked[0].headers.contains_key("cookie"));
        for answer in &answers {
            assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
            assert!(!answer.headers.contains_key("set-cookie") && !answer.headers.contains_key("content-encoding"));
        }
    }
    // Without a policy everything passes unchanged.
    let reads = Reads::before(personal(), OFF);
    let answers = reads.together(requests()).await;
    assert!(answers.iter().all(|answer| answer.headers.contains_key("set-cookie")));
    assert_eq!(answers[0].value("content-encoding"), Some("gzip"));
}

#[tokio::test(start_paused = true)]
async fn large_response_is_not_shared_and_arrives_whole() {
    for policies in [COALESCE, RoutePolicies { cache: Mode::On, ..COALESCE }] {
        let reads = Reads::new(policies);
        reads.lag(50);
        reads.fault(Fault::HugeBody { bytes: 6_000_000 }.always());
        let answers = reads.together((0..3).map(|_| get(PATH))).await;
        for answer in &answers {
            assert_eq!((answer.status, answer.decision()), (200, None));
            assert!(answer.body.len() >= 6_000_000 && answer.body == answers[0].body);
        }
        assert_eq!(reads.sent(), 3);
        assert_eq!((reads.get(PATH).await.status, reads.sent()), (200, 4));
        assert_eq!(reads.decided(Decision::Forwarded), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn truncated_response_is_an_error_for_all_waiters() {
    let reads = Reads::new(COALESCE);
    reads.lag(50);
    reads.fault(Fault::Reset { after_bytes: 10 }.always());
    let answers = reads.together((0..4).map(|_| get(PATH))).await;
    assert_eq!(reads.sent(), 1);
    for answer in &answers {
        assert_eq!((answer.status, answer.decision()), (502, Some("failed")));
        assert_eq!(answer.json()["errors"][0]["code"], "gateway_upstream_broken");
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_key_does_not_affect_other_keys() {
    let refusing = async |headers: HeaderMap| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        // For this server, a key with this user agent is a different key.
        if headers.get("user-agent").is_some_and(|agent| agent == "revoked") {
            http::StatusCode::UNAUTHORIZED
        } else {
            http::StatusCode::OK
        }
    };
    let reads = Reads::before(Router::new().route(PATH, route(refusing)), COALESCE);
    let requests = [get(PATH).header("user-agent", "revoked"), get(PATH), authorized("GET", PATH, TOKEN)];
    let statuses: Vec<_> = reads.together(requests).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [401, 200, 200]);
    assert_eq!(reads.sent(), 3);
}

#[tokio::test(start_paused = true)]
async fn known_keys_are_coalesced_and_unknown_keys_are_not() {
    let reads = Reads::new(COALESCE);
    reads.lag(50);
    reads.together([KEY, TOKEN].map(|key| authorized("GET", PATH, key))).await;
    assert_eq!(reads.sent(), 1);
    let stranger = "sk_test_strangerCANARY0123456789";
    reads.together([stranger, stranger].map(|key| authorized("GET", PATH, key))).await;
    assert_eq!(reads.sent(), 3);
}
