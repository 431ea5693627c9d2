//! Nothing personal stays: no path, id, query or header value in what outlives a request, in logs or in answers.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use clerk_exporter::telemetry::decode::{BodyEncoding, decode};
use clerk_exporter::telemetry::span::{Hosts, classify};
use clerk_test_support::log;
use prost::Message;
use tower::ServiceExt;

use super::captured::BODIES;
use super::support::{CAPTURED_HOST, World, call, request, text, texts};

/// Parts of the captured bodies and of [`personal_body`] that must not stay.
const PERSONAL: [&str; 10] = [
    "user_3",
    "user_C",
    "37aQUqkiM6C9cXY0OhKCSxcAAeK",
    "limit=",
    "order_by",
    "18432/",
    "@example",
    "CANARY",
    "alice",
    "secret-value",
];

/// A call with personal data wherever a sender can put it.
fn personal_body() -> Vec<u8> {
    let mut span = call(1);
    span.name = "GET /v1/users/user_CANARY".to_owned();
    span.attributes[0] = text("http.request.method", "PATCH");
    let url = format!("http://alice:secret-value@{CAPTURED_HOST}/v1/users/user_CANARY?email_address=alice@example.com");
    span.attributes[1] = text("url.full", &url);
    span.attributes.push(texts("http.response.header.retry-after", &["secret-value"]));
    span.attributes.push(texts("http.request.header.authorization", &["Bearer sk_live_CANARY"]));
    span.attributes.push(text("enduser.id", "alice@example.com"));
    let mut broken = span.clone();
    broken.span_id = vec![1];
    request(vec![text("service.name", "sk_live_CANARY"), text("host.name", "alice")], vec![span, broken])
        .encode_to_vec()
}

fn assert_harmless(text: &str, what: &str) {
    for part in PERSONAL {
        if let Some(place) = text.find(part) {
            let near = text.get(place.saturating_sub(80)..(place + 80).min(text.len()));
            panic!("{what} contains {part}: {}", near.unwrap_or_default());
        }
    }
}

#[test]
fn nothing_that_stays_is_personal() {
    log::listen();
    let world = World::new(CAPTURED_HOST);
    for (body, format, encoding) in BODIES {
        world.telemetry.take(body, format, encoding).unwrap();
        let cut = &body[..body.len() - 1];
        let error = world.telemetry.take(cut, format, encoding).unwrap_err();
        assert_harmless(&format!("{error} {error:?}"), "an error");
    }
    world.take(&personal_body()).unwrap();
    assert!(world.telemetry.stats().dropped_callers > 0);
    assert_harmless(&format!("{:?}", world.telemetry), "the telemetry source");
    assert_harmless(&format!("{:?}", world.telemetry.stats()), "the statistics");
    assert_harmless(&format!("{:?} {:?}", world.ledger, world.snapshot("main")), "the ledger");
    assert_harmless(&log::everything(), "the log");
}

#[test]
fn calls_contain_nothing_personal() {
    let hosts = Hosts::new([CAPTURED_HOST]).unwrap();
    let personal = personal_body();
    let bodies = BODIES.into_iter().chain([(&personal[..], BODIES[0].1, BodyEncoding::Identity)]);
    for (body, format, encoding) in bodies {
        let request = decode(body, format, encoding, &Default::default()).unwrap();
        for span in request.resource_spans.iter().flat_map(|it| &it.scope_spans).flat_map(|it| &it.spans) {
            assert_harmless(&format!("{:?}", classify(span, &hosts)), "a call");
        }
    }
}

#[tokio::test]
async fn answers_and_logs_contain_nothing_personal() {
    log::listen();
    let world = World::new(CAPTURED_HOST);
    let personal = personal_body();
    for (path, media_type, body) in [
        ("/v1/traces", "application/x-protobuf", &personal[..]),
        ("/v1/traces", "application/x-protobuf", &personal[..personal.len() - 1]),
        ("/v1/traces", "application/json", &personal[..]),
        ("/v1/traces", "user_CANARY", &personal[..]),
        ("/v1/users/user_CANARY?limit=1", "application/json", b"{}"),
    ] {
        let request = Request::post(path).header("content-type", media_type).body(Body::from(body.to_vec())).unwrap();
        let (head, body) = world.telemetry.router().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        assert_harmless(&format!("{head:?} {}", String::from_utf8_lossy(&body)), "an answer");
    }
    let log = log::everything();
    assert!(log.contains("a trace request was refused"), "{log}");
    assert_harmless(&log, "the log");
}
