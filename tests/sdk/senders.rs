//! Clerk's SDKs under OpenTelemetry, as applications use it: their spans go to the telemetry source, which must count
//! exactly the requests that the simulated Clerk received.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use clerk_exporter::telemetry::{SpanResult, Telemetry, TelemetryInstance, TelemetryOptions};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::snapshot::{BucketSnapshot, InstanceSnapshot};
use clerk_quota::{Bucket, Coverage, Environment, Limit, Moment, Settings, Source};
use clerk_simulator::{LimiterKind, Options, SimulatedBucket, Simulator, WindowTruth};
use parking_lot::Mutex;
use tokio::process::Command;

use crate::exporter::{KEY, Web};
use crate::{Sdk, errors, printed};

/// Longer than a sender takes on any machine: no span is late.
const LATENESS: Duration = Duration::from_secs(600);
/// Allowed requests: more than one call of each kind needs, and fewer than these and a burst.
const NARROW: u64 = 60;
/// Allowed requests: more than all.
const ROOMY: u64 = 1000;
/// Concurrent calls in a burst.
const BURST: &str = "60";

/// Numbers of requests by method, route and result.
pub(crate) type Spent = BTreeMap<(String, String, &'static str), u64>;

/// A simulated Clerk with its own record, and a telemetry source.
pub(crate) struct World {
    simulator: Simulator,
    record: Arc<Mutex<Spent>>,
    pub(crate) clerk: Web,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) receiver: Web,
    ledger: Ledger,
    clock: Clock,
    window: Duration,
}

impl World {
    /// With this number of requests in a window, which does not end while the test runs.
    pub(crate) async fn start(requests: u64) -> Self {
        let clock = Clock::new();
        let window = window_amid(clock.now());
        let limits = vec![format!("instance={requests}/{}s", window.as_secs()).parse().unwrap()];
        let options = Options::default().faults(errors()).limits(limits).limiter(LimiterKind::FixedWindow);
        let simulator = Simulator::new(options.users(100).keys(vec![KEY.parse().unwrap()]));
        let record = Arc::new(Mutex::new(Spent::new()));
        let router = simulator.router().layer(middleware::from_fn_with_state(Arc::clone(&record), note));
        let clerk = Web::start(router).await;

        let ledger = Ledger::new([settings(Limit { requests, window })]);
        let handle = ledger.instance("main").unwrap();
        // The window is counted from its start.
        handle.lock().count_since(clock.now().before(2 * window));
        let hosts = vec![clerk.url()];
        let instance = TelemetryInstance { name: "main".into(), hosts, is_complete: true, ledger: handle };
        let options = TelemetryOptions { instances: vec![instance], ..TelemetryOptions::default() };
        let telemetry = Arc::new(Telemetry::new(options, Arc::new(Clock::new())).unwrap());
        let receiver = Web::start(telemetry.router()).await;
        Self { simulator, record, clerk, telemetry, receiver, ledger, clock, window }
    }

    pub(crate) fn user_id(&self) -> String {
        self.simulator.user_id(0).unwrap()
    }

