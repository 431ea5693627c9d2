//! Rejected requests: those that would make the gateway an open proxy, or smuggle a second request.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{OK, Running, Stub, read_message, request, within};
use clerk_test_support::KEY;

/// Sends raw bytes; returns the response status, whether the connection was closed afterwards, and the number of
/// requests that reached Clerk.
async fn sent(raw: &str) -> (Option<u16>, bool, usize) {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    stream.write_all(raw.as_bytes()).await.unwrap();
    let answer = within(read_message(&mut stream, true)).await;
    let status = answer.map(|answer| answer.status());
    // A rejected request is the last one of its connection, so that bytes after it are not parsed as another.
    let mut rest = Vec::new();
    let closed = status.is_none_or(|status| status >= 400) && {
        let _ = within(stream.read_to_end(&mut rest)).await;
        rest.is_empty()
    };
    let requests = stub.requests().len();
    (status, closed, requests)
}

#[tokio::test]
async fn request_with_two_framings_is_rejected() {
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "content-length: 0\r\ntransfer-encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\nCONTENT-LENGTH: 0\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: -1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length : 4\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        let (status, closed, requests) = sent(&request("POST", "/v1/users", fields, smuggled)).await;
        assert_eq!((status, closed, requests), (Some(400), true, 0), "{fields:?}");
    }
}

#[tokio::test]
async fn target_with_fragment_is_rejected() {
    for target in ["/v1/users?a=1#b&c=2", "/v1/users#", "/#/v1/users"] {
        let raw = format!("GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n");
        assert_eq!(sent(&raw).await, (Some(400), true, 0), "{target}");
    }
}

#[tokio::test]
async fn transfer_encoding_other_than_chunked_is_rejected() {
    for value in [
        "gzip, chunked",
        "chunked, gzip",
        "identity",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "chunke\u{301}d",
        "",
    ] {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        let (status, closed, requests) = sent(&request("POST", "/v1/users", &fields, "0\r\n\r\n")).await;
        assert!(matches!(status, Some(400 | 501)), "{value:?}: {status:?}");
        assert_eq!((closed, requests), (true, 0), "{value:?}");
    }
}

#[tokio::test]
async fn chunked_with_white_space_is_regenerated() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    for value in [" chunked ", "\tchunked", "Chunked\t"] {
        let fields = format!("Transfer-Encoding:{value}\r\n");
        let answer = gateway.send(request("POST", "/v1/users", &fields, "3\r\nabc\r\n0\r\n\r\n")).await;
        assert_eq!(answer.status(), 200, "{value:?}");
    }
    for request in stub.requests() {
        assert_eq!((request.value("transfer-encoding"), &*request.body), (Some("chunked"), &b"abc"[..]));
    }
}

#[tokio::test]
async fn malformed_chunks_end_the_request() {
    for body in ["zz\r\nabc\r\n0\r\n\r\n", "-1\r\n", "3\r\nabcd\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"] {
        let raw = request("POST", "/v1/users", "Transfer-Encoding: chunked\r\n", body);
        let (status, _, requests) = sent(&raw).await;
        assert!(status.is_none_or(|status| status >= 400), "{body:?}: {status:?}");
        assert_eq!(requests, 0, "{body:?}");
    }
}

#[tokio::test]
async fn gateway_is_not_an_open_proxy() {
    let key = format!("Authorization: Bearer {KEY}\r\n");
    for (line, expected) in [
        ("GET http://evil.example/v1/users HTTP/1.1", 400),
        ("GET http://gateway/v1/users HTTP/1.1", 400),
        ("GET HTTPS://evil.example/v1/users HTTP/1.1", 400),
        ("GET ftp://evil.example/v1/users HTTP/1.1", 400),
        ("CONNECT evil.example:443 HTTP/1.1", 405),
        ("CONNECT /v1/users HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 400),
        ("GET evil.example:80 HTTP/1.1", 400),
        ("GET v1/users HTTP/1.1", 400),
        ("GET @evil/v1/users HTTP/1.1", 400),
        ("GET ?x HTTP/1.1", 400),
    ] {
        let (status, closed, requests) = sent(&format!("{line}\r\nHost: gateway\r\n{key}\r\n")).await;
        // hyper rejects invalid request targets itself.
        assert!(status == Some(expected) || status == Some(400), "{line}: {status:?}");
        assert_eq!((closed, requests), (true, 0), "{line}");
    }
}

#[tokio::test]
async fn exactly_one_host_is_required() {
    for (fields, expected) in [("", 400), ("Host: a\r\nHost: b\r\n", 400), ("Host: a\r\n", 200)] {
        let (status, _, requests) = sent(&format!("GET /v1/users HTTP/1.1\r\n{fields}\r\n")).await;
        assert_eq!((status, requests), (Some(expected), usize::from(expected == 200)), "{fields:?}");
    }
}

#[tokio::test]
async fn fields_cannot_be_injected() {
    for fields in [
        "X-A: b\rX-C: d\r\n",
        "X-A: b\0\r\n",
        "X-A: b\r\n folded: c\r\n",
        "X-A: b\r\n\tfolded: c\r\n",
        "X A: b\r\n",
        "X-A\r\n",
        ": b\r\n",
        "X(A): b\r\n",
        " X-A: b\r\n",
        "X-A: \u{7f}\r\n",
    ] {
        let (status, closed, requests) = sent(&request("GET", "/v1/users", fields, "")).await;
        assert_eq!((status, closed, requests), (Some(400), true, 0), "{fields:?}");
    }
}

#[tokio::test]
async fn request_line_cannot_be_injected() {
    for line in [
        "GET /v1/users HTTP/1.1 HTTP/1.1",
        "GET /v1/users\tHTTP/1.1",
        "GET /v1/us ers HTTP/1.1",
        "GET /v1/users\0 HTTP/1.1",
        "G\u{e4}T /v1/users HTTP/1.1",
        "GET /v1/users HTTP/2.0",
        "GET /v1/users HTTP/1.2",
        "GET /v1/users",
    ] {
        let (status, closed, requests) = sent(&format!("{line}\r\nHost: gateway\r\n\r\n")).await;
        assert!(status.is_none_or(|status| status >= 400), "{line:?}: {status:?}");
        assert_eq!((closed, requests), (true, 0), "{line:?}");
    }
}

#[tokio::test]
async fn rejection_has_the_format_of_clerk_errors() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let answer = gateway.send("GET http://evil/ HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(answer.value("content-type"), Some("application/json"));
    assert_eq!(answer.value("x-clerk-exporter-decision"), Some("rejected"));
    assert_eq!(answer.code(), "gateway_request_invalid");
    let error = &answer.json()["errors"][0];
    assert!(error["message"].is_string() && error["long_message"].is_string());
    assert!(answer.json()["clerk_trace_id"].is_string());
}
