//! What the gateway tells a collector about its requests.

use std::time::Duration;

use clerk_client::limiter::LimiterOptions;
use clerk_exporter::gateway::{InstancePolicies, Mode, RoutePolicies};
use clerk_exporter::otlp::{OWN_MARK, SpanCounts, TraceSettings};
use clerk_quota::Limit;
use clerk_test_support::KEY;
use futures_util::future::join_all;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::collector::{Answer, Collector, Received};
use crate::support::{OK, Running, Setup, Stub, TOKEN, request, within};

const USER: &str = "user_2NNEqL2nrIRdJ194ndJqAHwEfxC";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The context of an application's span.
fn traceparent(trace: &str, flags: &str) -> String {
    format!("traceparent: 00-{trace}-{PARENT}-{flags}\r\n")
}

fn of_kind(spans: &[Received], kind: SpanKind) -> Vec<&Received> {
    spans.iter().filter(|span| span.0.kind == kind as i32).collect()
}

fn only(spans: &[Received], kind: SpanKind) -> &Received {
    let found = of_kind(spans, kind);
    assert_eq!(found.len(), 1, "{spans:#?}");
    found[0]
}

async fn gateway(collector: &Collector, stub: &Stub, policies: RoutePolicies) -> Running {
    let plan = InstancePolicies { policies, ..InstancePolicies::default() };
    Running::with(stub.address, Setup { plan, tracer: Some(collector.tracer.clone()), ..Setup::default() }).await
}

