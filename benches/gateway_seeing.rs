//! The gateway's own work per request, without network and HTTP parsing.
//!
//! `outbound client alone` is an instant fake response; the difference to the others is the gateway's work.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use clerk_client::cache::{self, Cache};
use clerk_client::outbound::Outbound;
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::{RequestBody, ResponseFuture, Transport};
use clerk_exporter::gateway::{
    Gateway, GatewayOptions, InstanceOptions, InstancePolicies, Mode, RoutePolicies, UnknownKeyPolicy,
};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Environment, Limit, Settings, Source};
use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

const KEY: &str = "sk_live_4bMbJyWZ2vnLx0aQBENCH";
const PATH: &str = "/v1/users/user_2JtEzyTMv0E2Gk8bVBwfBgEta12";

/// A limit so high that pacing never waits.
const LIMIT: Limit = Limit { requests: 1_000_000_000, window: Duration::from_secs(10) };

/// Responds to every request immediately.
#[derive(Debug)]
struct Instantly(HeaderMap);

impl Instantly {
    fn new() -> Self {
        let headers = [
            ("content-type", "application/json"),
            ("date", "Wed, 25 Nov 2026 12:00:30 GMT"),
            ("x-ratelimit-limit", "1000"),
            ("x-ratelimit-remaining", "999"),
            ("x-ratelimit-reset", "10"),
        ];
        let headers = headers
            .into_iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        Self(headers.collect())
    }
}

impl Transport for Instantly {
    fn send(&self, request: Request<RequestBody>) -> ResponseFuture {
        drop(request);
        let body = Full::new(Bytes::from_static(br#"{"object":"user"}"#)).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        response.headers_mut().clone_from(&self.0);
        Box::pin(std::future::ready(Ok(response)))
    }
}

fn gateway(policies: RoutePolicies) -> Gateway {
    let clock = Arc::new(Clock::new());
    let settings = Settings {
        name: "bench".into(),
        environment: Environment::Production,
        api_host: "api.clerk.test".into(),
        limit: Some(LIMIT),
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(45),
        sources: vec![Source::Gateway],
        coverage: clerk_quota::Coverage::Sole,
        lateness: None,
    };
    let ledger = Ledger::new([settings]).instance("bench").expect("it was put in");
    let key = Arc::new(KeySource::new(SecretSource::Inline(Secret::new(KEY.to_owned()))));
    let base = "http://api.clerk.test".to_owned();
    let outbound = Outbound::new(Arc::new(Instantly::new()), base, key, ledger, Arc::clone(&clock));
    let instance = InstanceOptions {
        name: "bench".into(),
        outbound: Arc::new(outbound),
        further_keys: Vec::new(),
        caller: None,
        policies: InstancePolicies { policies, ..InstancePolicies::default() },
        cache: Cache::new(cache::CacheOptions::new("bench"), Arc::clone(&clock)),
        verifications: None,
    };
    let options = GatewayOptions {
        instances: vec![instance],
        unknown_keys: UnknownKeyPolicy::Reject,
        tokens: Vec::new(),
        max_callers: GatewayOptions::MAX_CALLERS,
        access_log: None,
        forwards_trace_context: false,
        tracer: None,
    };
    Gateway::new(options).expect("the options fit together")
}

/// A request as hyper passes it.
fn request<B>(body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.uri_mut() = http::Uri::from_static(PATH);
    let headers = request.headers_mut();
    headers.insert("host", HeaderValue::from_static("127.0.0.1"));
    headers.insert("authorization", HeaderValue::from_static("Bearer sk_live_4bMbJyWZ2vnLx0aQBENCH"));
    headers.insert("user-agent", HeaderValue::from_static("@clerk/backend@3.25.0"));
    headers.insert("accept", HeaderValue::from_static("application/json"));
    request
}

/// Measures the future of `each`, without the startup time of a runtime.
fn time<F: Future<Output = ()>>(runtime: &Runtime, bencher: &mut Bencher<'_>, each: impl Fn() -> F) {
    bencher.iter_custom(|count| {
        runtime.block_on(async {
            let from = Instant::now();
            for _ in 0..count {
                each().await;
            }
            from.elapsed()
        })
    });
}

fn seeing(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let guard = runtime.enter();
    let mut group = criterion.benchmark_group("gateway");
    let upstream = Instantly::new();
    group.bench_function("outbound client alone", |bencher| {
        time(&runtime, bencher, || async {
            let response = upstream.send(request(RequestBody::empty())).await.expect("it answers");
            black_box(response.into_body().collect().await.expect("it is whole"));
        });
    });
    let (off, on, shadow) = (Mode::Off, Mode::On, Mode::Shadow);
    let defaults = RoutePolicies {
        retry: on,
        coalesce: on,
        cache: shadow,
        batch: shadow,
        pace: shadow,
        ..RoutePolicies::default()
    };
    for (name, policies) in [
        ("seeing only", RoutePolicies::default()),
        ("default policies", defaults),
        ("a hit in the cache", RoutePolicies { cache: on, pace: off, ..RoutePolicies::default() }),
    ] {
        let gateway = gateway(policies);
        group.bench_function(name, |bencher| {
            time(&runtime, bencher, || async {
                let response = gateway.handle(request(Body::empty())).await;
                black_box(response.into_body().collect().await.expect("it is whole"));
            });
        });
    }
    drop(guard);
    group.finish();
}

criterion_group!(benches, seeing);
criterion_main!(benches);
