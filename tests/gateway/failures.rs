//! Responses if Clerk is unreachable, breaks off or does not respond; in simulated time where that matters.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::transport::{ErrorKind, RequestBody, ResponseFuture, Transport, TransportError};
use clerk_exporter::gateway::Decision;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::time::Instant;

use crate::support::{Running, Setup, Stub, World, read_message, request};
use clerk_test_support::KEY;

/// Fails in one way, or never responds.
#[derive(Debug)]
struct Broken(Option<ErrorKind>);

impl Transport for Broken {
    fn send(&self, _: Request<RequestBody>) -> ResponseFuture {
        let kind = self.0;
        Box::pin(async move {
            match kind {
                Some(kind) => Err(TransportError::new(kind, "10.0.0.1: secret detail".to_owned())),
                None => std::future::pending().await,
            }
        })
    }
}

fn get(path: &str) -> Request<Empty<bytes::Bytes>> {
    let authorization = format!("Bearer {KEY}");
    Request::get(path).header("host", "gateway").header("authorization", authorization).body(Empty::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_failure_has_the_format_of_clerk_errors() {
    for (kind, status, code) in [
        (Some(ErrorKind::Dns), 502, "gateway_upstream_unreachable"),
        (Some(ErrorKind::Connect), 502, "gateway_upstream_unreachable"),
        (Some(ErrorKind::Tls), 502, "gateway_upstream_unreachable"),
        (Some(ErrorKind::Broken), 502, "gateway_upstream_broken"),
        (Some(ErrorKind::Decode), 502, "gateway_upstream_broken"),
        (Some(ErrorKind::Other), 502, "gateway_upstream_broken"),
        (Some(ErrorKind::Timeout), 504, "gateway_upstream_timeout"),
        (None, 504, "gateway_upstream_timeout"),
    ] {
        let upstream: Arc<dyn Transport> = Arc::new(Broken(kind));
        let world = World::new(&upstream, "http://clerk.test", Setup::default());
        let from = Instant::now();
        let answer = world.gateway.handle(get("/v1/users")).await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["x-clerk-exporter-decision"], "failed");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["errors"][0]["code"], code, "{kind:?}");
        assert!(!String::from_utf8_lossy(&body).contains("10.0.0.1"), "internal details are not shown");
        let waited = if kind.is_none() { Duration::from_secs(10) } else { Duration::ZERO };
        assert_eq!(from.elapsed().as_secs(), waited.as_secs());
        assert_eq!(world.numbers().decisions[Decision::Failed.index()], 1);
    }
}

#[tokio::test]
async fn port_without_listener_is_unreachable() {
    let stub = Stub::answering("").await;
    let address = stub.address;
    drop(stub);
    let gateway = Running::with(address, Setup::default()).await;
    let answer = gateway.get("/v1/users").await;
    assert_eq!((answer.status(), &*answer.code()), (502, "gateway_upstream_unreachable"));
}