#[tokio::test]
async fn request_and_attempt_are_below_the_span_of_the_application() {
    let collector = Collector::start(Answer::Accepts, Collector::quick()).await;
    let answer = "HTTP/1.1 200 OK\r\nx-clerk-trace-id: 5f0dcd1e0cd44a2a\r\nContent-Length: 2\r\n\r\n{}";
    let stub = Stub::answering(answer).await;
    let gateway = gateway(&collector, &stub, RoutePolicies::default()).await;
    let path = format!("/v1/users/{USER}?email=alice@example.com");
    gateway.send(request("GET", &path, &format!("{}tracestate: a=b\r\n", traceparent(TRACE, "01")), "")).await;
    assert!(!stub.request().head.to_lowercase().contains("trace"), "{}", stub.request().head);
    gateway.stopped().await;
    let bodies = collector.finished().await;
    let spans = crate::collector::received(&bodies);
    let (server, client) = (only(&spans, SpanKind::Server), only(&spans, SpanKind::Client));
    assert_eq!(spans.len(), 2);
    assert_eq!((hex(&server.0.trace_id), hex(&server.0.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!((&client.0.trace_id, &client.0.parent_span_id), (&server.0.trace_id, &server.0.span_id));
    assert_eq!(server.0.name, "GET /v1/users/{user_id}");
    assert_eq!(client.0.name, "GET /v1/users/{user_id}");
    for (span, key, expected) in [
        (server, OWN_MARK, "true"),
        (server, "http.request.method", "GET"),
        (server, "http.route", "/v1/users/{user_id}"),
        (server, "http.response.status_code", "200"),
        (server, "clerk_exporter.instance", "test"),
        (server, "clerk_exporter.decision", "forwarded"),
        (client, OWN_MARK, "true"),
        (client, "url.template", "/v1/users/{user_id}"),
        (client, "http.response.status_code", "200"),
        (client, "server.address", "127.0.0.1"),
        (client, "server.port", &stub.address.port().to_string()),
        (client, "clerk.trace_id", "5f0dcd1e0cd44a2a"),
    ] {
        assert_eq!(span.text(key).as_deref(), Some(expected), "{key}");
    }
    assert!(!server.has_failed() && !client.has_failed());
    assert!(server.0.start_time_unix_nano <= client.0.start_time_unix_nano);
    assert!(client.0.end_time_unix_nano <= server.0.end_time_unix_nano);
    let sent: Vec<u8> = bodies.concat();
    let sent = String::from_utf8_lossy(&sent);
    for personal in [USER, "alice", KEY, TOKEN] {
        assert!(!sent.contains(personal), "{personal}");
    }
}

#[tokio::test]
async fn sampling_is_that_of_the_parent() {
    let collector = Collector::start(Answer::Accepts, Collector::quick()).await;
    let stub = Stub::answering(OK).await;
    let gateway = gateway(&collector, &stub, RoutePolicies::default()).await;
    gateway.send(request("GET", "/v1/users", &traceparent(TRACE, "00"), "")).await;
    for without in ["", "traceparent: 00-0-0-01\r\n", "traceparent: x\r\n"] {
        gateway.send(request("GET", "/v1/jwks", without, "")).await;
    }
    gateway.stopped().await;
    let spans = crate::collector::received(&collector.finished().await);
    let servers = of_kind(&spans, SpanKind::Server);
    assert_eq!(servers.len(), 3, "{spans:#?}");
    assert!(servers.iter().all(|span| span.0.name == "GET /v1/jwks" && span.0.parent_span_id.is_empty()));
    assert_eq!(of_kind(&spans, SpanKind::Client).len(), 3);
}

#[tokio::test]
async fn wait_for_the_limit_is_a_span_before_its_attempt() {
    let collector = Collector::start(Answer::Accepts, Collector::quick()).await;
    let stub = Stub::answering(OK).await;
    let policies = RoutePolicies { pace: Mode::On, ..RoutePolicies::default() };
    let plan = InstancePolicies { policies, ..InstancePolicies::default() };
    let limit = Limit { requests: 1, window: Duration::from_millis(200) };
    let pace = Some(LimiterOptions::default().limit(Some(limit)));
    let setup = Setup { plan, pace, tracer: Some(collector.tracer.clone()), ..Setup::default() };
    let gateway = Running::with(stub.address, setup).await;
    for _ in 0..2 {
        gateway.send(request("GET", "/v1/users", &traceparent(TRACE, "01"), "")).await;
    }
    gateway.stopped().await;
    let spans = crate::collector::received(&collector.finished().await);
    let queued: Vec<_> = spans.iter().filter(|span| span.0.name == "queue").collect();
    assert_eq!(queued.len(), 1, "{spans:#?}");
    let queued = queued[0];
    let clients = of_kind(&spans, SpanKind::Client);
    let after = clients.iter().find(|span| span.0.parent_span_id == queued.0.parent_span_id).unwrap();
    assert!(queued.0.start_time_unix_nano < queued.0.end_time_unix_nano);
    assert!(queued.0.end_time_unix_nano <= after.0.start_time_unix_nano);
    assert_eq!(queued.text(OWN_MARK).as_deref(), Some("true"));
}

#[tokio::test]
async fn cache_hit_has_a_lookup_and_no_attempt() {
    let collector = Collector::start(Answer::Accepts, Collector::quick()).await;
    let body = r#"{"id":"user_2NNEqL2nrIRdJ194ndJqAHwEfxC"}"#;
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    let stub = Stub::answering(format!("{head}{body}")).await;
    let policies = RoutePolicies { cache: Mode::On, ..RoutePolicies::default() };
    let gateway = gateway(&collector, &stub, policies).await;
    for trace in [TRACE, "1af7651916cd43dd8448eb211c80319c"] {
        gateway.send(request("GET", &format!("/v1/users/{USER}"), &traceparent(trace, "01"), "")).await;
    }
    gateway.stopped().await;
    let spans = crate::collector::received(&collector.finished().await);
    let results: Vec<_> = spans.iter().filter_map(|span| span.text("clerk_exporter.cache.result")).collect();
    assert_eq!(results, ["fetched", "memory"]);
    assert_eq!(of_kind(&spans, SpanKind::Client).len(), 1);
    let second = of_kind(&spans, SpanKind::Server)[1];
    assert_eq!(second.text("clerk_exporter.decision").as_deref(), Some("cache_hit"));
}

#[tokio::test]
async fn request_of_a_batch_is_linked_to_all_its_lookups() {
    let collector = Collector::start(Answer::Accepts, Collector::quick()).await;
    let stub =
        Stub::answering("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]").await;
    let policies = RoutePolicies { batch: Mode::On, ..RoutePolicies::default() };
    let gateway = gateway(&collector, &stub, policies).await;
    let traces: Vec<_> = (1..=3).map(|number| format!("{number}af7651916cd43dd8448eb211c80319c")).collect();
    let lookups = traces.iter().enumerate().map(|(number, trace)| {
        let path = format!("/v1/users/user_2NNEqL2nrIRdJ194ndJqAHwEfx{number}");
        gateway.send(request("GET", &path, &traceparent(trace, "01"), ""))
    });
    join_all(lookups).await;
    gateway.stopped().await;
    let spans = crate::collector::received(&collector.finished().await);
    let lists: Vec<_> = spans.iter().filter(|span| span.0.name == "GET /v1/users").collect();
    // All share one list, unless the machine was busy for longer than the window; each lookup is in exactly one.
    let mut linked: Vec<_> = lists.iter().flat_map(|list| &list.0.links).map(|link| hex(&link.trace_id)).collect();
    let alone = lists.is_empty();
    linked.sort();
    linked.dedup();
    assert!(alone || linked.len() >= 2, "{spans:#?}");
    assert!(linked.iter().all(|trace| traces.contains(trace)));
    for list in lists {
        assert_eq!(list.0.trace_id, list.0.links[0].trace_id, "a child of the first");
    }
}

#[tokio::test]
async fn failures_are_errors_of_the_attempt_and_of_the_request() {
    let collector = Collector::start(Answer::Accepts, Collector::quick()).await;
    let stub = Stub::answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    let first = gateway(&collector, &stub, RoutePolicies::default()).await;
    first.get("/v1/users").await;
    first.stopped().await;
    let nothing = Stub::with(|_, stream, _| async move { drop(stream) }).await;
    let second = gateway(&collector, &nothing, RoutePolicies::default()).await;
    second.send(request("POST", "/v1/users", "Content-Length: 0\r\n", "")).await;
    second.stopped().await;
    let spans = crate::collector::received(&collector.finished().await);
    let kinds = |kind| of_kind(&spans, kind).iter().map(|span| span.text("error.type").unwrap()).collect::<Vec<_>>();
    assert_eq!(kinds(SpanKind::Server), ["503", "502"]);
    assert_eq!(kinds(SpanKind::Client)[0], "503");
    assert!(spans.iter().all(Received::has_failed), "{spans:#?}");
}

/// What the collector does must not matter to requests.
#[tokio::test]
async fn collector_that_is_slow_dead_or_refuses_stops_no_request() {
    // A request to the collector takes longer than the test.
    let timeout = Duration::from_secs(600);
    let settings = TraceSettings { max_waiting: 8, max_batch: 4, timeout, ..Collector::quick() };
    for kind in [Some(Answer::Hangs), Some(Answer::Refuses), None] {
        let collector = match kind {
            Some(answer) => Collector::start(answer, settings.clone()).await,
            None => Collector::dead(settings.clone()).await,
        };
        let stub = Stub::answering(OK).await;
        let gateway = gateway(&collector, &stub, RoutePolicies::default()).await;
        for _ in 0..50 {
            assert_eq!(gateway.get("/v1/users").await.status(), 200);
        }
        let counts = || gateway.world.gateway.stats().spans.unwrap();
        let all = |SpanCounts { sent, failed, dropped }: SpanCounts| (sent, failed + dropped);
        match kind {
            // Two spans for each request: those that are in no request to the collector and do not fit are dropped.
            Some(Answer::Hangs) => assert!(counts().dropped >= 100 - 8 - 4 - 1, "{:?}", counts()),
            _ => {
                within(async {
                    while all(counts()).1 < 80 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                })
                .await;
            }
        }
        assert_eq!(counts().sent, 0);
    }
}
