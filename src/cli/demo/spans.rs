//! The traces of a demo application: its calls to Clerk as spans, sent as an OpenTelemetry SDK sends them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use parking_lot::Mutex;
use prost::Message;
use tokio::time::{MissedTickBehavior, interval};

use clerk_client::transport::{RequestBody, ReqwestTransport, Transport};
use clerk_quota::clock::Clock;

/// How often SDKs send spans by default.
const SEND_EVERY: Duration = Duration::from_secs(5);

/// The spans of one application that are not sent yet.
#[derive(Debug, Clone)]
pub(super) struct SpanBuffer {
    service: &'static str,
    environment: &'static str,
    spans: Arc<Mutex<Vec<Span>>>,
    clock: Arc<Clock>,
}

impl SpanBuffer {
    pub(super) fn new(service: &'static str, environment: &'static str) -> Self {
        Self { service, environment, spans: Arc::default(), clock: Arc::new(Clock::new()) }
    }

    /// The time at which a call starts.
    pub(super) fn now(&self) -> SystemTime {
        self.clock.wall()
    }

    /// Records a call that ended now.
    pub(super) fn record(&self, method: &Method, url: &str, started: SystemTime, status: Option<u16>) {
        let mut attributes = vec![
            attribute("http.request.method", Value::StringValue(method.to_string())),
            attribute("url.full", Value::StringValue(url.to_owned())),
        ];
        let status = status.map(|status| Value::IntValue(i64::from(status)));
        attributes.extend(status.map(|status| attribute("http.response.status_code", status)));
        let span = Span {
            trace_id: fastrand::u128(1..).to_be_bytes().to_vec(),
            span_id: fastrand::u64(1..).to_be_bytes().to_vec(),
            kind: SpanKind::Client.into(),
            start_time_unix_nano: nanos(started),
            end_time_unix_nano: nanos(self.now()),
            attributes,
            ..Span::default()
        };
        self.spans.lock().push(span);
    }

    /// Sends the spans to a receiver at this URL, again and again.
    pub(super) async fn send_to(self, receiver: String, transport: Arc<ReqwestTransport>) {
        let mut ticks = interval(SEND_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let spans = std::mem::take(&mut *self.spans.lock());
            if spans.is_empty() {
                continue;
            }
            let request = Request::post(format!("{receiver}/v1/traces"))
                .header(CONTENT_TYPE, "application/x-protobuf")
                .body(RequestBody::from(Bytes::from(self.message(spans).encode_to_vec())));
            // An application does not wait for its telemetry, either.
            if let Ok(request) = request {
                let _ = transport.send(request).await;
            }
        }
    }

    fn message(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let text = |text: &str| Value::StringValue(text.to_owned());
        let attributes = vec![
            attribute("service.name", text(self.service)),
            attribute("deployment.environment.name", text(self.environment)),
        ];
        let resource = Resource { attributes, ..Resource::default() };
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
        ExportTraceServiceRequest { resource_spans }
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanos(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
