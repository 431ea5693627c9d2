//! A gateway between Clerk's SDKs and Clerk, all of which send spans to one collector.

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;

use crate::exporter::{Exporter, Folder, KEY, Web, eventually};
use crate::senders::{Sender, World};
use crate::{Clerk, printed};

/// The attribute of the gateway's spans.
const OWN: &str = "clerk_exporter.own";

fn spans(body: &Bytes) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn is_own(span: &Span) -> bool {
    span.attributes.iter().any(|attribute| attribute.key == OWN)
}

#[tokio::test]
async fn spans_of_sdks_are_the_parents_of_the_gateways() {
    for sender in [Sender::UndiciProtobuf, Sender::Httpx] {
        let (clerk, folder) = (Clerk::with_errors().await, Folder::new());
        let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
        let kept = Arc::clone(&bodies);
        let receive = async move |body: Bytes| kept.lock().push(body);
        let collector = Web::start(Router::new().route("/v1/traces", post(receive))).await;
        let config = format!(
            "probe: {{ when: never }}\ninstances: [{{ name: prod, secret_key: {KEY}, api_url: '{}' }}]\n\
             gateway: {{ listen_address: '127.0.0.1:0', policies: {{ retry: off }} }}\n",
            clerk.url()
        );
        let path = folder.write("config.yml", &config);
        let url = collector.url();
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*url), ("OTEL_BSP_SCHEDULE_DELAY", "1")];
        let exporter = Exporter::start(&["--config.file", path.to_str().unwrap()], &variables).await;
        let gateway = format!("http://{}", exporter.gateway().await);
        printed(sender.command_to(&gateway, &url, &["calls"])).await;
        let requests = clerk.simulator.truth().requests.total;
        eventually("the spans of all requests", async || {
            let found = bodies.lock().iter().flat_map(spans).filter(|span| is_own(span) && span.kind == 2).count();
            (found as u64 == requests).then_some(())
        })
        .await;

        let bodies = bodies.lock().clone();
        let (own, of_application): (Vec<_>, Vec<_>) = bodies.iter().flat_map(spans).partition(is_own);
        let servers: Vec<_> = own.iter().filter(|span| span.kind == 2).collect();
        for span in servers {
            let is_parent = |parent: &&Span| parent.span_id == span.parent_span_id && parent.trace_id == span.trace_id;
            assert!(of_application.iter().any(|parent| is_parent(&parent)), "{sender:?}: {span:?}");
        }

        // The telemetry source skips them: the gateway has counted these requests.
        let world = World::start(100).await;
        for body in bodies.iter().filter(|body| spans(body).iter().any(is_own)) {
            let request = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = request.post(format!("{}/v1/traces", world.receiver.url())).body(body.clone());
            assert_eq!(request.header("content-type", "application/x-protobuf").send().await.unwrap().status(), 200);
        }
        assert!(!world.results().iter().any(|(result, _)| *result == "accepted"), "{:?}", world.results());
    }
}
