//! Any bytes as a trace request: either a clear error, or exactly one result for each span, the same for both formats.

#![no_main]

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clerk_exporter::telemetry::decode::{BodyEncoding, BodyFormat, DecodeLimits, decode};
use clerk_exporter::telemetry::{
    ReceiverLimits, SpanResult, Telemetry, TelemetryInstance, TelemetryOptions, TelemetryStats,
};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Settings, Source};
use libfuzzer_sys::fuzz_target;
use prost::Message;

/// When bodies arrive: after the captured spans, which are the seeds.
const NOW: Duration = Duration::from_secs(1_795_883_650);

/// Small enough that short bodies reach them, and that no body takes long.
const LIMITS: DecodeLimits = DecodeLimits {
    max_body_bytes: 60 << 10,
    max_inflated_bytes: 256 << 10,
    max_decoded_bytes: 512 << 10,
    max_depth: 32,
};

// The first byte chooses format and compression, the rest is the body: `0` protobuf, `1` JSON, `2` and `3` compressed.
fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let format = if choice & 1 == 0 { BodyFormat::Protobuf } else { BodyFormat::Json };
    let encoding = if choice & 2 == 0 { BodyEncoding::Identity } else { BodyEncoding::Gzip };
    let decoded = decode(body, format, encoding, &LIMITS);
    let telemetry = telemetry();
    let taken = telemetry.take(body, format, encoding);
    let stats = telemetry.stats();
    let request = match decoded {
        Ok(request) => request,
        Err(error) => {
            assert_eq!(taken, Err(error));
            assert_eq!(stats.spans.iter().sum::<u64>(), 0);
            return;
        }
    };
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    assert_eq!(stats.spans.iter().sum::<u64>(), scopes.map(|scope| scope.spans.len() as u64).sum::<u64>());
    assert_eq!(taken, telemetry.take(body, format, encoding), "malformed spans stay malformed");
    // What was decoded, encoded again as the other senders do it.
    let other = self::telemetry();
    let encoded = request.encode_to_vec();
    if let Ok(rejected) = other.take(&encoded, BodyFormat::Protobuf, BodyEncoding::Identity) {
        assert_eq!(taken, Ok(rejected));
        assert_eq!(without_time(&stats), without_time(&other.stats()));
    } else {
        assert!(encoded.len() > body.len(), "it exceeds no limit that the body did not");
    }
});

/// The spans by result, whether in time or not: the clock goes on in between.
fn without_time(stats: &TelemetryStats) -> Vec<u64> {
    let timed = [SpanResult::Accepted, SpanResult::Late, SpanResult::Future];
    let (timed, rest): (Vec<_>, Vec<_>) = SpanResult::ALL.into_iter().partition(|result| timed.contains(result));
    let in_any = timed.into_iter().map(|result| stats.spans_with(result)).sum();
    rest.into_iter().map(|result| stats.spans_with(result)).chain([in_any]).collect()
}

fn telemetry() -> Telemetry {
    let settings = Settings {
        sources: vec![Source::Telemetry],
        lateness: Some(Duration::from_secs(120)),
        ..clerk_test_support::settings("prod")
    };
    let ledger = Ledger::new([settings]).instance("prod").expect("it was just made");
    let hosts = vec!["127.0.0.1:18432".into(), "api.clerk.com".into()];
    let instances = vec![TelemetryInstance { name: "prod".into(), hosts, is_complete: false, ledger }];
    let limits = ReceiverLimits { decode: LIMITS, max_remembered: 256, ..ReceiverLimits::default() };
    let options = TelemetryOptions { instances, limits, ..TelemetryOptions::default() };
    Telemetry::new(options, Arc::new(Clock::simulated(UNIX_EPOCH + NOW))).expect("valid options")
}
