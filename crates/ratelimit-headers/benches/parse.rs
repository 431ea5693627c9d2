//! Cost of parsing the quota headers of a response, paid for every request through the gateway.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use ratelimit_headers::parse;

/// Headers of a typical Clerk response, plus `quota`.
fn response(quota: &[(&'static str, &'static str)]) -> HeaderMap {
    let ordinary = [
        ("date", "Wed, 25 Nov 2026 12:00:00 GMT"),
        ("content-type", "application/json"),
        ("cf-ray", "9a3f0c1d2e4b5a67-FRA"),
        ("cf-cache-status", "DYNAMIC"),
        ("x-clerk-trace-id", "0123456789abcdef0123456789abcdef"),
        ("vary", "Accept-Encoding, Origin"),
        ("server", "cloudflare"),
    ];
    ordinary
        .iter()
        .chain(quota)
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn quota_headers(criterion: &mut Criterion) {
    let now = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_608_000));
    let mut group = criterion.benchmark_group("quota_headers");
    for (name, quota) in [
        ("none", &[][..]),
        (
            "x_ratelimit_delta",
            &[("x-ratelimit-limit", "1000"), ("x-ratelimit-remaining", "998"), ("x-ratelimit-reset", "7")],
        ),
        ("ietf_structured", &[("ratelimit-policy", "\"default\";q=1000;w=10"), ("ratelimit", "\"default\";r=998;t=7")]),
    ] {
        let headers = response(quota);
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse(black_box(StatusCode::OK), black_box(&headers), black_box(now)));
        });
    }
    group.finish();
}

criterion_group!(benches, quota_headers);
criterion_main!(benches);
