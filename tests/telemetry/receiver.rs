//! The receiver as an HTTP server: answers as OTLP/HTTP defines them.

use std::convert::Infallible;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, Response, StatusCode};
use clerk_exporter::telemetry::Refusal;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tower::ServiceExt;

use super::captured::BODIES;
use super::support::{CAPTURED_HOST, World, call, request};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

struct Answer {
    status: StatusCode,
    media_type: String,
    retry_after: Option<String>,
    body: Bytes,
}

async fn answer(world: &World, request: Request<Body>) -> Answer {
    let response: Response<Body> = world.telemetry.router().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    Answer {
        status: head.status,
        media_type: header("content-type").unwrap_or_default(),
        retry_after: header("retry-after"),
        body: to_bytes(body, 1 << 20).await.unwrap(),
    }
}

fn post(media_type: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post("/v1/traces").header("content-type", media_type).body(body.into()).unwrap()
}

#[tokio::test]
async fn success_is_an_empty_message_in_the_same_format() {
    let world = World::new(CAPTURED_HOST);
    for (body, format, encoding) in BODIES {
        let mut request = post(format.media_type(), body);
        if encoding == clerk_exporter::telemetry::decode::BodyEncoding::Gzip {
            request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        }
        let answer = answer(&world, request).await;
        assert_eq!((answer.status, &*answer.media_type), (StatusCode::OK, format.media_type()));
        let empty: &[u8] = if answer.media_type == JSON { b"{}" } else { b"" };
        assert_eq!(answer.body, empty);
    }
    assert_eq!(world.results(), [("accepted", 86), ("other_kind", 1)]);
}

#[tokio::test]
async fn rejected_spans_are_a_partial_success() {
    let world = World::new("api.clerk.com");
    let mut broken = call(1);
    broken.span_id = Vec::new();
    let body = request(Vec::new(), vec![broken.clone(), call(2)]).encode_to_vec();
    let answered = answer(&world, post(PROTOBUF, body)).await;
    assert_eq!(answered.status, StatusCode::OK);
    let partial = ExportTraceServiceResponse::decode(answered.body).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
    assert_eq!(partial.error_message, "1 spans of calls to Clerk have no valid ids or times");
    let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":3,"attributes":[
        {"key":"http.method","value":{"stringValue":"GET"}},
        {"key":"http.url","value":{"stringValue":"https://api.clerk.com/v1/users"}}]}]}]}]}"#;
    let answered = answer(&world, post("application/json; charset=utf-8", json)).await;
    let body: serde_json::Value = serde_json::from_slice(&answered.body).unwrap();
    assert_eq!(body["partialSuccess"]["rejectedSpans"], "1", "64-bit numbers are texts");
    assert_eq!(world.results(), [("accepted", 1), ("malformed", 2)]);
}

