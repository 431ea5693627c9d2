//! Rust applications under `tracing` and OpenTelemetry.

use clerk_client::Clerk;
use clerk_quota::Bucket;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_tracing::{DefaultSpanBackend, ReqwestOtelSpanBackend, SpanBackendWithUrl, TracingMiddleware};
use tracing::Instrument;
use tracing::subscriber::{self, DefaultGuard};
use tracing_subscriber::layer::SubscriberExt;

use crate::exporter::KEY;
use crate::senders::{Spent, World};

/// What an application sets up at its start, for this thread.
struct Traces {
    provider: SdkTracerProvider,
    subscriber: DefaultGuard,
}

impl Traces {
    fn start(world: &World) -> Self {
        let endpoint = format!("{}/v1/traces", world.receiver.url());
        let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).with_protocol(Protocol::HttpBinary);
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name("shop").build())
            .with_batch_exporter(exporter.build().unwrap())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
        let subscriber = subscriber::set_default(tracing_subscriber::registry().with(layer));
        Self { provider, subscriber }
    }

    /// Sends what is left. The exporter blocks, and the receiver runs on this thread.
    async fn flush(self) {
        drop(self.subscriber);
        tokio::task::spawn_blocking(move || self.provider.shutdown().unwrap()).await.unwrap();
    }
}

fn traced<S: ReqwestOtelSpanBackend + Send + Sync + 'static>() -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::builder().no_proxy().build().unwrap())
        .with(TracingMiddleware::<S>::new())
        .build()
}

/// Looks up users, more often than the limit allows.
async fn call(client: &ClientWithMiddleware, world: &World) {
    let user = format!("users/{}", world.user_id());
    for path in ["users/count", "users?limit=1", &user, &user, "users/user_unknown", "jwks", &user, &user] {
        let url = format!("{}/v1/{path}", world.clerk.url());
        client.get(url).bearer_auth(KEY).send().await.unwrap();
    }
}

#[tokio::test]
async fn reqwest_spans_with_url_equal_the_record() {
    let world = World::start(5).await;
    let traces = Traces::start(&world);
    call(&traced::<SpanBackendWithUrl>(), &world).await;
    traces.flush().await;
    assert_eq!(world.assert_equals_the_record("shop").exhausted_windows, 1);
}

#[tokio::test]
async fn reqwest_spans_without_url_count_under_other() {
    let world = World::start(5).await;
    let traces = Traces::start(&world);
    call(&traced::<DefaultSpanBackend>(), &world).await;
    traces.flush().await;
    let requests = |spent: &Spent, outcome: &str| -> u64 {
        spent.iter().filter(|((_, _, result), _)| *result == outcome).map(|(_, count)| count).sum()
    };
    let (spent, record) = (world.spent("shop"), world.record());
    assert!(spent.keys().all(|(_, route, _)| route == "other"), "{spent:?}");
    assert_eq!(requests(&spent, "refused"), requests(&record, "refused"));
    // One more: the keys of tokens cost nothing, but without a path this is not known.
    assert_eq!(requests(&spent, "served"), requests(&record, "served") + 1);
    assert_eq!(world.snapshot().bucket(Bucket::Instance).unwrap().exhausted_windows, 1);
}

/// If this fails because of new spans: they must carry `clerk_exporter.own`, or each request counts twice where the
/// client's own counts are shown as well.
#[tokio::test]
async fn rust_client_emits_no_spans_of_its_requests() {
    let world = World::start(1000).await;
    let traces = Traces::start(&world);
    let clerk = Clerk::builder().secret_key(KEY).api_url(world.clerk.url()).build().unwrap();
    let user = world.user_id();
    clerk.users().get(&user).instrument(tracing::info_span!("an application's own")).await.unwrap();
    traces.flush().await;
    assert_eq!(world.record().values().sum::<u64>(), 1);
    assert_eq!(world.spent("shop"), Spent::new());
    let results = world.results();
    assert!(matches!(results[..], [("other_kind", 1..)]), "{results:?}");
}
