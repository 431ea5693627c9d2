//! What the gateway records.

use clerk_exporter::gateway::Decision;
use clerk_quota::{Bucket, Source};
use clerk_quota::{MethodLabel, Span};

use crate::support::{OK, Running, Stub, request};

#[tokio::test]
async fn requests_are_counted_by_caller_template_method_and_status() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    for (method, path) in [
        ("GET", "/v1/users/user_1"),
        ("GET", "/v1/users/user_2?x=1"),
        ("HEAD", "/v1/users/user_3"),
        ("PATCH", "/v1/users/user_1"),
        ("GET", "/v1/nothing/known"),
        ("PURGE", "/v1/users"),
    ] {
        gateway.send(request(method, path, "", "")).await;
    }
    let numbers = gateway.stopped().await.numbers();
    let counts: Vec<_> =
        numbers.requests.iter().map(|request| (request.route, request.method, request.code, request.count)).collect();
    assert_eq!(
        counts,
        [
            ("/v1/users/{user_id}", MethodLabel::Get, 200, 2),
            ("/v1/users/{user_id}", MethodLabel::Head, 200, 1),
            ("/v1/users/{user_id}", MethodLabel::Patch, 200, 1),
            ("other", MethodLabel::Get, 200, 1),
            ("other", MethodLabel::Other, 200, 1),
        ]
    );
    assert_eq!(numbers.decisions[Decision::Forwarded.index()], 6);
    let routes: Vec<_> = numbers
        .durations
        .iter()
        .map(|durations| (durations.route, durations.request.count(), durations.upstream.count()))
        .collect();
    assert_eq!(routes, [("/v1/users/{user_id}", 4, 4), ("other", 2, 2)]);
}

#[tokio::test]
async fn every_response_is_recorded_with_source_gateway() {
    let stub = Stub::answering(
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n<h>",
    )
    .await;
    let gateway = Running::before(&stub).await;
    let answer = gateway.get("/v1/users/count").await;
    assert_eq!((answer.status(), answer.value("retry-after"), &*answer.body), (429, Some("7"), &b"<h>"[..]));
    assert_eq!(answer.value("x-clerk-exporter-decision"), None, "it is Clerk's own answer");
    let world = gateway.stopped().await;
    let snapshot = world.ledger.snapshot(world.clock.now()).remove(0);
    assert_eq!(snapshot.responses.get(&(Source::Gateway, 429)), Some(&1));
    let bucket = snapshot.buckets.iter().find(|bucket| bucket.bucket == Bucket::Instance).unwrap();
    assert_eq!(bucket.throttled[Source::Gateway.index()], 1);
    assert!(bucket.blocked_until.is_some());
}

#[tokio::test]
async fn usage_is_reported_by_route_and_caller() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    for _ in 0..3 {
        gateway.send(request("GET", "/v1/users/user_1", "User-Agent: loop/1\r\n", "")).await;
    }
    gateway.get("/v1/users/count").await;
    gateway.get("/v1/jwks").await;
    let top = gateway.stopped().await.top();
    let hour = &top[Span::ALL.iter().position(|span| *span == Span::Hour).unwrap()];
    let shares: Vec<_> = hour.iter().map(|share| (share.route, &*share.caller, share.requests)).collect();
    assert_eq!(shares, [("/v1/users/{user_id}", "loop", 3), ("/v1/users/count", "unknown", 1)]);
    assert!((hour[0].ratio - 0.75).abs() < 1e-9, "unlimited requests are not included");
}

#[tokio::test]
async fn compressed_403_does_not_invalidate_the_key() {
    for (status, valid) in [(403, None), (404, Some(true)), (401, Some(false)), (422, Some(true))] {
        let stub = Stub::answering(format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nzz"
        ))
        .await;
        let gateway = Running::before(&stub).await;
        gateway.get("/v1/users/count").await;
        let world = gateway.stopped().await;
        let snapshot = world.ledger.snapshot(world.clock.now()).remove(0);
        assert_eq!(snapshot.key_valid, valid, "{status}");
    }
}

#[tokio::test]
async fn error_code_in_an_uncompressed_body_is_parsed() {
    let body = r#"{"errors":[{"code":"user_quota_exceeded","message":"m"}]}"#;
    let stub = Stub::answering(format!(
        "HTTP/1.1 403 X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let gateway = Running::before(&stub).await;
    let answer = gateway.send(request("POST", "/v1/users", "", "")).await;
    assert_eq!(answer.body, body.as_bytes());
    let world = gateway.stopped().await;
    let snapshot = world.ledger.snapshot(world.clock.now()).remove(0);
    assert_eq!((snapshot.key_valid, snapshot.quota_exceeded.iter().sum::<u64>()), (Some(true), 1));
}
