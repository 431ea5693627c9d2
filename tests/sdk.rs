//! Clerk's SDKs for Node.js and Python against the simulated Clerk, directly and through a proxy. Applications must see
//! the same results, and Clerk must receive the same requests. And under OpenTelemetry, whose spans must tell of exactly
//! these requests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "sdk/catalogue.rs"]
mod catalogue;
#[expect(dead_code, reason = "other tests use more of it")]
#[path = "common/chaos.rs"]
mod chaos;
#[expect(dead_code, reason = "other tests use more of it")]
#[path = "common/exporter.rs"]
mod exporter;
#[path = "common/exposition.rs"]
mod exposition;
#[expect(dead_code, reason = "other tests use more of it")]
#[path = "common/front.rs"]
mod front;
#[path = "sdk/machines.rs"]
mod machines;
#[path = "sdk/senders.rs"]
mod senders;
#[path = "sdk/senders_rust.rs"]
mod senders_rust;
#[path = "sdk/simulated.rs"]
mod simulated;
#[path = "sdk/suites.rs"]
mod suites;
#[path = "sdk/timeouts.rs"]
mod timeouts;
#[path = "sdk/traced.rs"]
mod traced;
#[path = "sdk/users.rs"]
mod users;
#[path = "sdk/verified.rs"]
mod verified;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use clerk_simulator::{Fault, FaultBody, FaultRule, Faults, HeaderProfile, KeyGrant, LimiterKind, Options, Simulator};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::chaos::{Chaos, ChaosProxy};
use crate::exporter::{KEY, Web, run};
use crate::front::Front;

/// Concurrent calls in a burst.
const BURST: usize = 60;
/// Number of them that the limit allows.
const ALLOWED: usize = 20;

#[derive(Debug, Clone, Copy)]
enum Sdk {
    Node,
    Python,
}

impl Sdk {
    /// What runs its programs, relative to the repository.
    fn interpreter(self) -> &'static str {
        let interpreter = match self {
            Self::Node => "target/sdk/node/node",
            Self::Python => "target/sdk/python/bin/python",
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(interpreter);
        assert!(path.exists(), "Clerk's SDKs are not installed: run scripts/setup");
        interpreter
    }

