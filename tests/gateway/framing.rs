//! Message framing: responses without a body, interim responses, trailers.

use clerk_exporter::gateway::InstancePolicies;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::reads::{COALESCE, OFF};
use crate::support::{OK, Running, Setup, Stub, read_head, read_message, request, within};

#[tokio::test]
async fn response_to_head_keeps_its_length_without_a_body() {
    let stub = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: b\r\n\r\n").await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    for _ in 0..10 {
        stream.write_all(request("HEAD", "/v1/users", "", "").as_bytes()).await.unwrap();
        let answer = within(read_message(&mut stream, false)).await.unwrap();
        assert_eq!((answer.status(), answer.value("content-length")), (200, Some("1234")));
    }
    assert!(*stub.connections.lock() < 10, "the connection to Clerk was reused");
}

#[tokio::test]
async fn bodiless_responses_keep_connections_usable() {
    for head in ["204 No Content\r\n", "304 Not Modified\r\nContent-Length: 77\r\nETag: \"x\"\r\n", "204 X\r\n"] {
        let stub = Stub::answering(format!("HTTP/1.1 {head}\r\n")).await;
        let gateway = Running::before(&stub).await;
        let mut stream = gateway.connect().await;
        for _ in 0..10 {
            stream.write_all(request("GET", "/v1/users", "", "").as_bytes()).await.unwrap();
            let answer = within(read_message(&mut stream, true)).await.unwrap();
            assert!(head.starts_with(&answer.status().to_string()));
            assert_eq!(answer.body, b"");
        }
        assert!(*stub.connections.lock() < 10);
    }
}

#[tokio::test]
async fn body_after_204_is_dropped_with_its_connection() {
    let stub = Stub::answering("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad").await;
    let gateway = Running::before(&stub).await;
    for _ in 0..3 {
        let answer = gateway.get("/v1/users").await;
        assert_eq!((answer.status(), &*answer.body), (204, &b""[..]));
    }
}

#[tokio::test]
async fn interim_responses_are_not_final() {
    for interim in ["100 Continue\r\n", "102 Processing\r\n", "103 Early Hints\r\nLink: </x>\r\n"] {
        let stub = Stub::answering(format!("HTTP/1.1 {interim}\r\n{OK}")).await;
        let answer = Running::before(&stub).await.get("/v1/users").await;
        assert_eq!((answer.status(), &*answer.body), (200, &b"{}"[..]), "{interim:?}");
    }
}

#[tokio::test]
async fn protocol_upgrades_are_not_forwarded() {
    let stub = Stub::answering("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n").await;
    let gateway = Running::before(&stub).await;
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";
    let answer = gateway.send(request("GET", "/v1/users", fields, "")).await;
    assert_eq!((answer.status(), &*answer.code()), (502, "gateway_upstream_broken"));
    assert_eq!(stub.request().fields("upgrade"), [""; 0]);
}

#[tokio::test]
async fn expect_continue_gets_100_continue() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    let head = request("POST", "/v1/users", "Expect: 100-continue\r\nContent-Length: 5\r\n", "");
    stream.write_all(head.as_bytes()).await.unwrap();
    let interim = within(read_message(&mut stream, true)).await.unwrap();
    assert_eq!(interim.status(), 100);
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(within(read_message(&mut stream, true)).await.unwrap().status(), 200);
    let sent = stub.request();
    assert_eq!((&*sent.body, sent.fields("expect").len()), (&b"hello"[..], 0));
}

#[tokio::test]
async fn rejected_client_gets_no_100_continue() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let fields = "Expect: 100-continue\r\nContent-Length: 500\r\nAuthorization: Bearer another\r\n";
    let answer = gateway.send(request("POST", "/v1/users", fields, "")).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(stub.requests(), []);
}

#[tokio::test]
async fn request_bodies_of_every_framing_and_method_arrive() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        for (fields, body, arrives) in [
            ("", "", ""),
            ("Content-Length: 0\r\n", "", ""),
            ("Content-Length: 3\r\n", "abc", "abc"),
            ("Transfer-Encoding: chunked\r\n", "2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", "abc"),
            ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n", ""),
        ] {
            stub.requests.lock().clear();
            let answer = gateway.send(request(method, "/v1/users", fields, body)).await;
            assert_eq!(answer.status(), 200, "{method} {fields:?}");
            let request = stub.request();
            assert_eq!(request.body, arrives.as_bytes(), "{method} {fields:?}");
            let framings = request.fields("content-length").len() + request.fields("transfer-encoding").len();
            assert!(framings <= 1, "{}", request.head);
        }
    }
}

