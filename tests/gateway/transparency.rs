//! Requests and responses that pass unchanged.

use crate::support::{OK, Running, Setup, Stub, request};
use clerk_test_support::KEY;

#[tokio::test]
async fn path_and_query_arrive_byte_for_byte() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let targets = [
        "/v1/users",
        "/v1/users/a%2Fb",
        "/v1/users/a%2fb",
        "//v1//users//",
        "/v1/./users/../users/%2e%2E/x",
        "/v1/users;a=b;c",
        "/v1/users?a=1&a=2&b&=c&&d=%E9+x%20y",
        "/v1/users?user_id=b&user_id=a?x#".trim_end_matches('#'),
        "/v1/users?a=%00%zz%",
        "/v1/users/~a!$&'()*+,:@",
        "/v1/users?q=[a]|{b}",
        "//evil.example/v1/users",
        "/http://evil.example/",
        "/@evil.example:80/",
        "/",
        "/?",
        "/not/of/the/api?x=1",
        "/v1/users/\u{e4}",
    ];
    for target in targets {
        assert_eq!(gateway.get(target).await.status(), 200, "{target}");
    }
    let lines: Vec<String> = stub.requests().iter().map(|request| request.first_line().to_owned()).collect();
    let expected: Vec<String> = targets.iter().map(|target| format!("GET {target} HTTP/1.1")).collect();
    assert_eq!(lines, expected);
    for request in stub.requests() {
        assert_eq!(request.value("host"), Some(&*stub.address.to_string()), "{}", request.first_line());
    }
}

#[tokio::test]
async fn every_method_is_forwarded() {
    let stub = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let gateway = Running::before(&stub).await;
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "get"];
    for method in methods {
        assert_eq!(gateway.send(request(method, "/v1/users", "", "")).await.status(), 200, "{method}");
    }
    let seen: Vec<String> =
        stub.requests().iter().map(|request| request.first_line().split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(seen, methods);
}

#[tokio::test]
async fn request_fields_keep_spelling_repetition_and_values() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let fields = "X-MiXeD-CaSe: One\r\nx-mixed-case: two,  three\r\nX-Empty:\r\nUser-Agent: @clerk/backend@3.25.0\r\n\
                  Clerk-API-Version: 2025-11-10\r\nX-Latin: caf\u{e9}\r\nAccept-Encoding: gzip, br\r\n";
    gateway.send(request("GET", "/v1/users", fields, "")).await;
    let request = stub.request();
    assert_eq!(request.fields("x-mixed-case"), ["X-MiXeD-CaSe: One", "x-mixed-case: two,  three"]);
    let mut found: Vec<&str> = request.head.lines().skip(1).collect();
    let host = format!("Host: {}", stub.address);
    let authorization = format!("Authorization: Bearer {KEY}");
    let mut expected: Vec<&str> = fields.lines().chain([&*host, &*authorization]).map(str::trim_end).collect();
    found.sort_unstable();
    expected.sort_unstable();
    let found: Vec<&str> = found.into_iter().map(str::trim_end).collect();
    assert_eq!(found, expected, "nothing is added and nothing is lost");
}

