//! The receiver beside the decoding that it cannot do without: a captured body, and a batch of 512 calls.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clerk_exporter::telemetry::decode::{BodyEncoding, BodyFormat};
use clerk_exporter::telemetry::{Telemetry, TelemetryInstance, TelemetryOptions};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Coverage, Environment, Settings, Source};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

const CAPTURED: &[u8] = include_bytes!("../tests/telemetry/data/undici-stable.pb");

/// Bodies of one measurement. Each has spans of its own, since repeated ones are duplicates, which cost less.
const BODIES: u64 = 64;

fn bodies(criterion: &mut Criterion) {
    for (name, spans) in [("27 captured calls", 27), ("512 calls", 512)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(BODIES * spans as u64));
        let list: Vec<_> = (0..BODIES).map(|number| body(number, spans)).collect();
        group.bench_function("prost alone", |bencher| {
            bencher.iter(|| {
                for body in &list {
                    let _ = black_box(ExportTraceServiceRequest::decode(&body[..]));
                }
            });
        });
        group.bench_function("receiver", |bencher| {
            bencher.iter_batched_ref(
                telemetry,
                |telemetry| {
                    for body in &list {
                        let _ = black_box(telemetry.take(body, BodyFormat::Protobuf, BodyEncoding::Identity));
                    }
                },
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

/// The captured spans, as often as needed, with ids and times of their own.
fn body(number: u64, spans: usize) -> Vec<u8> {
    let mut request = ExportTraceServiceRequest::decode(CAPTURED).unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let end = u64::try_from(now.as_nanos()).unwrap_or_default() - 5_000_000_000;
    for scope in request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
        scope.spans = scope.spans.iter().cycle().take(spans).cloned().collect();
        for (place, span) in (1_u64..).zip(&mut scope.spans) {
            span.trace_id = [(number + 1).to_be_bytes(), place.to_be_bytes()].concat();
            span.span_id = place.to_be_bytes().to_vec();
            span.end_time_unix_nano = end + place * 1_000_000;
            span.start_time_unix_nano = span.end_time_unix_nano - 50_000_000;
        }
    }
    request.encode_to_vec()
}

fn telemetry() -> Telemetry {
    let settings = Settings {
        name: "bench".into(),
        environment: Environment::Production,
        api_host: "api.clerk.com".into(),
        limit: None,
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(45),
        sources: vec![Source::Telemetry],
        coverage: Coverage::Sole,
        lateness: Some(Duration::from_secs(15)),
    };
    let ledger = Ledger::new([settings]).instance("bench").expect("it was put in");
    let instance =
        TelemetryInstance { name: "bench".into(), hosts: vec!["127.0.0.1:18432".into()], is_complete: true, ledger };
    let options = TelemetryOptions { instances: vec![instance], ..TelemetryOptions::default() };
    Telemetry::new(options, Arc::new(Clock::new())).expect("valid options")
}

criterion_group!(benches, bodies);
criterion_main!(benches);