    /// The received spans by result; those without a span are left out.
    pub(crate) fn results(&self) -> Vec<(&'static str, u64)> {
        let stats = self.telemetry.stats();
        let counts = SpanResult::ALL.into_iter().map(|result| (result.as_str(), stats.spans_with(result)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// What the telemetry source counted once the lateness and the window are over.
    pub(crate) fn snapshot(&self) -> InstanceSnapshot {
        let later = self.clock.now().after(LATENESS + 2 * self.window);
        self.ledger.instance("main").unwrap().lock().snapshot(later)
    }

    /// What the telemetry source counted, all of it by `caller`.
    pub(crate) fn spent(&self, caller: &str) -> Spent {
        let mut spent = Spent::new();
        for (key, count) in self.snapshot().spent {
            assert_eq!(key.spender.source, Source::Telemetry);
            assert_eq!(&*self.telemetry.caller_name(key.spender.caller), caller);
            let (method, route) = (key.spender.method.as_str().to_owned(), key.spender.route.template().to_owned());
            *spent.entry((method, route, key.result.as_str())).or_default() += count;
        }
        spent
    }

    /// The simulated Clerk's record.
    pub(crate) fn record(&self) -> Spent {
        self.record.lock().clone()
    }

    /// Every request is counted, with method, route, result and status, and its window is the simulator's.
    pub(crate) fn assert_equals_the_record(&self, caller: &str) -> BucketSnapshot {
        let truth = self.simulator.truth();
        assert!(truth.requests.total > 0 && !truth.truncated, "{truth:?}");
        assert_eq!(self.results(), [("accepted", truth.requests.total)]);
        assert_eq!(self.spent(caller), self.record());

        let snapshot = self.snapshot();
        let responses = snapshot.responses.iter().filter(|(_, count)| **count > 0);
        let responses: BTreeMap<u16, u64> = responses.map(|((_, status), count)| (*status, *count)).collect();
        assert_eq!(responses, truth.requests.by_status);

        let bucket = snapshot.bucket(Bucket::Instance).unwrap().clone();
        let refused = truth.requests.by_status.get(&429).copied().unwrap_or_default();
        assert_eq!(bucket.throttled[Source::Telemetry.index()], refused);
        let window = self.window_truth();
        let is_exhausted = window.refused > 0 || window.least_remaining == 0;
        let is_low = is_exhausted || f64::from(window.least_remaining) < 0.1 * f64::from(window.limit);
        let windows = (bucket.windows, bucket.low_windows, bucket.exhausted_windows);
        assert_eq!(windows, (1, u64::from(is_low), u64::from(is_exhausted)), "{window:?}");
        // These spans tell of the past only.
        assert_eq!((bucket.remaining, bucket.blocked_until, bucket.to_exhaustion), (None, None, None));
        assert_eq!((snapshot.up, snapshot.key_valid), (None, None));
        bucket
    }

    /// The simulator's only window of the instance.
    fn window_truth(&self) -> WindowTruth {
        let truth = self.simulator.truth();
        let instances = truth.instances.iter().filter_map(|instance| instance.bucket(SimulatedBucket::Instance));
        let windows: Vec<_> = instances.flat_map(|bucket| &bucket.windows).collect();
        let [window] = windows[..] else { panic!("{windows:?}") };
        window.clone()
    }
}

/// Records a request by method, route and result, unless Clerk does not count it.
async fn note(State(record): State<Arc<Mutex<Spent>>>, request: Request, next: Next) -> Response {
    let method = request.method().to_string();
    // All calls are about users, so no other ids are in paths.
    let segments = request.uri().path().split('/');
    let segments = segments.map(|segment| if segment.starts_with("user_") { "{user_id}" } else { segment });
    let route = segments.collect::<Vec<_>>().join("/");
    let response = next.run(request).await;
    if route != "/v1/jwks" {
        let result = if response.status() == 429 { "refused" } else { "served" };
        *record.lock().entry((method, route, result)).or_default() += 1;
    }
    response
}

/// A length between one and two hours, such that the window around `now` began at least 15 minutes ago and ends in no
/// less than 15 minutes.
fn window_amid(now: Moment) -> Duration {
    let is_amid = |window: &Duration| {
        let into = now.since(now.rounded_down(*window));
        into >= *window / 4 && into <= *window / 4 * 3
    };
    (60..120).map(|minutes| Duration::from_secs(minutes * 60)).find(is_amid).unwrap()
}

fn settings(limit: Limit) -> Settings {
    Settings {
        name: "main".into(),
        environment: Environment::Development,
        api_host: "127.0.0.1".into(),
        limit: Some(limit),
        users_limit: None,
        low_threshold: 0.1,
        stale_after: Duration::from_secs(45),
        sources: vec![Source::Telemetry],
        coverage: Coverage::Sole,
        lateness: Some(LATENESS),
    }
}

/// An SDK with an OpenTelemetry instrumentation and exporter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sender {
    UndiciProtobuf,
    UndiciJson,
    Vercel,
    /// The old HTTP conventions, the default.
    Httpx,
    /// The stable HTTP conventions, compressed.
    HttpxStable,
}

impl Sender {
    fn command(self, world: &World, arguments: &[&str]) -> Command {
        self.command_to(&world.clerk.url(), &world.receiver.url(), arguments)
    }

    /// Makes its calls to `clerk`, and sends its spans to `collector`.
    pub(crate) fn command_to(self, clerk: &str, collector: &str, arguments: &[&str]) -> Command {
        let httpx = ["target/sdk/python/bin/opentelemetry-instrument", "target/sdk/python/bin/python"];
        let (sdk, before, protocol) = match self {
            Self::UndiciProtobuf => (Sdk::Node, ["--import", "./tests/sdk/node/undici.mjs"], "http/protobuf"),
            Self::UndiciJson => (Sdk::Node, ["--import", "./tests/sdk/node/undici.mjs"], "http/json"),
            Self::Vercel => (Sdk::Node, ["--import", "./tests/sdk/node/vercel.mjs"], "http/protobuf"),
            Self::Httpx | Self::HttpxStable => (Sdk::Python, httpx, "http/protobuf"),
        };
        let mut command = sdk.command_under(&before, clerk, KEY, arguments);
        command.envs([("OTEL_SERVICE_NAME", "shop"), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
        command.envs([("OTEL_METRICS_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "none")]);
        if matches!(self, Self::HttpxStable) {
            command.envs([("OTEL_SEMCONV_STABILITY_OPT_IN", "http"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]);
        }
        command
    }

    /// Makes every kind of call and a burst that the limit does not allow. Exporters send what is left at exit.
    async fn is_counted(self) {
        let world = World::start(NARROW).await;
        let lines = printed(self.command(&world, &["all", BURST])).await;
        let burst = lines.last().unwrap();
        assert!(burst["throttled"].as_u64() > Some(0) && burst["ok"].as_u64() > Some(0), "{burst}");
        let bucket = world.assert_equals_the_record("shop");
        assert_eq!(bucket.exhausted_windows, 1);
        let record = world.record();
        let requests_to = |route: &str| record.keys().any(|(_, known, _)| known == route);
        assert!(requests_to("/v1/users/{user_id}/metadata") && requests_to("/v1/users/count"), "{record:?}");
        for status in [200, 401, 404, 422, 429, 500] {
            assert!(world.simulator.truth().requests.by_status.contains_key(&status), "{status}");
        }
    }

    /// Where the limit allows all calls, the highest use is known exactly.
    async fn use_of_the_window_is_exact(self) {
        let world = World::start(ROOMY).await;
        printed(self.command(&world, &["burst", BURST])).await;
        let bucket = world.assert_equals_the_record("shop");
        let truth = world.window_truth();
        let used = f64::from(truth.limit - truth.least_remaining) / f64::from(truth.limit);
        assert!(truth.allowed > 60, "{truth:?}");
        let found = bucket.last_window.unwrap().usage.unwrap();
        assert!((found - used).abs() < 1e-9, "{found} of {used}");
    }
}

#[tokio::test]
async fn undici_spans_in_protobuf_equal_the_record() {
    Sender::UndiciProtobuf.is_counted().await;
}

#[tokio::test]
async fn undici_spans_in_json_equal_the_record() {
    Sender::UndiciJson.is_counted().await;
}

#[tokio::test]
async fn vercel_otel_spans_equal_the_record() {
    Sender::Vercel.is_counted().await;
}

#[tokio::test]
async fn httpx_spans_of_old_conventions_equal_the_record() {
    Sender::Httpx.is_counted().await;
}

#[tokio::test]
async fn httpx_spans_of_stable_conventions_equal_the_record() {
    Sender::HttpxStable.is_counted().await;
}

#[tokio::test]
async fn windows_from_spans_have_the_exact_use() {
    Sender::UndiciProtobuf.use_of_the_window_is_exact().await;
}