#[tokio::test]
async fn traces_reach_clerk_only_if_asked_and_baggage_never() {
    let context = "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nTraceState: a=b\r\n\
                   tracestate: c=d\r\nX-B3-TraceId: 1\r\n";
    let baggage = "Baggage: user=alice\r\nOT-Baggage-User: alice\r\nbaggage: tenant=7\r\n";
    for forwards_trace_context in [false, true] {
        let stub = Stub::answering(OK).await;
        let setup = Setup { forwards_trace_context, ..Setup::default() };
        let gateway = Running::with(stub.address, setup).await;
        gateway.send(request("GET", "/v1/users", &format!("{context}{baggage}X-Request-Id: 5\r\n"), "")).await;
        let sent = stub.request();
        assert_eq!(sent.value("x-request-id"), Some("5"));
        assert!(!sent.head.to_lowercase().contains("baggage"), "{}", sent.head);
        let expected: Vec<_> = context.lines().filter(|_| forwards_trace_context).collect();
        let found = ["traceparent", "tracestate", "x-b3-traceid"].map(|name| sent.fields(name)).concat();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn response_fields_keep_spelling_repetition_and_order() {
    let fields = "Date: Wed, 25 Nov 2026 12:00:30 GMT\r\nContent-Type: application/json\r\nSet-Cookie: a=1; Path=/\r\n\
                  Set-Cookie: b=2\r\nX-RateLimit-Remaining: 7\r\nCF-Ray: x\r\nContent-Length: 2\r\nX-CFWorker: 1\r\n\
                  Server: cloudflare";
    let stub = Stub::answering(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{{}}")).await;
    let answer = Running::before(&stub).await.get("/v1/users").await;
    let mut found: Vec<&str> = answer.head.lines().skip(1).collect();
    assert_eq!(answer.fields("set-cookie"), ["Set-Cookie: a=1; Path=/", "Set-Cookie: b=2"]);
    let mut expected: Vec<&str> = fields.lines().collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "nothing is added and nothing is lost");
}

#[tokio::test]
async fn hop_by_hop_fields_are_removed_in_both_directions() {
    let stub = Stub::answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
         Proxy-Authenticate: Basic\r\nX-End: 2\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let gateway = Running::before(&stub).await;
    let fields = "Connection: X-Foo, close\r\nconnection: x-bar\r\nX-Foo: 1\r\nX-Bar: 2\r\nX-Baz: 3\r\nKeep-Alive: 5\r\n\
                  Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nUpgrade: websocket\r\nTE: gzip\r\n";
    let answer = gateway.send(request("GET", "/v1/users", fields, "")).await;
    let sent = stub.request();
    for name in
        ["connection", "x-foo", "x-bar", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "te"]
    {
        assert_eq!(sent.fields(name), [""; 0], "{name}");
    }
    assert_eq!(sent.value("x-baz"), Some("3"));
    for name in ["x-hop", "keep-alive", "upgrade", "proxy-authenticate"] {
        assert_eq!(answer.fields(name), [""; 0], "{name}");
    }
    assert_eq!(answer.value("x-end"), Some("2"));
    // The client's `Connection: close` applies to its own connection; the upstream connection is reused.
    for _ in 0..9 {
        gateway.get("/v1/users").await;
    }
    assert!(*stub.connections.lock() < 10, "{} connections", *stub.connections.lock());
}

#[tokio::test]
async fn redirect_is_forwarded_and_not_followed() {
    let elsewhere = Stub::answering(OK).await;
    let location = format!("http://{}/v1/users", elsewhere.address);
    for status in [301, 302, 303, 307, 308] {
        let answer = format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let stub = Stub::answering(answer).await;
        let answer = Running::before(&stub).await.get("/v1/users").await;
        assert_eq!((answer.status(), answer.value("location")), (status, Some(&*location)));
    }
    assert_eq!(elsewhere.requests(), []);
}

#[tokio::test]
async fn bodies_are_neither_decoded_nor_cut_whatever_the_status() {
    let large = "x".repeat(3_000_000);
    let binary = "\u{1f}\u{0}\u{1}";
    for (status, encoding, body) in [
        (200, "gzip", binary),
        (404, "br", binary),
        (403, "gzip", binary),
        (200, "identity", &*large),
        (422, "identity", &*large),
        (500, "identity", "<html>"),
        (429, "identity", ""),
    ] {
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Encoding: {encoding}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let stub = Stub::answering(format!("{head}{body}")).await;
        let answer = Running::before(&stub).await.get("/v1/users").await;
        assert_eq!((answer.status(), answer.value("content-encoding")), (status, Some(encoding)));
        assert!(answer.body == body.as_bytes(), "{status} {encoding}");
    }
}

#[tokio::test]
async fn error_without_content_encoding_is_forwarded_completely() {
    for length in [0, 1, 65_535, 65_536, 65_537, 2_000_000] {
        let body = "y".repeat(length);
        let stub = Stub::answering(format!("HTTP/1.1 422 X\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        let answer = Running::before(&stub).await.get("/v1/users").await;
        assert_eq!(answer.status(), 422);
        assert_eq!(answer.value("content-length"), Some(&*length.to_string()));
        assert!(answer.body == body.as_bytes(), "{length}");
    }
}

#[tokio::test]
async fn forwarded_messages_contain_no_trace_of_the_gateway() {
    let stub = Stub::answering(OK).await;
    let answer = Running::before(&stub).await.get("/v1/users").await;
    let heads = format!("{}\n{}", answer.head, stub.request().head).to_ascii_lowercase();
    for name in ["via:", "forwarded", "x-clerk-exporter", "x-real-ip"] {
        assert!(!heads.contains(name), "{name}: {heads}");
    }
}
