//! A stand-in for an OpenTelemetry collector.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use clerk_client::transport::{ReqwestOptions, ReqwestTransport};
use clerk_exporter::gateway::RequestTracer;
use clerk_exporter::otlp::{self, TraceSettings};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::within;

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepts,
    Refuses,
    /// Nothing at all.
    Hangs,
}

struct Shared {
    answer: Answer,
    bodies: Mutex<Vec<Bytes>>,
}

/// The collector, and what sends it the spans of a gateway.
pub(crate) struct Collector {
    shared: Arc<Shared>,
    pub(crate) tracer: RequestTracer,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

async fn receive(State(shared): State<Arc<Shared>>, body: Bytes) -> (StatusCode, Bytes) {
    match shared.answer {
        Answer::Accepts => {
            shared.bodies.lock().push(body);
            (StatusCode::OK, Bytes::new())
        }
        // Not one that the exporter would retry.
        Answer::Refuses => (StatusCode::BAD_REQUEST, Bytes::new()),
        Answer::Hangs => std::future::pending().await,
    }
}

impl Collector {
    pub(crate) async fn start(answer: Answer, settings: TraceSettings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { answer, bodies: Mutex::default() });
        let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self::at(&format!("http://{address}/v1/traces"), shared, settings, tasks)
    }

    /// A collector that does not exist.
    pub(crate) async fn dead(settings: TraceSettings) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let shared = Shared { answer: Answer::Hangs, bodies: Mutex::default() };
        Self::at(&format!("http://{address}/v1/traces"), Arc::new(shared), settings, JoinSet::new())
    }

    fn at(endpoint: &str, shared: Arc<Shared>, settings: TraceSettings, mut tasks: JoinSet<()>) -> Self {
        let transport = ReqwestTransport::new(ReqwestOptions::default()).unwrap();
        let (tracer, sender, stats) = otlp::tracer(settings, Some(endpoint.to_owned()), transport, "1").unwrap();
        let stop = CancellationToken::new();
        // Nothing is lost on a busy machine.
        tasks.spawn(sender.run(stop.clone(), Duration::from_secs(60)));
        Self { shared, tracer: RequestTracer::new(tracer, stats), stop, tasks }
    }

    /// Settings for tests: short delays.
    pub(crate) fn quick() -> TraceSettings {
        TraceSettings { delay: Duration::from_millis(1), ..TraceSettings::default() }
    }

    /// All requests, after what waits was sent.
    pub(crate) async fn finished(mut self) -> Vec<Bytes> {
        self.stop.cancel();
        // The stand-in's server runs on.
        within(self.tasks.join_next()).await;
        self.shared.bodies.lock().clone()
    }
}

pub(crate) fn received(bodies: &[Bytes]) -> Vec<Received> {
    let requests = bodies.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap());
    let spans = requests.flat_map(|request| request.resource_spans);
    let spans = spans.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
    spans.map(Received).collect()
}

/// A span as the collector got it.
#[derive(Debug, Clone)]
pub(crate) struct Received(pub(crate) Span);

impl Received {
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let found = self.0.attributes.iter().find(|attribute| attribute.key == key)?;
        Some(match found.value.clone()?.value? {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            Value::BoolValue(is) => is.to_string(),
            other => panic!("{other:?}"),
        })
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.0.status.as_ref().is_some_and(|status| status.code == 2)
    }
}
