//! Requests with an ambiguous end, as used for request smuggling.

use axum::Router;
use axum::body::Bytes;
use axum::routing::any;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frames::*;
use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn router() -> Router {
    Router::new().fallback(any(async |body: Bytes| format!("<{}>", body.len())))
}

/// Returns the responses to these requests on one connection, up to its end.
async fn responses(server: &TestServer, requests: &str) -> String {
    let mut stream = server.connect().await;
    stream.write_all(requests.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn ambiguous_request_is_rejected_at_any_position() {
    let server = TestServer::plain(router(), patient()).await;
    let post = |headers: &str| format!("POST / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let sized = post("Content-Length: 3\r\n") + "abc";
    let chunked = post("Transfer-Encoding: chunked\r\n") + "3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n";
    let both = |headers: &str| post(headers) + "0\r\n\r\n";
    let bad = [
        both("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        both("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        both("content-length:5\r\ntransfer-encoding:\tchunked\r\n"),
        both("Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 0\r\n"),
        "GET /#x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        both("Content-Length: 3\r\nContent-Length: 4\r\n"),
        both("Content-Length: 3, 3\r\n"),
        both("Content-Length: +3\r\n"),
        both("Transfer-Encoding: chunked, gzip\r\n"),
        both("Transfer-Encoding: identity\r\n"),
        both("Transfer-Encoding : chunked\r\n"),
        both("X: y\r\n  folded\r\n"),
        post("Transfer-Encoding: chunked\r\n").replace("1.1", "1.0"),
    ];
    for before in ["", GET, &sized, &chunked, &format!("{GET}{sized}{chunked}{GET}")] {
        for bad in &bad {
            let answered = responses(&server, &format!("{before}{bad}{GET}")).await;
            let expected = before.matches("HTTP/1.1").count();
            assert_eq!(answered.matches("HTTP/1.1 200").count(), expected, "{before:?} {bad:?}: {answered}");
            assert!(answered.contains(" 400 "), "{before:?} {bad:?}: {answered}");
        }
    }
}

#[tokio::test]
async fn request_after_a_pause_is_inspected() {
    let server = TestServer::plain(ok_router(), patient()).await;
    let mut stream = server.connect().await;
    keep_alive_request(&mut stream).await;
    keep_alive_request(&mut stream).await;
    let bad = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    stream.write_all(bad.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(status(&answer) == 400 && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_all_get_responses() {
    let server = TestServer::plain(router(), patient()).await;
    let sized = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\nGET /#  HTTP/1.1\r\n\r\n";
    let same = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx";
    let answered = responses(&server, &format!("{GET}{sized}{GET}{same}{GET}").repeat(20)).await;
    assert_eq!(answered.matches("HTTP/1.1 200").count(), 100, "{answered}");
    assert_eq!(answered.matches("<20>").count(), 20);
}

#[tokio::test]
async fn absolute_target_of_this_server_becomes_a_path() {
    let router = Router::new().fallback(any(async |uri: http::Uri| uri.to_string()));
    let server = TestServer::plain(router, patient()).await;
    let port = server.address.port();
    for (target, host, seen) in [
        (format!("http://127.0.0.1:{port}/a?b"), format!("127.0.0.1:{port}"), "/a?b".to_owned()),
        (format!("HTTP://Localhost:{port}/a"), format!("localhost:{port}"), "/a".to_owned()),
        (format!("https://gateway.example:{port}"), format!("gateway.example:{port}"), "/".to_owned()),
        ("http://api.example/a".to_owned(), "api.example".to_owned(), "http://api.example/a".to_owned()),
        (format!("http://a:{port}/a"), format!("b:{port}"), format!("http://a:{port}/a")),
        (format!("http://u@a:{port}/a"), format!("u@a:{port}"), format!("http://u@a:{port}/a")),
        (format!("ftp://a:{port}/a"), format!("a:{port}"), format!("ftp://a:{port}/a")),
    ] {
        let mut stream = server.connect().await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.ends_with(&format!("\r\n\r\n{seen}")), "{target}: {answer}");
    }
}

#[tokio::test]
async fn invalid_http2_request_is_rejected_on_its_stream() {
    let server = TestServer::plain(router(), patient()).await;
    let literal = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
    };
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("content-length", "3"),
        ("X-Upper", "y"),
    ] {
        let mut client = FrameClient::start(server.connect().await, 1_000).await;
        let block = [head(0x83, "/"), literal(name, value)].concat();
        client.send(HEADERS, END_HEADERS, 1, &block).await;
        client.send(DATA, END_STREAM, 1, b"ab").await;
        // As an error of the stream or connection, or as a response that does not come from the handler.
        let answered = within(client.body(1)).await;
        assert!(answered.as_deref() != Some(b"<2>"), "{name}: {value}");
    }
    let mut other = FrameClient::start(server.connect().await, 1_000).await;
    other.get(1, "/").await;
    assert_eq!(within(other.body(1)).await.unwrap(), b"<0>");
    let mut byte = [0];
    let mut stream = server.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    within(stream.read_exact(&mut byte)).await.unwrap();
}
