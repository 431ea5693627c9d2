//! Overrides of callers: the endpoint on the exporter's port, and what callers get.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use clerk_client::transport::{MemoryTransport, Transport};
use clerk_exporter::admin::{Admin, AdminOptions};
use clerk_exporter::gateway::{InstancePolicies, Mode, RoutePolicies};
use clerk_exporter::metrics::{ConfigStatus, Metrics};
use clerk_exporter::probe::Probes;
use clerk_exporter::sources::Sources;
use clerk_simulator::Simulator;
use clerk_test_support::log;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use prometheus_web::AuthenticatedClient;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::support::{BULK_TOKEN, Setup, TOKEN, World};

const PATH: &str = "/api/v1/overrides";
const PAUSE: &str = r#"{"instance":"test","caller":"import","action":"pause","minutes":30}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

fn world(pace: Mode, has_second: bool) -> World {
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let upstream: Arc<dyn Transport> = MemoryTransport::new(simulator.router());
    let policies = RoutePolicies { pace, ..RoutePolicies::default() };
    let plan = InstancePolicies { policies, ..InstancePolicies::default() };
    World::new(&upstream, "http://clerk.test", Setup { plan, has_second, ..Setup::default() })
}

/// The exporter's pages.
fn pages(world: &World, has_gateway: bool) -> Router {
    let gateway = has_gateway.then(|| Arc::clone(&world.gateway));
    let sources = Sources { gateway, ..Sources::default() };
    let status = Arc::new(ConfigStatus::new(world.clock.now(), 0.1));
    let (ledger, clock) = (Arc::clone(&world.ledger), Arc::clone(&world.clock));
    let metrics = Metrics::with_sources(Arc::clone(&ledger), Arc::clone(&clock), status, sources.clone());
    let admin = Admin {
        options: AdminOptions::default(),
        metrics: Arc::new(metrics),
        ledger,
        clock,
        sources,
        probes: Probes::new(Vec::new()),
        config_text: Arc::new(ArcSwap::default()),
        reloader: None,
        enable_probe_debug: false,
        leaving: CancellationToken::new(),
    };
    admin.router()
}

/// A client on a port with passwords.
fn alice() -> Option<AuthenticatedClient> {
    Some(AuthenticatedClient { user: Some("alice".into()) })
}

struct Call<'a> {
    method: &'a str,
    target: &'a str,
    client: Option<AuthenticatedClient>,
    headers: &'a [(&'a str, &'a str)],
    body: &'a str,
}

const POST: Call<'_> = Call { method: "POST", target: PATH, client: None, headers: &[JSON], body: PAUSE };