#[tokio::test]
async fn errors_are_a_status_in_the_same_format() {
    let world = World::new("api.clerk.com");
    for (media_type, body, status, code) in [
        (PROTOBUF, vec![0xff; 10], 400, 3),
        (JSON, b"{".to_vec(), 400, 3),
        (PROTOBUF, vec![0; (4 << 20) + 1], 413, 8),
        (JSON, vec![b' '; (4 << 20) + 1], 413, 8),
    ] {
        let answered = answer(&world, post(media_type, body)).await;
        assert_eq!((answered.status.as_u16(), &*answered.media_type), (status, media_type));
        let (found, message) = if media_type == JSON {
            let body: serde_json::Value = serde_json::from_slice(&answered.body).unwrap();
            (body["code"].as_i64().unwrap(), body["message"].as_str().unwrap().to_owned())
        } else {
            let body = RpcStatus::decode(answered.body).unwrap();
            (body.code.into(), body.message)
        };
        assert_eq!(found, code);
        assert!(message.starts_with("the body is "), "{message}");
    }
    let answered = answer(&world, post("text/plain", "x")).await;
    assert_eq!((answered.status.as_u16(), &*answered.media_type), (415, JSON));
    let mut brotli = post(PROTOBUF, "x");
    brotli.headers_mut().insert("content-encoding", "br".parse().unwrap());
    let answered = answer(&world, brotli).await;
    assert_eq!((answered.status.as_u16(), &*answered.media_type), (415, PROTOBUF));
    let refused = world.telemetry.stats().refused;
    assert_eq!(
        Refusal::ALL.map(|refusal| (refusal.as_str(), refused[refusal.index()])),
        [("invalid", 2), ("too_large", 2), ("unsupported", 2), ("overloaded", 0)]
    );
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let world = World::new("api.clerk.com");
    for (method, path, status) in [
        (Method::GET, "/v1/traces", 405),
        (Method::PUT, "/v1/traces", 405),
        (Method::POST, "/v1/metrics", 404),
        (Method::POST, "/v1/traces/", 404),
        (Method::GET, "/", 404),
    ] {
        let request = Request::builder().method(method.clone()).uri(path).body(Body::empty()).unwrap();
        assert_eq!(answer(&world, request).await.status.as_u16(), status, "{method} {path}");
    }
}

#[tokio::test]
async fn body_in_pieces_is_taken() {
    let world = World::new(CAPTURED_HOST);
    let pieces = BODIES[0].0.chunks(999).map(Ok::<_, Infallible>);
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let answered = answer(&world, post(PROTOBUF, body)).await;
    assert_eq!(answered.status, StatusCode::OK);
    assert_eq!(world.results(), [("accepted", 27)]);
    let endless = Body::from_stream(futures_util::stream::repeat(Ok::<_, Infallible>(&[0_u8; 1000][..])));
    assert_eq!(answer(&world, post(PROTOBUF, endless)).await.status.as_u16(), 413);
    let broken = futures_util::stream::iter([Ok(&b"x"[..]), Err(std::io::Error::other("gone"))]);
    assert_eq!(answer(&world, post(PROTOBUF, Body::from_stream(broken))).await.status.as_u16(), 400);
}

#[tokio::test]
async fn large_body_is_decoded_off_the_runtime() {
    let world = World::new("api.clerk.com");
    let body = request(Vec::new(), (1..=2000).map(call).collect()).encode_to_vec();
    assert!(body.len() > 100_000);
    assert_eq!(answer(&world, post(PROTOBUF, body)).await.status, StatusCode::OK);
    assert_eq!(world.results(), [("accepted", 2000)]);
}

#[tokio::test]
async fn too_many_waiting_bytes_are_refused_with_retry_after() {
    let world = World::with(&[("main", &[CAPTURED_HOST])], |mut options| {
        options.limits.max_waiting_bytes = 20_000;
        options
    });
    // Its second piece never comes.
    let (sender, pieces) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(1);
    let pieces = futures_util::stream::unfold(pieces, async |mut pieces| Some((pieces.recv().await?, pieces)));
    let router = world.telemetry.router();
    let slow = tokio::task::JoinSet::from_iter([router.oneshot(post(PROTOBUF, Body::from_stream(pieces)))]);
    sender.send(Ok(Bytes::from_static(&[0; 10_000]))).await.unwrap();
    // It was taken out of the channel when there is room again.
    drop(sender.reserve().await.unwrap());
    tokio::task::yield_now().await;

    for (body, format, _) in [BODIES[0], BODIES[1]] {
        let answered = answer(&world, post(format.media_type(), body)).await;
        assert_eq!((answered.status.as_u16(), answered.retry_after.as_deref()), (503, Some("1")));
        assert_eq!(answered.media_type, format.media_type());
    }
    assert_eq!(world.telemetry.stats().refused[Refusal::Overloaded.index()], 2);
    drop((sender, slow));
    let small = answer(&world, post(PROTOBUF, BODIES[3].0)).await;
    assert_eq!(small.status, StatusCode::OK);
}
