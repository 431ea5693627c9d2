//! Benchmarks of route matching and the ledger, which every request through the gateway pays for.

use std::hint::black_box;
use std::time::Duration;

use clerk_quota::{
    Bucket, Coverage, Environment, InstanceLedger, KeyVerdict, Limit, Moment, Observation, Quota, RouteId, Settings,
    Source, route,
};
use criterion::{Criterion, criterion_group, criterion_main};

fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for (name, method, path) in [
        ("literal", "GET", "/v1/users/count"),
        ("parameter", "GET", "/v1/users/user_2abcdefghijklmnopqrstuvwxyz"),
        ("deep", "PATCH", "/v1/organizations/org_2abcdefghijklmnopqrstuvwx/memberships/user_2abcdefghijkl/metadata"),
        ("encoded", "GET", "/v1/%75sers/../users/a%2Fb?limit=1"),
        ("unknown", "GET", "/wp-admin/setup.php"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| route::find(black_box(method), black_box(path.as_bytes())))
        });
    }
    group.finish();
}

fn ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    for (name, quota) in [("record with headers", Some((1000, 500))), ("record counted", None)] {
        let mut ledger = InstanceLedger::new(settings());
        let mut now = Moment::from_unix(Duration::from_secs(1_795_608_000));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                // A hundred requests per second, across windows.
                now = now.after(Duration::from_millis(10));
                ledger.record(black_box(&observation(now, quota)));
            });
        });
    }
    group.finish();
}

fn observation(at: Moment, quota: Option<(u64, u64)>) -> Observation {
    let into_window = Duration::from_nanos(u64::try_from(at.since_epoch().as_nanos() % 10_000_000_000).unwrap_or(0));
    let quota = quota.map_or_else(Quota::default, |(limit, remaining)| Quota {
        limit: Some(limit),
        remaining: Some(remaining),
        reset: Some(Duration::from_secs(10) - into_window),
        reset_resolution: Duration::from_secs(1),
        dialect: Some(clerk_quota::HeaderDialect::XRateLimit),
        ..Quota::default()
    });
    Observation {
        at,
        source: Source::Gateway,
        route: RouteId::OTHER,
        bucket: Bucket::Instance,
        entity: None,
        status: 200,
        usable: true,
        key: KeyVerdict::Valid,
        quota_code: None,
        is_rate_limit: false,
        quota,
        clock_offset_seconds: Some(0.1),
    }
}

fn settings() -> Settings {
    Settings {
        name: "bench".into(),
        environment: Environment::Production,
        api_host: "api.clerk.com".into(),
        limit: Some(Limit { requests: 1000, window: Duration::from_secs(10) }),
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(45),
        sources: vec![Source::Probe, Source::Gateway],
        coverage: Coverage::Sole,
        lateness: None,
    }
}

criterion_group!(benches, routes, ledger);
criterion_main!(benches);
