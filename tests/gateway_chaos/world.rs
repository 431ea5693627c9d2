//! A simulated Clerk that records requests, and a gateway in this process with configurable timeouts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use clerk_client::cache::{self, Cache};
use clerk_client::limiter::{self, RedisLimiter};
use clerk_client::outbound::retry::RetryPolicy;
use clerk_client::outbound::{InstanceLimits, Outbound};
use clerk_client::redis::RedisClient;
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::{HyperOptions, NetworkTransport};
use clerk_exporter::gateway::{
    Gateway, GatewayOptions, InstanceOptions, InstancePolicies, Mode, RoutePolicies, UnknownKeyPolicy,
};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Coverage, Environment, Limit, Settings, Source};
use clerk_simulator::Simulator;
use parking_lot::Mutex;
use prometheus_web::WebConfigSource;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::account::Ask;
use crate::exporter::{KEY, Web};

/// More than any test sends.
pub(crate) const LIMIT: Limit = Limit { requests: 1_000_000, window: Duration::from_secs(10) };

/// The simulated Clerk.
pub(crate) struct Clerk {
    pub(crate) simulator: Simulator,
    pub(crate) web: Web,
    arrivals: Arc<Mutex<Vec<String>>>,
    /// Its web configuration, which is reloaded when it changes.
    _folder: Option<TempDir>,
}

impl Clerk {
    pub(crate) async fn start() -> Self {
        Self::start_with(WebConfigSource::none(), None).await
    }

    /// Behind TLS.
    pub(crate) async fn start_secure() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["server.pem", "server.key"] {
            std::fs::copy(certificate(name), folder.path().join(name)).unwrap();
        }
        let config = folder.path().join("web.yml");
        std::fs::write(&config, "tls_server_config: { cert_file: server.pem, key_file: server.key }\n").unwrap();
        Self::start_with(WebConfigSource::open(config).unwrap(), Some(folder)).await
    }

    async fn start_with(web_config: WebConfigSource, folder: Option<TempDir>) -> Self {
        let limits = vec![
            format!("instance={}/10s", LIMIT.requests).parse().unwrap(),
            format!("user_update={}/10s", LIMIT.requests).parse().unwrap(),
        ];
        let keys = vec![KEY.parse().unwrap()];
        let options = clerk_simulator::Options::default()
            .headers(clerk_simulator::HeaderProfile::XRateLimit)
            .users(100)
            .keys(keys)
            .limits(limits)
            .kept_events(1);
        let simulator = Simulator::new(options);
        let arrivals = Arc::default();
        let router = simulator.router().layer(middleware::from_fn_with_state(Arc::clone(&arrivals), note));
        Self { simulator, arrivals, web: Web::start_with(router, web_config).await, _folder: folder }
    }

    /// Method and target of every received request, in order.
    pub(crate) fn arrivals(&self) -> Vec<String> {
        self.arrivals.lock().clone()
    }

    /// Asserts that no request arrived twice.
    pub(crate) fn holds_each_once(&self, what: &str) {
        let mut arrivals = self.arrivals();
        let all = arrivals.len();
        arrivals.sort_unstable();
        arrivals.dedup();
        assert_eq!(arrivals.len(), all, "{what}: a request arrived twice");
    }

    pub(crate) fn count(&self) -> usize {
        self.arrivals.lock().len()
    }

    /// A lookup of one user, identified by its query.
    pub(crate) fn look_up(&self, number: usize) -> Ask {
        let user = self.user(number);
        Ask::get(format!("/v1/users/{user}?n={number}"), format!("\"id\":\"{user}\""))
    }

    /// A list of all users: a response of some hundred kilobytes.
    pub(crate) fn list(&self, number: usize) -> Ask {
        Ask::get(format!("/v1/users?limit=100&n={number}"), format!("\"id\":\"{}\"", self.user(99)))
    }

    /// A write.
    pub(crate) fn write(&self, number: usize) -> Ask {
        let user = self.user(number);
        let body = format!("{{\"public_metadata\":{{\"n\":{number}}}}}");
        let expected = format!("\"id\":\"{user}\"");
        Ask { method: "PATCH", target: format!("/v1/users/{user}/metadata?n={number}"), body, expected }
    }

    fn user(&self, number: usize) -> String {
        self.simulator.user_id(u32::try_from(number % 100).unwrap()).unwrap()
    }
}

