//! The gateway's spans, switched on by OpenTelemetry's variables.

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::exporter::{Clerk, Exporter, Folder, Web, command, request, run};
use crate::gateway::write;

const TOKEN: &str = "web-token-CANARY-0123456789";
const PLAIN: &str = "  callers: [{ name: web, token_file: token, instance: prod }]\n";

type Received = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A stand-in for a collector.
async fn collector() -> (Web, Received) {
    let received = Received::default();
    let kept = Arc::clone(&received);
    let receive = async move |headers: HeaderMap, body: Bytes| kept.lock().push((headers, body));
    (Web::start(Router::new().route("/v1/traces", post(receive))).await, received)
}

#[tokio::test]
async fn variables_switch_spans_on() {
    let (clerk, folder, (collector, received)) = (Clerk::start().await, Folder::new(), collector().await);
    let config = write(&folder, &clerk.url(), PLAIN);
    let arguments = ["--config.file", config.to_str().unwrap()];
    let url = collector.url();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*url),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=identity"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=CANARYplace"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
    ];
    let exporter = Exporter::start(&arguments, &variables).await;
    let gateway = exporter.gateway().await;
    let page = request(gateway, "GET", "/v1/users/count", &format!("Authorization: Bearer {TOKEN}\r\n")).await;
    assert_eq!(page.status, 200);
    // The request and its attempt.
    exporter.until("clerk_gateway_spans_total", &[("result", "sent")], |spans| spans >= 2.0).await;
    exporter.until("clerk_gateway_spans_total", &[("result", "dropped")], |spans| spans == 0.0).await;
    let received = received.lock();
    assert!(received.iter().all(|(headers, _)| headers["x-team"] == "identity"), "{received:?}");
    assert!(received.iter().all(|(headers, _)| headers["content-type"] == "application/x-protobuf"), "{received:?}");
    let bodies: Vec<u8> = received.iter().flat_map(|(_, body)| body.clone()).collect();
    let text = String::from_utf8_lossy(&bodies);
    for part in ["clerk-exporter", "CANARYplace", "GET /v1/users/count", "clerk_exporter.own"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains(TOKEN));
}

#[tokio::test]
async fn without_variables_there_are_no_spans_and_no_metric() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let exporter = Exporter::with_config(&write(&folder, &clerk.url(), PLAIN), &[]).await;
    assert!(!exporter.get("/metrics").await.text().contains("clerk_gateway_spans_total{"));
}

#[tokio::test]
async fn unusable_variables_end_the_start_with_a_way_out() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let config = write(&folder, &clerk.url(), PLAIN);
    for (variable, value, way_out) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "write http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/does/not/exist", "/does/not/exist"),
    ] {
        let mut started = command(&["--config.file", config.to_str().unwrap(), "--web.listen-address=127.0.0.1:0"]);
        started.env("OTEL_TRACES_EXPORTER", "otlp").env(variable, value);
        let ended = run(started).await;
        assert_ne!(ended.status, Some(0), "{variable}");
        assert!(ended.stderr.contains(way_out), "{variable}: {}", ended.stderr);
    }
}
