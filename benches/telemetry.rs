//! The receiver beside the decoding that it cannot do without: a captured body, and a batch of 512 calls. Before that, its
//! memory during 18 minutes of 1000 calls a second, in simulated time.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clerk_exporter::telemetry::decode::{BodyEncoding, BodyFormat};
use clerk_exporter::telemetry::{SpanResult, Telemetry, TelemetryInstance, TelemetryOptions};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Coverage, Environment, Settings, Source};
use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Value, json};

const CAPTURED: &[u8] = include_bytes!("../tests/telemetry/data/undici-stable.pb");
const CAPTURED_JSON: &[u8] = include_bytes!("../tests/telemetry/data/undici-stable.json");

/// Bodies of one measurement. Each has spans of its own, since repeated ones are duplicates, which cost less.
const BODIES: u64 = 64;

/// When bodies arrive. Their spans ended just before, so that they wait for their window.
const NOW: Duration = Duration::from_secs(1_795_883_650);

/// Time between the bodies of 27 calls when memory is measured.
const INTERVAL: Duration = Duration::from_millis(27);

fn bodies(criterion: &mut Criterion) {
    for (name, spans) in [("27 captured calls", 27), ("512 calls", 512)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(BODIES * spans as u64));
        let list: Vec<_> = (0..BODIES).map(|number| protobuf(number, NOW, spans)).collect();
        group.bench_function("prost alone", |bencher| {
            bencher.iter(|| list.iter().for_each(|body| drop(black_box(ExportTraceServiceRequest::decode(&body[..])))));
        });
        group.bench_function("receiver, protobuf", |bencher| {
            bencher.iter_batched_ref(
                || telemetry(NOW),
                |telemetry| list.iter().for_each(|body| take(telemetry, body, BodyFormat::Protobuf)),
                BatchSize::PerIteration,
            );
        });
        let list: Vec<_> = (0..BODIES).map(|number| json(number, spans)).collect();
        group.bench_function("serde_json alone", |bencher| {
            bencher.iter(|| list.iter().for_each(|body| drop(black_box(serde_json::from_slice::<Value>(body)))));
        });
        group.bench_function("receiver, JSON", |bencher| {
            bencher.iter_batched_ref(
                || telemetry(NOW),
                |telemetry| list.iter().for_each(|body| take(telemetry, body, BodyFormat::Json)),
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

fn take(telemetry: &Telemetry, body: &[u8], format: BodyFormat) {
    let rejected = telemetry.take(body, format, BodyEncoding::Identity).expect("a valid body");
    assert_eq!(black_box(rejected).spans(), 0);
}

/// Ids and times of a span: 5 s before `now`, for 50 ms.
fn ids(number: u64, place: u64, now: Duration) -> (Vec<u8>, Vec<u8>, u64) {
    let end = u64::try_from(now.as_nanos()).unwrap_or_default() - 5_000_000_000 + place * 1_000_000;
    ([(number + 1).to_be_bytes(), place.to_be_bytes()].concat(), place.to_be_bytes().to_vec(), end)
}

/// The captured spans, as often as needed, with ids and times of their own.
fn protobuf(number: u64, now: Duration, spans: usize) -> Vec<u8> {
    let mut request = ExportTraceServiceRequest::decode(CAPTURED).unwrap_or_default();
    for scope in request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
        scope.spans = scope.spans.iter().cycle().take(spans).cloned().collect();
        for (place, span) in (1_u64..).zip(&mut scope.spans) {
            (span.trace_id, span.span_id, span.end_time_unix_nano) = ids(number, place, now);
            span.start_time_unix_nano = span.end_time_unix_nano - 50_000_000;
        }
    }
    request.encode_to_vec()
}

/// The same in JSON.
fn json(number: u64, spans: usize) -> Vec<u8> {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut request: Value = serde_json::from_slice(CAPTURED_JSON).unwrap_or_default();
    if let Some(list) = request.pointer_mut("/resourceSpans/0/scopeSpans/0/spans").and_then(Value::as_array_mut) {
        *list = list.iter().cycle().take(spans).cloned().collect();
        for (place, span) in (1_u64..).zip(list) {
            let (trace, id, end) = ids(number, place, NOW);
            span["traceId"] = json!(hex(trace));
            span["spanId"] = json!(hex(id));
            span["startTimeUnixNano"] = json!((end - 50_000_000).to_string());
            span["endTimeUnixNano"] = json!(end.to_string());
        }
    }
    request.to_string().into_bytes()
}

fn telemetry(now: Duration) -> Telemetry {
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
    Telemetry::new(options, Arc::new(Clock::simulated(UNIX_EPOCH + now))).expect("valid options")
}

/// Sends 18 minutes of calls, and prints the resident memory every 2 minutes.
#[expect(clippy::print_stdout, reason = "the result")]
async fn memory() {
    let (telemetry, mut now) = (telemetry(NOW), NOW);
    println!("memory at 1000 calls/s:   start {:.1} MiB", resident_mib());
    for number in 0..1_080_000 / 27 {
        tokio::time::advance(INTERVAL).await;
        now += INTERVAL;
        take(&telemetry, &protobuf(number, now, 27), BodyFormat::Protobuf);
        if (number + 1) % (120_000 / 27) == 0 {
            let accepted = telemetry.stats().spans_with(SpanResult::Accepted);
            println!(
                "{:>4} min  {accepted:>8} accepted  {:.1} MiB",
                (now - NOW).as_secs().div_ceil(60),
                resident_mib()
            );
        }
    }
}

/// The resident memory; 0 where the system does not report it as Linux does.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    kib.map_or(0.0, |kib: f64| kib / 1024.0)
}

criterion_group!(benches, bodies);

fn main() {
    // Only where time is measured, not where `cargo test` tries the benches; and first, in memory that nothing else used.
    if std::env::args().any(|argument| argument == "--bench") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(memory());
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