    /// A program of `tests/sdk` with its own server, with a minimal environment.
    fn program(self, program: &str) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join(self.interpreter()));
        command.arg(root.join(program)).env_clear().env("NODE_PATH", root.join("target/sdk/node/node_modules"));
        command.envs([("PYTHONUTF8", "1"), ("PYTHONDONTWRITEBYTECODE", "1"), ("CLERK_TELEMETRY_DISABLED", "1")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// The program that makes calls with this SDK, with a minimal environment.
    fn command(self, api_url: &str, key: &str, arguments: &[&str]) -> Command {
        self.command_under(&[], api_url, key, arguments)
    }

    /// The same, with arguments of the interpreter before the program. Paths are relative to the repository.
    fn command_under(self, before: &[&str], api_url: &str, key: &str, arguments: &[&str]) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = match self {
            Self::Node => "tests/sdk/node/calls.mjs",
            Self::Python => "tests/sdk/python/calls.py",
        };
        let interpreter = root.join(self.interpreter());
        let mut command = Command::new(interpreter);
        command.current_dir(root).args(before).arg(root.join(program)).args(arguments).env_clear();
        command.env("NODE_PATH", root.join("target/sdk/node/node_modules"));
        command.envs([("PYTHONUTF8", "1"), ("PYTHONDONTWRITEBYTECODE", "1")]);
        command.envs([("CLERK_API_URL", api_url), ("CLERK_SECRET_KEY", key)]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// The lines that the program prints.
    async fn lines(self, api_url: &str, key: &str, arguments: &[&str]) -> Vec<Value> {
        printed(self.command(api_url, key, arguments)).await
    }

    /// Makes every kind of call once; returns what the application sees of each.
    async fn calls(self, api_url: &str) -> Vec<Value> {
        self.calls_with(api_url, KEY).await
    }

    /// With another key.
    async fn calls_with(self, api_url: &str, key: &str) -> Vec<Value> {
        self.lines(api_url, key, &["calls"]).await
    }

    /// Makes [`BURST`] concurrent calls.
    async fn burst(self, api_url: &str) -> Burst {
        let mut lines = self.lines(api_url, KEY, &["burst", &BURST.to_string()]).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        serde_json::from_value(lines.remove(0)).unwrap()
    }

    /// The start of this SDK's User-Agent.
    fn user_agent(self) -> &'static str {
        match self {
            Self::Node => "@clerk/backend@3.25.0",
            Self::Python => "speakeasy-sdk/python 7.0.0 ",
        }
    }
}

/// The lines that a program of `tests/sdk` prints.
async fn printed(command: Command) -> Vec<Value> {
    let program = format!("{command:?}");
    let ended = run(command).await;
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{program}: {}", ended.stdout);
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The outcomes of concurrent calls.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Burst {
    calls: usize,
    ok: usize,
    throttled: usize,
    throttled_with_retry_after: usize,
    other_errors: Vec<Value>,
}

/// A received request: method, path and query, and its end-to-end headers in order.
type Arrival = (String, String, Vec<(String, String)>);

/// Rejects every DELETE and fails every POST.
fn errors() -> Faults {
    let of_method = |method: &str, fault: Fault| FaultRule { method: Some(method.to_owned()), ..fault.always() };
    let rules = vec![
        of_method("DELETE", Fault::Throttled { retry_after: Some("2".to_owned()), body: FaultBody::Clerk }),
        of_method("POST", Fault::Status { status: 500, body: FaultBody::Clerk }),
    ];
    Faults { rules, ..Faults::default() }
}

/// A simulated Clerk that records requests.
struct Clerk {
    simulator: Simulator,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    web: Web,
}

impl Clerk {
    async fn start(options: Options) -> Self {
        let options = options.headers(HeaderProfile::XRateLimit);
        Self::with_keys(options, vec![KEY.parse().unwrap()]).await
    }

    async fn with_keys(options: Options, keys: Vec<KeyGrant>) -> Self {
        let simulator = Simulator::new(options.users(100).keys(keys));
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let router = simulator.router().layer(middleware::from_fn_with_state(Arc::clone(&arrivals), note));
        Self { simulator, arrivals, web: Web::start(router).await }
    }

    /// With a high limit and [`errors`].
    async fn with_errors() -> Self {
        let limits = vec!["instance=1000/10s".parse().unwrap()];
        Self::start(Options::default().faults(errors()).limits(limits)).await
    }

    /// Allows [`ALLOWED`] requests in any period of this length.
    async fn narrow(window: &str) -> Self {
        let limits = vec![format!("instance={ALLOWED}/{window}").parse().unwrap()];
        Self::start(Options::default().limits(limits).limiter(LimiterKind::SlidingWindow)).await
    }

    fn url(&self) -> String {
        self.web.url()
    }

    /// Resets everything. Returns the requests received so far, in an order that does not depend on the order of
    /// concurrent calls.
    fn renew(&self) -> Vec<Arrival> {
        self.simulator.reset();
        let mut arrivals = std::mem::take(&mut *self.arrivals.lock());
        arrivals.sort();
        arrivals
    }
}

async fn note(State(arrivals): State<Arc<Mutex<Vec<Arrival>>>>, request: Request, next: Next) -> Response {
    // A proxy has its own connections and may set these.
    let of_connections = [
        "connection",
        "forwarded",
        "host",
        "keep-alive",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ];
    let headers = request.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let mut headers: Vec<_> = headers.filter(|(name, _)| !of_connections.contains(&name.as_str())).collect();
    headers.sort();
    arrivals.lock().push((request.method().to_string(), request.uri().to_string(), headers));
    next.run(request).await
}

/// Makes every kind of call directly and through `proxy_url`, which leads to the same Clerk. The application sees the
/// same, and Clerk receives the same requests.
async fn is_the_same_through(proxy_url: &str, clerk: &Clerk, sdk: Sdk) {
    let (directly, through) = sees_the_same_through(proxy_url, KEY, clerk, sdk).await;
    arrived_the_same(&directly, &through, sdk);
}

/// Compares only what the application sees. Returns the received requests: direct ones, and those through `proxy_url`
/// with the SDK's key `key`.
async fn sees_the_same_through(proxy_url: &str, key: &str, clerk: &Clerk, sdk: Sdk) -> (Vec<Arrival>, Vec<Arrival>) {
    let direct = sdk.calls(&clerk.url()).await;
    let sent_directly = clerk.renew();
    let through = sdk.calls_with(proxy_url, key).await;
    let sent_through = clerk.renew();
    for (direct, through) in direct.iter().zip(&through) {
        assert_eq!(through, direct, "{sdk:?}");
    }
    assert_eq!(through.len(), direct.len(), "{sdk:?}");
    (sent_directly, sent_through)
}

fn arrived_the_same(directly: &[Arrival], through: &[Arrival], sdk: Sdk) {
    for (direct, through) in directly.iter().zip(through) {
        assert_eq!(through, direct, "{sdk:?}");
    }
    assert_eq!(through.len(), directly.len(), "{sdk:?}");
}

/// A call, and on failure its status, error code and seconds to wait.
type Outcome = (String, Option<(u64, String, Option<u64>)>);

async fn outcomes(sdk: Sdk) -> Vec<Outcome> {
    let clerk = Clerk::with_errors().await;
    let calls = sdk.calls(&clerk.url()).await;
    let outcome = |line: &Value| {
        let error = &line["error"];
        let error = (line["ok"] == false).then(|| {
            assert_eq!(error["hasTraceId"], true, "{line}");
            (
                error["status"].as_u64().unwrap(),
                error["code"].as_str().unwrap().to_owned(),
                error["retryAfter"].as_u64(),
            )
        });
        (line["call"].as_str().unwrap().to_owned(), error)
    };
    calls.iter().map(outcome).collect()
}

fn expected_outcomes() -> Vec<Outcome> {
    let succeed = [
        "users.list",
        "users.count",
        "users.get",
        "users.get_many",
        "users.pages",
        "users.update",
        "users.update_metadata",
        "users.get_updated",
        "users.list_by_external_id",
        "jwks.get",
    ];
    let fail = [
        ("users.get_unknown", (404, "resource_not_found", None)),
        ("users.list_limit_out_of_range", (422, "form_param_value_invalid", None)),
        ("users.update_metadata_too_large", (422, "form_param_value_too_large", None)),
        ("users.get_wrong_key", (401, "clerk_key_invalid", None)),
        ("users.delete", (429, "too_many_requests", Some(2))),
        ("users.create", (500, "internal_clerk_error", None)),
    ];
    let succeed = succeed.map(|call| (call.to_owned(), None));
    let fail = fail.map(|(call, (status, code, wait))| (call.to_owned(), Some((status, code.to_owned(), wait))));
    succeed.into_iter().chain(fail).collect()
}

#[tokio::test]
async fn node_sdk_sees_every_response_unchanged() {
    assert_eq!(outcomes(Sdk::Node).await, expected_outcomes());
}

#[tokio::test]
async fn python_sdk_sees_every_response_unchanged() {
    assert_eq!(outcomes(Sdk::Python).await, expected_outcomes());
}

#[tokio::test]
async fn both_sdks_see_the_same_data() {
    let clerk = Clerk::with_errors().await;
    let node = Sdk::Node.calls(&clerk.url()).await;
    clerk.renew();
    let python = Sdk::Python.calls(&clerk.url()).await;
    for (node, python) in node.iter().zip(&python) {
        assert_eq!(node, python);
    }
    let result = |call: &str| &node.iter().find(|line| line["call"] == call).unwrap()["result"];
    let user = |number| clerk.simulator.user_id(number).unwrap();
    assert_eq!(result("users.count"), 100);
    assert_eq!(result("users.list"), &json!([user(0), user(1), user(2), user(3), user(4)]));
    assert_eq!(result("users.get_many"), &json!([user(0), user(1)]));
    assert_eq!(result("users.list_by_external_id"), &json!([user(0)]));
    assert_eq!(result("users.get")["id"], user(0));
    assert_eq!(result("users.get_updated")["publicMetadata"], json!({ "plan": "pro", "seats": { "used": 3 } }));
    assert_eq!(result("users.pages")["pages"], 4);
    assert_eq!(result("users.pages")["distinct"], 100);
}

#[tokio::test]
async fn plain_tcp_proxy_changes_nothing() {
    let clerk = Clerk::with_errors().await;
    let relay = ChaosProxy::start(clerk.web.address, Chaos::Pass);
    is_the_same_through(&relay.url(), &clerk, Sdk::Node).await;
    is_the_same_through(&relay.url(), &clerk, Sdk::Python).await;
    assert!(relay.accepted() > 0);
}

#[tokio::test]
async fn sdk_burst_is_throttled_with_retry_after() {
    for sdk in [Sdk::Node, Sdk::Python] {
        // Longer than the test runs on any machine.
        let clerk = Clerk::narrow("1h").await;
        let burst = sdk.burst(&clerk.url()).await;
        // A lookup of the user's ID precedes it; Node's list also requests the number of users.
        let before = match sdk {
            Sdk::Node => 2,
            Sdk::Python => 1,
        };
        let throttled = BURST - (ALLOWED - before);
        let expected = Burst {
            calls: BURST,
            ok: ALLOWED - before,
            throttled,
            throttled_with_retry_after: throttled,
            other_errors: Vec::new(),
        };
        assert_eq!(burst, expected, "{sdk:?}");
    }
}

#[tokio::test]
async fn sdk_requests_have_user_agent_and_api_version() {
    for sdk in [Sdk::Node, Sdk::Python] {
        let clerk = Clerk::with_errors().await;
        sdk.calls(&clerk.url()).await;
        for (method, target, headers) in clerk.renew() {
            let header = |name| {
                let mut values = headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
                values
                    .next()
                    .filter(|_| values.next().is_none())
                    .unwrap_or_else(|| panic!("{name} of {method} {target}"))
            };
            assert!(target.starts_with("/v1/"), "{target}");
            assert!(header("user-agent").starts_with(sdk.user_agent()), "{headers:?}");
            assert!(header("authorization").starts_with("Bearer sk_test_"), "{target}");
            assert!(!header("clerk-api-version").is_empty(), "{target}");
        }
    }
}

fn url(gateway: &Front) -> String {
    format!("http://{}", gateway.address)
}

/// Far more than the calls need.
const ROOMY: &str = "{ requests: 1000, window: 10s }";
const ALL_OFF: &str = "policies: { retry: off, coalesce: off, cache: off, batch: off, pace: off }";
const ALL_ON: &str = "max_wait: 60s\npolicies: { retry: on, coalesce: on, cache: on, batch: on, pace: on }";

#[tokio::test]
async fn a_gateway_with_all_policies_off_changes_nothing() {
    let clerk = Clerk::with_errors().await;
    let gateway = Front::start(&clerk.url(), ROOMY, ALL_OFF).await;
    clerk.renew();
    is_the_same_through(&url(&gateway), &clerk, Sdk::Node).await;
    is_the_same_through(&url(&gateway), &clerk, Sdk::Python).await;
}

#[tokio::test]
async fn sdk_with_caller_token_reaches_clerk_with_the_key() {
    const TOKEN: &str = "billing-token-CANARY";
    let clerk = Clerk::with_errors().await;
    // One of the calls has an unknown key, which Clerk must reject.
    let callers = "unknown_keys: forward\ncallers: [{ name: billing, token_file: token, instance: prod }]";
    let gateway = Front::with_files(&clerk.url(), ROOMY, &format!("{callers}\n{ALL_OFF}"), &[("token", TOKEN)]).await;
    clerk.renew();
    for sdk in [Sdk::Node, Sdk::Python] {
        let (directly, through) = sees_the_same_through(&url(&gateway), TOKEN, &clerk, sdk).await;
        arrived_the_same(&directly, &through, sdk);
    }
}

#[tokio::test]
async fn default_policies_change_only_compression() {
    // A shared response must be readable by all clients.
    let apart_from_compression = |arrivals: Vec<Arrival>| -> Vec<Arrival> {
        let apart = |(method, target, headers): Arrival| {
            let headers = headers.into_iter().filter(|(name, _)| name != "accept-encoding").collect();
            (method, target, headers)
        };
        arrivals.into_iter().map(apart).collect()
    };
    let clerk = Clerk::with_errors().await;
    let gateway = Front::start(&clerk.url(), ROOMY, "").await;
    clerk.renew();
    for sdk in [Sdk::Node, Sdk::Python] {
        let (directly, through) = sees_the_same_through(&url(&gateway), KEY, &clerk, sdk).await;
        arrived_the_same(&apart_from_compression(directly), &apart_from_compression(through), sdk);
    }
}

#[tokio::test]
async fn all_policies_on_change_no_result_and_add_no_requests() {
    for sdk in [Sdk::Node, Sdk::Python] {
        let clerk = Clerk::with_errors().await;
        let gateway = Front::start(&clerk.url(), ROOMY, ALL_ON).await;
        clerk.renew();
        let (directly, through) = sees_the_same_through(&url(&gateway), KEY, &clerk, sdk).await;
        assert!(through.len() <= directly.len(), "{sdk:?}: {} instead of {}", through.len(), directly.len());
    }
}

#[tokio::test]
async fn sdk_burst_through_a_pacing_gateway_gets_no_429() {
    let pacing = "max_wait: 60s\npolicies: { retry: off, coalesce: off, cache: off, batch: off, pace: on }";
    for sdk in [Sdk::Node, Sdk::Python] {
        let clerk = Clerk::narrow("1s").await;
        let limit = format!("{{ requests: {ALLOWED}, window: 1s }}");
        let gateway = Front::start(&clerk.url(), &limit, pacing).await;
        clerk.renew();
        let burst = sdk.burst(&url(&gateway)).await;
        let expected =
            Burst { calls: BURST, ok: BURST, throttled: 0, throttled_with_retry_after: 0, other_errors: Vec::new() };
        assert_eq!(burst, expected, "{sdk:?}");
        let statuses = clerk.simulator.truth().requests.by_status;
        assert_eq!(statuses.keys().copied().collect::<Vec<_>>(), [200], "{sdk:?}: {statuses:?}");
    }
}

#[tokio::test]
async fn identical_sdk_burst_is_coalesced_by_the_gateway() {
    for sdk in [Sdk::Node, Sdk::Python] {
        // No window ends while the test runs.
        let clerk = Clerk::narrow("1h").await;
        let gateway = Front::start(&clerk.url(), &format!("{{ requests: {ALLOWED}, window: 1h }}"), ALL_ON).await;
        clerk.renew();
        let burst = sdk.burst(&url(&gateway)).await;
        assert_eq!((burst.ok, burst.throttled), (BURST, 0), "{sdk:?}");
        let total = clerk.simulator.truth().requests.total;
        assert!(total <= 3, "{sdk:?}: {total} requests for {BURST} lookups of one user");
    }
}
