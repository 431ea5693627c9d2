//! Keys, tokens and callers, and requests with unknown keys.

use crate::support::{OK, Running, Setup, Stub, TOKEN, request};
use clerk_test_support::KEY;

fn bearing(authorization: &str, fields: &str) -> String {
    let authorization =
        if authorization.is_empty() { String::new() } else { format!("Authorization: {authorization}\r\n") };
    format!("GET /v1/users HTTP/1.1\r\nHost: gateway\r\n{authorization}{fields}\r\n")
}

#[tokio::test]
async fn unknown_key_is_forwarded_and_counted_separately() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    for authorization in ["Bearer sk_live_somebodyelse", "Basic abc", "", "bearer x", "Bearer  two  blanks"] {
        stub.requests.lock().clear();
        assert_eq!(gateway.send(bearing(authorization, "")).await.status(), 200);
        assert_eq!(stub.request().value("authorization").unwrap_or_default(), authorization);
    }
    let world = gateway.stopped().await;
    assert_eq!(world.strangers().requests.iter().map(|request| request.count).sum::<u64>(), 5);
    assert_eq!(world.numbers().requests, []);
    let snapshot = world.ledger.snapshot(world.clock.now()).remove(0);
    assert_eq!(snapshot.responses.values().sum::<u64>(), 0, "it reveals nothing about the instance");
}

#[tokio::test]
async fn unknown_keys_can_be_rejected() {
    let stub = Stub::answering(OK).await;
    let setup = Setup { rejects_strangers: true, ..Setup::default() };
    let gateway = Running::with(stub.address, setup).await;
    for authorization in ["Bearer sk_live_somebodyelse", "", "Bearer", &format!("Bearer {KEY}x"), KEY] {
        let answer = gateway.send(bearing(authorization, "")).await;
        assert_eq!((answer.status(), &*answer.code()), (401, "gateway_key_unknown"), "{authorization}");
        assert_eq!(answer.value("x-clerk-exporter-decision"), Some("rejected"));
    }
    assert_eq!(stub.requests(), []);
    assert_eq!(gateway.get("/v1/users").await.status(), 200);
}

#[tokio::test]
async fn caller_token_is_replaced_by_the_key() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    for scheme in ["Bearer", "bearer", "BEARER "] {
        gateway.send(bearing(&format!("{scheme} {TOKEN}"), "User-Agent: @clerk/backend@1.0.0\r\n")).await;
    }
    // A token named in Connection is removed before it is replaced by the key, and not afterwards.
    gateway.send(bearing(&format!("Bearer {TOKEN}"), "Connection: authorization\r\n")).await;
    assert_eq!(stub.requests().len(), 4);
    for request in stub.requests() {
        assert!(!request.head.contains(TOKEN), "{}", request.first_line());
        assert_eq!(request.value("authorization"), Some(&*format!("Bearer {KEY}")));
    }
    let numbers = gateway.stopped().await.numbers();
    let callers: Vec<_> = numbers.requests.iter().map(|request| (&*request.caller, request.count)).collect();
    assert_eq!(callers, [("billing", 4)]);
}

#[tokio::test]
async fn misplaced_token_is_rejected_and_never_forwarded() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    for authorization in [
        TOKEN.to_owned(),
        format!("Basic {TOKEN}"),
        format!("Token {TOKEN}"),
        format!("Bearer {TOKEN},"),
        format!("Bearer \"{TOKEN}\""),
        format!("Bearer: {TOKEN}"),
        format!("Bearer,{TOKEN}"),
        format!("Bearer Bearer {TOKEN}"),
        format!("Bearer {TOKEN} {TOKEN}"),
        format!("Bearer x{TOKEN}x"),
        format!("Bearer {KEY} {TOKEN}"),
    ] {
        let answer = gateway.send(bearing(&authorization, "")).await;
        assert_eq!((answer.status(), &*answer.code()), (400, "gateway_request_invalid"), "{authorization}");
        assert!(answer.json()["errors"][0]["long_message"].as_str().unwrap().contains("Bearer <token>"));
        assert!(!String::from_utf8_lossy(&answer.body).contains(TOKEN));
    }
    assert_eq!(stub.requests(), []);
}

#[tokio::test]
async fn trace_with_a_token_does_not_reveal_the_key() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let trace = |credential: &str| bearing(&format!("Bearer {credential}"), "").replace("GET", "TRACE");
    let answer = gateway.send(trace(TOKEN)).await;
    assert_eq!((answer.status(), &*answer.code()), (405, "gateway_method_not_allowed"));
    assert_eq!(stub.requests(), []);
    // A client that sends the key may see it.
    assert_eq!(gateway.send(trace(KEY)).await.status(), 200);
    assert_eq!(stub.requests().len(), 1);
}

#[tokio::test]
async fn several_authorization_fields_are_rejected() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let second = format!("Authorization: Bearer {TOKEN}\r\n");
    let answer = gateway.send(bearing(&format!("Bearer {KEY}"), &second)).await;
    assert_eq!((answer.status(), stub.requests().len()), (400, 0));
}

#[tokio::test]
async fn callers_are_named_by_sdk_up_to_a_limit() {
    let stub = Stub::answering(OK).await;
    let setup = Setup { max_callers: 2, ..Setup::default() };
    let gateway = Running::with(stub.address, setup).await;
    for agent in ["@clerk/backend@3.25.0", "@clerk/backend@3.26.1", "speakeasy-sdk/python 7.0.0", "curl/8", "wget/1"] {
        gateway.send(request("GET", "/v1/users", &format!("User-Agent: {agent}\r\n"), "")).await;
    }
    gateway.get("/v1/users").await;
    let world = gateway.stopped().await;
    let numbers = world.numbers();
    let callers: Vec<_> = numbers.requests.iter().map(|request| (&*request.caller, request.count)).collect();
    assert_eq!(callers, [("@clerk/backend", 2), ("other", 2), ("speakeasy-sdk/python", 1), ("unknown", 1)]);
    assert_eq!(world.gateway.stats().dropped_callers, 2);
}

#[tokio::test]
async fn debug_output_contains_no_key_or_token() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    gateway.send(bearing(&format!("Bearer {TOKEN}"), "")).await;
    let world = gateway.stopped().await;
    let shown = format!("{:?} {:?}", world.gateway, world.gateway.stats());
    assert!(!shown.contains("CANARY"));
}