#[tokio::test]
async fn non_http_response_is_upstream_broken() {
    for answer in ["garbage\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n"] {
        let stub = Stub::with(move |_, mut stream, _| async move {
            read_message(&mut stream, true).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
        })
        .await;
        let gateway = Running::with(stub.address, Setup::default()).await;
        let got = gateway.get("/v1/users").await;
        assert_eq!((got.status(), &*got.code()), (502, "gateway_upstream_broken"), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_response_body_ends() {
    #[derive(Debug)]
    struct Silent;
    impl Transport for Silent {
        fn send(&self, _: Request<RequestBody>) -> ResponseFuture {
            let body = http_body_util::StreamBody::new(futures_util::stream::pending()).boxed_unsync();
            Box::pin(async move { Ok(http::Response::new(body)) })
        }
    }
    let upstream: Arc<dyn Transport> = Arc::new(Silent);
    let world = World::new(&upstream, "http://clerk.test", Setup::default());
    let answer = world.gateway.handle(get("/v1/users")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let from = Instant::now();
    assert!(answer.into_body().collect().await.is_err());
    assert_eq!(from.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn unfinished_error_body_is_forwarded_as_received() {
    #[derive(Debug)]
    struct Slow;
    impl Transport for Slow {
        fn send(&self, _: Request<RequestBody>) -> ResponseFuture {
            let first = futures_util::stream::iter([Ok(http_body::Frame::data(bytes::Bytes::from_static(b"begin")))]);
            let stream = futures_util::StreamExt::chain(first, futures_util::stream::pending());
            let body = http_body_util::StreamBody::new(stream).boxed_unsync();
            Box::pin(async move {
                let mut answer = http::Response::new(body);
                *answer.status_mut() = StatusCode::NOT_FOUND;
                Ok(answer)
            })
        }
    }
    let upstream: Arc<dyn Transport> = Arc::new(Slow);
    let world = World::new(&upstream, "http://clerk.test", Setup::default());
    let answer = world.gateway.handle(get("/v1/users")).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begin");
}

#[tokio::test]
async fn missing_request_body_is_reported() {
    let stub = Stub::answering("").await;
    let setup = Setup { body_read_timeout: Duration::from_millis(100), ..Setup::default() };
    let gateway = Running::with(stub.address, setup).await;
    let answer = gateway.send(request("POST", "/v1/users", "Content-Length: 10\r\n", "half")).await;
    assert_eq!((answer.status(), &*answer.code()), (408, "gateway_request_incomplete"));
    assert_eq!(answer.value("connection"), Some("close"));
    assert_eq!(stub.requests(), [], "an incomplete request is not received");
}

#[tokio::test(start_paused = true)]
async fn long_upload_with_progress_does_not_time_out() {
    /// Reads the whole request before it responds.
    #[derive(Debug)]
    struct Patient;
    impl Transport for Patient {
        fn send(&self, request: Request<RequestBody>) -> ResponseFuture {
            Box::pin(async move {
                let length = request.into_body().collect().await.unwrap().to_bytes().len();
                let body = http_body_util::Full::new(bytes::Bytes::from(length.to_string()));
                Ok(http::Response::new(body.map_err(|never| match never {}).boxed_unsync()))
            })
        }
    }
    let upstream: Arc<dyn Transport> = Arc::new(Patient);
    let world = World::new(&upstream, "http://clerk.test", Setup::default());
    // The client is slower than Clerk's timeout, and the upload takes longer than any deadline.
    let part = |number: usize| async move {
        tokio::time::sleep(Duration::from_secs(25)).await;
        (number < 20)
            .then(|| (Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::from_static(b"part"))), number + 1))
    };
    let body = http_body_util::StreamBody::new(Box::pin(futures_util::stream::unfold(0, part)));
    let answer = world.gateway.handle(get("/v1/users").map(|_| body)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "80");
    // An upload without progress ends.
    let body = || {
        http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<http_body::Frame<bytes::Bytes>, std::io::Error>,
        >())
    };
    assert_eq!(world.gateway.handle(get("/v1/users").map(|_| body())).await.status(), StatusCode::GATEWAY_TIMEOUT);

    /// Reads nothing and sends nothing.
    #[derive(Debug)]
    struct Deaf;
    impl Transport for Deaf {
        fn send(&self, request: Request<RequestBody>) -> ResponseFuture {
            Box::pin(async move {
                let _request = request;
                std::future::pending().await
            })
        }
    }
    let upstream: Arc<dyn Transport> = Arc::new(Deaf);
    let world = World::new(&upstream, "http://clerk.test", Setup::default());
    let from = Instant::now();
    assert_eq!(world.gateway.handle(get("/v1/users").map(|_| body())).await.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(from.elapsed().as_secs(), 10, "the attempt timeout does not apply to uploads");
}

#[tokio::test]
async fn malformed_request_body_is_reported() {
    let stub = Stub::answering("").await;
    let gateway = Running::with(stub.address, Setup::default()).await;
    for body in ["zz\r\nab\r\n0\r\n\r\n", "2\r\nabX\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "0x2\r\nab\r\n0\r\n\r\n"]
    {
        let answer = gateway.send(request("POST", "/v1/users", "Transfer-Encoding: chunked\r\n", body)).await;
        assert_eq!((answer.status(), &*answer.code()), (400, "gateway_request_incomplete"), "{body:?}");
        assert_eq!(answer.value("connection"), Some("close"));
    }
    assert_eq!(stub.requests(), [], "an incomplete request is not received");
}
