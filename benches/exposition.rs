//! One scrape: ledger snapshot and encoding, for 1, 1000 and 10 000 probed instances.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use clerk_exporter::metrics::{ConfigStatus, Format, Metrics};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{
    Bucket, Coverage, Environment, HeaderDialect, KeyVerdict, Limit, Observation, Quota, RouteId, Settings, Source,
};
use criterion::{Criterion, criterion_group, criterion_main};

fn scrapes(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return };
    let _guard = runtime.enter();
    let mut group = criterion.benchmark_group("scrape");
    group.sample_size(20);
    for count in [1, 1000, 10_000] {
        let metrics = metrics(count);
        for (name, format) in [("text", Format::Text), ("openmetrics", Format::OpenMetrics)] {
            group.bench_function(format!("{name}, {count} instances"), |bencher| {
                bencher.iter(|| {
                    black_box(
                        metrics
                            .expose(format)
                            .into_iter()
                            .flatten()
                            .filter_map(Result::ok)
                            .map(|piece| piece.len())
                            .sum::<usize>(),
                    )
                });
            });
        }
    }
    group.finish();
}

fn metrics(count: u32) -> Metrics {
    let clock = Arc::new(Clock::new());
    let ledger = Arc::new(Ledger::new((0..count).map(settings)));
    for number in 0..count {
        let Some(instance) = ledger.instance(&name(number)) else { continue };
        instance.lock().record(&observation(&clock));
        instance.lock().record_probe(Duration::from_millis(80), Ok(clock.now()));
    }
    let status = Arc::new(ConfigStatus::new(clock.now(), 0.1));
    Metrics::new(ledger, clock, status)
}

fn name(number: u32) -> String {
    format!("customer-{number}")
}

fn settings(number: u32) -> Settings {
    Settings {
        name: name(number).into(),
        environment: Environment::Production,
        api_host: "api.clerk.com".into(),
        limit: Some(Limit { requests: 1000, window: Duration::from_secs(10) }),
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(45),
        sources: vec![Source::Probe],
        coverage: Coverage::Sole,
        lateness: None,
    }
}

fn observation(clock: &Clock) -> Observation {
    Observation {
        at: clock.now(),
        source: Source::Probe,
        route: RouteId::OTHER,
        bucket: Bucket::Instance,
        entity: None,
        status: 200,
        usable: true,
        key: KeyVerdict::Valid,
        quota_code: None,
        is_rate_limit: false,
        quota: Quota {
            limit: Some(1000),
            remaining: Some(420),
            reset: Some(Duration::from_secs(7)),
            reset_resolution: Duration::from_secs(1),
            dialect: Some(HeaderDialect::XRateLimit),
            ..Quota::default()
        },
        clock_offset_seconds: Some(0.1),
    }
}

criterion_group!(benches, scrapes);
criterion_main!(benches);
