//! A telemetry source with a real ledger, and spans to send to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clerk_exporter::telemetry::decode::{BodyEncoding, BodyFormat, DecodeError};
use clerk_exporter::telemetry::{Rejected, SpanResult, Telemetry, TelemetryInstance, TelemetryOptions};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::snapshot::InstanceSnapshot;
use clerk_quota::{Coverage, Environment, Moment, Settings, Source};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

/// When requests arrive: after the captured spans, which were sent within a minute.
pub(crate) const NOW: Duration = Duration::from_secs(1_795_883_650);

/// The host of the captured spans.
pub(crate) const CAPTURED_HOST: &str = "127.0.0.1:18432";

/// A telemetry source and the ledgers that it reports to.
pub(crate) struct World {
    pub telemetry: Arc<Telemetry>,
    pub ledger: Ledger,
}

/// Options for these instances, each with its hosts. Caller names are service names.
pub(crate) fn options(ledger: &Ledger, instances: &[(&str, &[&str])]) -> TelemetryOptions {
    ledger.configure(instances.iter().map(|(name, _)| settings(name)));
    let instance = |(name, hosts): &(&str, &[&str])| TelemetryInstance {
        name: (*name).into(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        is_complete: false,
        ledger: ledger.instance(name).unwrap(),
    };
    TelemetryOptions { instances: instances.iter().map(instance).collect(), ..TelemetryOptions::default() }
}

fn settings(name: &str) -> Settings {
    Settings {
        name: name.into(),
        environment: Environment::Production,
        api_host: "api.clerk.com".into(),
        limit: None,
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(45),
        sources: vec![Source::Telemetry],
        coverage: Coverage::Sole,
        lateness: Some(Duration::from_secs(120)),
    }
}

impl World {
    /// One instance with this host.
    pub(crate) fn new(host: &str) -> Self {
        Self::with(&[("main", &[host])], |options| options)
    }

    pub(crate) fn with(
        instances: &[(&str, &[&str])],
        change: impl FnOnce(TelemetryOptions) -> TelemetryOptions,
    ) -> Self {
        let ledger = Ledger::default();
        let options = change(options(&ledger, instances));
        let clock = Arc::new(Clock::simulated(UNIX_EPOCH + NOW));
        Self { telemetry: Arc::new(Telemetry::new(options, clock).unwrap()), ledger }
    }

    /// Sends spans of a resource without attributes.
    pub(crate) fn send(&self, spans: Vec<Span>) -> Rejected {
        self.send_from(Vec::new(), spans)
    }

    pub(crate) fn send_from(&self, resource: Vec<KeyValue>, spans: Vec<Span>) -> Rejected {
        self.take(&request(resource, spans).encode_to_vec()).unwrap()
    }

    pub(crate) fn take(&self, body: &[u8]) -> Result<Rejected, DecodeError> {
        self.telemetry.take(body, BodyFormat::Protobuf, BodyEncoding::Identity)
    }

    /// The spans by result; those without a span are left out.
    pub(crate) fn results(&self) -> Vec<(&'static str, u64)> {
        let stats = self.telemetry.stats();
        let counts = SpanResult::ALL.into_iter().map(|result| (result.as_str(), stats.spans_with(result)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    pub(crate) fn snapshot(&self, instance: &str) -> InstanceSnapshot {
        let later = Moment::from_unix(NOW + Duration::from_secs(1000));
        self.ledger.instance(instance).unwrap().lock().snapshot(later)
    }

    /// What the ledger counted: `caller METHOD route result`.
    pub(crate) fn spent(&self) -> BTreeMap<String, u64> {
        self.spent_of("main")
    }

    pub(crate) fn spent_of(&self, instance: &str) -> BTreeMap<String, u64> {
        let mut spent = BTreeMap::new();
        for (key, count) in self.snapshot(instance).spent {
            assert_eq!(key.spender.source, Source::Telemetry);
            let caller = self.telemetry.caller_name(key.spender.caller);
            let (method, route) = (key.spender.method.as_str(), key.spender.route.template());
            *spent.entry(format!("{caller} {method} {route} {}", key.result.as_str())).or_default() += count;
        }
        spent
    }

    /// All requests that the ledger counted.
    pub(crate) fn counted(&self) -> u64 {
        self.spent().values().sum()
    }
}

pub(crate) fn request(resource: Vec<KeyValue>, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource = Some(Resource { attributes: resource, ..Resource::default() });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
    }
}

/// A client span with these attributes that ended 5 s ago, after 100 ms.
pub(crate) fn span(id: u64, attributes: Vec<KeyValue>) -> Span {
    let end = u64::try_from((NOW - Duration::from_secs(5)).as_nanos()).unwrap();
    Span {
        trace_id: [[7; 8], id.to_be_bytes()].concat(),
        span_id: id.to_be_bytes().to_vec(),
        kind: 3,
        start_time_unix_nano: end - 100_000_000,
        end_time_unix_nano: end,
        attributes,
        ..Span::default()
    }
}

/// A span of `GET /v1/users/count` on Clerk's host with status 200, in the stable conventions.
pub(crate) fn call(id: u64) -> Span {
    span(
        id,
        vec![
            text("http.request.method", "GET"),
            text("url.full", "https://api.clerk.com/v1/users/count"),
            number("http.response.status_code", 200),
        ],
    )
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(crate) fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

pub(crate) fn texts(key: &str, values: &[&str]) -> KeyValue {
    let value = |text: &&str| AnyValue { value: Some(Value::StringValue((*text).to_owned())) };
    attribute(key, Value::ArrayValue(ArrayValue { values: values.iter().map(value).collect() }))
}

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