async fn call(pages: &Router, call: Call<'_>) -> (StatusCode, String) {
    let mut request = Request::builder().method(call.method).uri(call.target);
    for (name, value) in call.headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(call.body.to_owned())).unwrap();
    if let Some(client) = call.client {
        request.extensions_mut().insert(client);
    }
    let (head, body) = pages.clone().oneshot(request).await.unwrap().into_parts();
    (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

async fn get(pages: &Router, target: &str) -> Value {
    let (status, text) = call(pages, Call { method: "GET", target, headers: &[], body: "", ..POST }).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The status, decision and body that an application gets.
async fn ask(world: &World, token: &str) -> (u16, Option<String>, Value) {
    let request = Request::get("/v1/users/count").header("host", "gateway").header("user-agent", "curl/8");
    let request = request.header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
    let (head, body) = world.gateway.handle(request).await.into_parts();
    let decision = head.headers.get("x-clerk-exporter-decision").map(|value| value.to_str().unwrap().to_owned());
    (head.status.as_u16(), decision, serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn changes_need_an_authenticated_client() {
    let world = world(Mode::On, false);
    let pages = pages(&world, true);
    let delete =
        || Call { method: "DELETE", target: "/api/v1/overrides?caller=import", headers: &[], body: "", ..POST };
    for refused in [POST, delete()] {
        let (status, text) = call(&pages, refused).await;
        assert!(status == 403 && text.contains("set basic_auth_users in the file of --web.config.file"), "{text}");
    }
    assert_eq!(get(&pages, PATH).await, json!({ "overrides": [] }));
    let (status, text) = call(&pages, Call { client: alice(), ..POST }).await;
    assert_eq!(status, 200, "{text}");
    let until = humantime::format_rfc3339_seconds(world.clock.wall() + Duration::from_secs(1800)).to_string();
    let set = json!({
        "instance": "test", "caller": "import", "action": "pause", "max_share": null, "until": until, "scope": "process"
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), set);
    assert_eq!(get(&pages, PATH).await, json!({ "overrides": [set] }));
    assert_eq!(get(&pages, "/api/v1/status").await["instances"][0]["overrides"], json!([set]));
    // A certificate is enough, and has no user name.
    let client = Some(AuthenticatedClient { user: None });
    let (status, text) = call(&pages, Call { client: client.clone(), ..delete() }).await;
    assert_eq!((status.as_u16(), serde_json::from_str::<Value>(&text).unwrap()), (200, set));
    let (status, text) = call(&pages, Call { client, ..delete() }).await;
    assert!(status == 404 && text.contains("has no override"), "{text}");
    let (status, _) = call(&pages, Call { method: "PUT", client: alice(), ..POST }).await;
    assert_eq!(status, 405);
}

#[tokio::test(start_paused = true)]
async fn other_sites_cannot_use_a_browser() {
    let world = world(Mode::On, false);
    let pages = pages(&world, true);
    for (headers, expected) in [
        (&[("content-type", "text/plain")][..], 415),
        (&[("content-type", "application/x-www-form-urlencoded")], 415),
        (&[], 415),
        (&[JSON, ("sec-fetch-site", "cross-site")], 403),
        (&[JSON, ("sec-fetch-site", "same-site")], 403),
        (&[JSON, ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], 403),
        (&[JSON, ("sec-fetch-site", "same-origin")], 200),
        (&[("content-type", "application/json; charset=utf-8"), ("sec-fetch-site", "none")], 200),
    ] {
        let (status, text) = call(&pages, Call { headers, client: alice(), ..POST }).await;
        assert_eq!(status.as_u16(), expected, "{headers:?}: {text}");
    }
    let headers = &[("sec-fetch-site", "cross-site")];
    let target = "/api/v1/overrides?caller=import";
    let (status, _) = call(&pages, Call { method: "DELETE", target, headers, client: alice(), body: "" }).await;
    assert_eq!((status.as_u16(), world.gateway.overrides().len()), (403, 1));
}

#[tokio::test(start_paused = true)]
async fn mistakes_change_nothing_and_have_a_remedy() {
    let world = world(Mode::Shadow, true);
    let pages = pages(&world, true);
    let large = format!("{PAUSE}{}", " ".repeat(4096));
    for (body, expected, remedy) in [
        ("{}", 400, "`caller` is missing; write it as in `{\"instance\":\"prod\""),
        (&*large, 413, "more than 4096 bytes"),
        (r#"{"caller":"import","action":"pause","minutes":30}"#, 400, "there are several: test, second"),
        (r#"{"instance":"CANARY","caller":"import","action":"pause","minutes":30}"#, 404, "one of: test, second"),
        (r#"{"instance":"other","caller":"import","action":"pause","minutes":30}"#, 404, "one of: test, second"),
        (
            r#"{"instance":"test","caller":"CANARY","action":"pause","minutes":30}"#,
            404,
            "`caller` is one of: unknown, other, billing, import",
        ),
    ] {
        let (status, text) = call(&pages, Call { client: alice(), body, ..POST }).await;
        assert_eq!(status.as_u16(), expected, "{body:.100}: {text}");
        assert!(text.contains(remedy) && text.ends_with('\n') && !text.contains("CANARY"), "{text}");
    }
    let target = "/api/v1/overrides?instance=test";
    let call_off = Call { method: "DELETE", target, client: alice(), headers: &[], body: "" };
    let (status, text) = call(&pages, call_off).await;
    assert!(status == 400 && text.contains("?instance=prod&caller=import"), "{text}");
    assert_eq!(world.gateway.overrides(), []);
}

#[tokio::test(start_paused = true)]
async fn process_without_gateway_has_no_overrides() {
    let world = world(Mode::On, false);
    let pages = pages(&world, false);
    for (method, body) in [("GET", ""), ("POST", PAUSE), ("DELETE", "")] {
        let (status, text) = call(&pages, Call { method, body, client: alice(), ..POST }).await;
        assert!(status == 404 && text.contains("no gateway is configured in this process"), "{method}: {text}");
    }
    assert_eq!(get(&pages, "/api/v1/status").await["instances"][0]["overrides"], json!([]));
}

/// A caller without a token is named after its SDK, once the gateway has seen it.
#[tokio::test(start_paused = true)]
async fn seen_callers_and_configured_ones_can_be_named() {
    let world = world(Mode::On, false);
    let pages = pages(&world, true);
    let body = r#"{"caller":"curl","action":"cap","max_share":0.1,"minutes":5}"#;
    let cap = || Call { client: alice(), body, ..POST };
    assert_eq!(call(&pages, cap()).await.0, 404);
    assert_eq!(ask(&world, clerk_test_support::KEY).await.0, 200);
    let (status, text) = call(&pages, cap()).await;
    assert!(status == 200 && text.contains("\"max_share\":0.1"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn override_is_replaced_and_ends_by_itself() {
    log::listen();
    let world = world(Mode::On, false);
    let pages = pages(&world, true);
    assert_eq!(call(&pages, Call { client: alice(), ..POST }).await.0, 200);
    let body = r#"{"caller":"import","action":"cap","max_share":0.1,"minutes":1}"#;
    assert_eq!(call(&pages, Call { client: alice(), body, ..POST }).await.0, 200);
    let active = world.gateway.overrides();
    assert!(active.len() == 1 && active[0].action.max_share() == Some(0.1), "{active:?}");
    tokio::time::advance(Duration::from_secs(59)).await;
    world.gateway.follow_overrides().await;
    assert_eq!(world.gateway.overrides().len(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(world.gateway.overrides().len(), 0, "before it was removed");
    world.gateway.follow_overrides().await;
    let log = log::everything();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("override of a caller")).collect();
    assert_eq!(lines.len(), 3, "{log}");
    for (line, words) in lines.iter().zip([
        ["WARN", "action=\"pause\"", "user=\"alice\"", "by=\"operator\""],
        ["WARN", "action=\"cap\"", "max_share=0.1", "user=\"alice\""],
        ["INFO", "action=\"cap\"", "by=\"time\"", "ends"],
    ]) {
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn paused_caller_is_rejected_until_the_end() {
    let world = world(Mode::Off, false);
    let pages = pages(&world, true);
    assert_eq!(ask(&world, BULK_TOKEN).await.0, 200);
    assert_eq!(call(&pages, Call { client: alice(), ..POST }).await.0, 200);
    let (status, decision, body) = ask(&world, BULK_TOKEN).await;
    assert_eq!((status, decision.as_deref()), (429, Some("shed")), "also without pacing");
    assert_eq!(body["errors"][0]["code"], "too_many_requests");
    assert_eq!(ask(&world, TOKEN).await.0, 200);
    let numbers = world.numbers();
    let paused = clerk_client::limiter::ShedReason::CallerPaused.index();
    let low = clerk_client::limiter::Priority::Low as usize;
    assert_eq!((numbers.shed[low][paused], numbers.shed.as_flattened().iter().sum::<u64>()), (1, 1));
    tokio::time::advance(Duration::from_secs(1800)).await;
    assert_eq!(ask(&world, BULK_TOKEN).await.0, 200);
}
