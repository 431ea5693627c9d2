//! Any bytes as a trace request: either a clear error, or exactly one result for each span.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use clerk_exporter::telemetry::decode::{BodyEncoding, BodyFormat, DecodeLimits, decode};
use clerk_exporter::telemetry::{Telemetry, TelemetryInstance, TelemetryOptions};
use clerk_quota::Settings;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use libfuzzer_sys::fuzz_target;

// The first byte chooses format and compression, the rest is the body.
fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let format = if choice & 1 == 0 { BodyFormat::Protobuf } else { BodyFormat::Json };
    let encoding = if choice & 2 == 0 { BodyEncoding::Identity } else { BodyEncoding::Gzip };
    let telemetry = telemetry();
    let decoded = decode(body, format, encoding, &DecodeLimits::default());
    let spans = decoded.map(|request| {
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        scopes.map(|scope| scope.spans.len() as u64).sum::<u64>()
    });
    let taken = telemetry.take(body, format, encoding);
    assert_eq!(taken.is_ok(), spans.is_ok());
    assert_eq!(telemetry.stats().spans.iter().sum::<u64>(), spans.unwrap_or_default());
    assert!(taken.is_err() || taken == telemetry.take(body, format, encoding), "malformed spans stay malformed");
});

fn telemetry() -> Telemetry {
    let settings = Settings { lateness: Some(Duration::from_secs(15)), ..clerk_test_support::settings("prod") };
    let ledger = Ledger::new([settings]).instance("prod").expect("it was just made");
    let hosts = vec!["127.0.0.1:18432".into(), "api.clerk.com".into()];
    let instances = vec![TelemetryInstance { name: "prod".into(), hosts, is_complete: false, ledger }];
    let options = TelemetryOptions { instances, ..TelemetryOptions::default() };
    Telemetry::new(options, Arc::new(Clock::new())).expect("valid options")
}