#[tokio::test]
async fn body_keeps_its_framing_if_connection_names_its_length() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let fields = format!("Connection: content-length, host\r\nContent-Length: {}\r\n", smuggled.len());
    assert_eq!(gateway.send(request("POST", "/v1/users", &fields, smuggled)).await.status(), 200);
    assert_eq!(stub.request().body, smuggled.as_bytes());
}

#[tokio::test]
async fn response_of_every_framing_arrives_unchanged() {
    for (fields, body, arrives) in [
        ("Content-Length: 3\r\n", "abc", "abc"),
        ("Content-Length: 0\r\n", "", ""),
        ("Transfer-Encoding: chunked\r\n", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "abc"),
        // RFC 9112, section 6.3: Transfer-Encoding overrides Content-Length.
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", "3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", "abc"),
    ] {
        let stub = Stub::answering(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")).await;
        let answer = Running::before(&stub).await.get("/v1/users").await;
        assert_eq!((answer.status(), &*answer.body), (200, arrives.as_bytes()), "{fields:?}");
        assert!(answer.fields("content-length").len() + answer.fields("transfer-encoding").len() == 1);
    }
}

#[tokio::test]
async fn content_length_is_single_and_absent_with_204() {
    for (head, expected) in [
        ("200 OK\r\nContent-Length: 2, 2\r\n\r\n{}", Some("2")),
        ("200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", Some("2")),
        ("200 OK\r\nContent-Length: 02\r\n\r\n{}", Some("02")),
        ("204 No Content\r\nContent-Length: 2\r\n\r\n", None),
    ] {
        let stub = Stub::answering(format!("HTTP/1.1 {head}")).await;
        let gateway = Running::before(&stub).await;
        for method in ["GET", "HEAD"] {
            if method == "GET" {
                let answer = gateway.get("/v1/users").await;
                assert_eq!(answer.body, if expected.is_some() { &b"{}"[..] } else { b"" }, "{head:?}");
            }
            let mut stream = gateway.connect().await;
            stream.write_all(request(method, "/v1/users", "", "").as_bytes()).await.unwrap();
            let answer = within(read_head(&mut stream)).await.unwrap();
            assert_eq!(answer.fields("content-length").len(), usize::from(expected.is_some()), "{method} {head:?}");
            assert_eq!(answer.value("content-length"), expected, "{method} {head:?}");
        }
    }
}

#[tokio::test]
async fn response_with_unknown_transfer_coding_is_not_forwarded() {
    for coding in ["gzip", "gzip, chunked", "xchunked", "chunked\r\nTransfer-Encoding: chunked"] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
        let stub = Stub::with(move |_, mut stream, _| {
            let answer = answer.clone();
            async move {
                read_message(&mut stream, true).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        for policies in [OFF, COALESCE] {
            let setup =
                Setup { plan: InstancePolicies { policies, ..InstancePolicies::default() }, ..Setup::default() };
            let answer = Running::with(stub.address, setup).await.get("/v1/users").await;
            assert_eq!((answer.status(), &*answer.code()), (502, "gateway_upstream_broken"), "{coding}");
        }
    }
}

#[tokio::test]
async fn close_delimited_response_arrives_whole() {
    let stub = Stub::with(|_, mut stream, requests| async move {
        let request = read_message(&mut stream, true).await;
        requests.lock().extend(request);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await.unwrap();
    })
    .await;
    let answer = Running::before(&stub).await.get("/v1/users").await;
    assert_eq!((answer.status(), &*answer.body), (200, &b"until the end"[..]));
}

#[tokio::test]
async fn http_1_0_client_gets_an_unchunked_response() {
    let stub = Stub::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    stream.write_all(b"GET /v1/users HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[tokio::test]
async fn trailers_go_through_in_both_directions() {
    let stub = Stub::answering(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    let gateway = Running::before(&stub).await;
    let fields = "TE: trailers\r\nConnection: TE\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n";
    let answer = gateway.send(request("POST", "/v1/users", fields, "1\r\nb\r\n0\r\nX-Check: 9\r\n\r\n")).await;
    assert_eq!((&*answer.body, &*answer.trailers.to_ascii_lowercase()), (&b"a"[..], "x-sum: 7"));
    let sent = stub.request();
    assert_eq!((sent.value("te"), &*sent.trailers.to_ascii_lowercase()), (Some("trailers"), "x-check: 9"));
}