async fn note(State(arrivals): State<Arc<Mutex<Vec<String>>>>, request: Request, next: Next) -> Response {
    arrivals.lock().push(format!("{} {}", request.method(), request.uri()));
    next.run(request).await
}

/// A test certificate, or a key.
fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/prometheus-web/tests/data/tls").join(name)
}

/// A connection to Clerk that trusts the tests' certificate authority.
pub(crate) fn trusting(http2: bool) -> HyperOptions {
    HyperOptions::default().ca_file(Some(certificate("ca.pem"))).http2(http2)
}

/// Policies with these modes of retry, coalesce, cache and pace.
pub(crate) fn policies(retry: Mode, coalesce: Mode, cache: Mode, pace: Mode) -> RoutePolicies {
    RoutePolicies { retry, coalesce, cache, pace, ..RoutePolicies::default() }
}

/// With short timeouts and quick retries.
pub(crate) fn hasty(policies: RoutePolicies) -> InstancePolicies {
    InstancePolicies {
        policies,
        retry: RetryPolicy::default().base(Duration::from_millis(20)),
        attempt_timeout: Duration::from_millis(300),
        deadline: Duration::from_secs(1),
        body_idle_timeout: Duration::from_millis(300),
        ..InstancePolicies::default()
    }
}

/// A listening gateway, for the duration of the test.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    _server: JoinSet<()>,
}

impl Running {
    pub(crate) async fn start(upstream: &str, plan: InstancePolicies, store: Option<RedisClient>) -> Self {
        Self::start_over(&HyperOptions::default(), upstream, plan, store).await
    }

    /// With a separate connection to Clerk.
    pub(crate) async fn start_over(
        client: &HyperOptions,
        upstream: &str,
        plan: InstancePolicies,
        store: Option<RedisClient>,
    ) -> Self {
        let clock = Arc::new(Clock::new());
        let ledger = Ledger::new([settings()]);
        let key = Arc::new(KeySource::new(SecretSource::Inline(Secret::new(KEY.to_owned()))));
        let pace = limiter::LimiterOptions::default().limit(Some(LIMIT)).max_in_flight(10_000);
        let flow = match &store {
            Some(store) => InstanceLimits::sharing(pace, Arc::clone(&clock), RedisLimiter::new(store.clone(), "test")),
            None => InstanceLimits::new(pace, Arc::clone(&clock)),
        };
        let outbound = Outbound {
            transport: NetworkTransport::new(client).unwrap(),
            base: upstream.to_owned(),
            key,
            ledger: ledger.instance("test").unwrap(),
            clock: Arc::clone(&clock),
            limits: Arc::new(flow),
            log: None,
        };
        let instance = InstanceOptions {
            name: "test".into(),
            outbound: Arc::new(outbound),
            further_keys: Vec::new(),
            caller: None,
            policies: plan,
            cache: Cache::new(cache::CacheOptions::new("test").redis(store), Arc::clone(&clock)),
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
        let gateway = Arc::new(Gateway::new(options).unwrap());
        let listeners = prometheus_web::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
        let address = listeners[0].local_addr();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let options = prometheus_web::Options::default()
                .max_connections(10_000)
                .preserve_header_case(true)
                .mark_ambiguous_heads(true);
            prometheus_web::serve(listeners, gateway, options, WebConfigSource::none(), CancellationToken::new()).await;
        });
        Self { address, _server: server }
    }
}

fn settings() -> Settings {
    Settings {
        name: "test".into(),
        environment: Environment::Development,
        api_host: "clerk.test".into(),
        limit: Some(LIMIT),
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(45),
        sources: vec![Source::Gateway],
        coverage: Coverage::Sole,
        lateness: None,
    }
}
