//! Webhooks of `simulate`: signed as Clerk's, retried, in order, and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use clerk_client::secret::{Secret, SecretSource};
use clerk_client::webhook::{Invalidate, InvalidateError, Tag, WebhookOptions, Webhooks};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::exporter::{Exporter, Folder, KEY, Web, bound_address, command, eventually, request, run, send};
use crate::front::Front;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The tags that a receiver was told of, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Invalidate for Seen {
    async fn invalidate(&self, tags: &[Tag]) -> Result<(), InvalidateError> {
        self.0.lock().extend(tags.iter().map(ToString::to_string));
        Ok(())
    }
}

/// The real endpoint of clerk-client, on a socket.
async fn receiver(secret: &str, seen: &Seen) -> Web {
    let options = WebhookOptions::new(vec![SecretSource::Inline(Secret::new(secret.to_owned()))]);
    let webhooks = Webhooks::new(options, seen.clone()).unwrap();
    Web::start(Router::new().nest("/hooks", webhooks.router())).await
}

async fn simulator(arguments: &[&str]) -> Exporter {
    let mut all = vec!["simulate", "--listen-address=127.0.0.1:0", "--users=10"];
    all.extend(arguments);
    Exporter::spawn(command(&all), bound_address).await
}

/// Sends a write with a key.
async fn write(simulator: &Exporter, method: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let headers =
        format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let page = send(simulator.address, method, path, &headers, &body).await;
    assert_eq!(page.status, 200, "{method} {path}: {page:?}");
    serde_json::from_str(&page.text()).unwrap()
}

async fn deliveries(simulator: &Exporter) -> Value {
    let index: Value = serde_json::from_str(&simulator.get("/_simulator/").await.text()).unwrap();
    index["webhooks"].clone()
}

/// Waits until so many events were delivered.
async fn until_delivered(simulator: &Exporter, expected: u64) -> Value {
    eventually("the deliveries", async || {
        let deliveries = deliveries(simulator).await;
        (deliveries["delivered"] == expected).then_some(deliveries)
    })
    .await
}

#[tokio::test]
async fn real_endpoint_accepts_the_webhooks_of_changes() {
    let seen = Seen::default();
    let receiver = receiver(SECRET, &seen).await;
    let url = format!("--webhook-url={}/hooks", receiver.url());
    let simulator = simulator(&[&url, &format!("--webhook-secret={SECRET}")]).await;
    let user = write(&simulator, "POST", "/v1/users", &json!({"email_address": ["a@example.org"]})).await;
    let user = user["id"].as_str().unwrap();
    write(&simulator, "PATCH", &format!("/v1/users/{user}"), &json!({"first_name": "A"})).await;
    let organization =
        write(&simulator, "POST", "/v1/organizations", &json!({"name": "Acme", "created_by": user})).await;
    let organization = organization["id"].as_str().unwrap();
    write(&simulator, "DELETE", &format!("/v1/users/{user}"), &json!({})).await;
    let deliveries = until_delivered(&simulator, 5).await;
    assert_eq!(deliveries, json!({"delivered": 5, "failed_attempts": 0, "given_up": 0, "lost": 0}));
    let seen = seen.0.lock().clone();
    assert!(
        seen.contains(&format!("user:{user}")) && seen.contains(&format!("organization:{organization}")),
        "{seen:?}"
    );
    let (status, output) = simulator.stopped().await;
    assert!(status.success() && !output.contains(SECRET), "{output}");
}

#[tokio::test]
async fn wrong_secret_is_refused_and_counted() {
    let seen = Seen::default();
    let receiver = receiver(OTHER_SECRET, &seen).await;
    let folder = Folder::new();
    let secret = folder.write("secret", &format!("{SECRET}\n"));
    let url = format!("--webhook-url={}/hooks", receiver.url());
    let simulator = simulator(&[&url, &format!("--webhook-secret-file={}", secret.display())]).await;
    write(&simulator, "POST", "/v1/users", &json!({"email_address": ["a@example.org"]})).await;
    eventually("a failed attempt", async || {
        deliveries(&simulator).await["failed_attempts"].as_u64().filter(|count| *count > 0)
    })
    .await;
    assert!(seen.0.lock().is_empty());
    let (_, output) = simulator.stopped().await;
    assert!(output.contains("webhook failed") && output.contains("user.created"), "{output}");
}

/// The names that the events of a user carry, in the order of arrival. The first delivery fails.
#[derive(Clone, Default)]
struct Names {
    attempts: Arc<AtomicUsize>,
    names: Arc<Mutex<Vec<String>>>,
}

async fn take(State(names): State<Names>, Json(event): Json<Value>) -> StatusCode {
    if names.attempts.fetch_add(1, Ordering::Relaxed) == 0 {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    names.names.lock().push(event["data"]["first_name"].as_str().unwrap().to_owned());
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn failed_webhook_is_sent_again_before_later_ones() {
    let names = Names::default();
    let receiver = Web::start(Router::new().route("/hooks", post(take)).with_state(names.clone())).await;
    let url = format!("--webhook-url={}/hooks", receiver.url());
    let simulator = simulator(&[&url, &format!("--webhook-secret={SECRET}")]).await;
    let body = json!({"email_address": ["a@example.org"], "first_name": "0"});
    let user = write(&simulator, "POST", "/v1/users", &body).await;
    for name in ["1", "2", "3"] {
        let path = format!("/v1/users/{}", user["id"].as_str().unwrap());
        write(&simulator, "PATCH", &path, &json!({"first_name": name})).await;
    }
    let deliveries = until_delivered(&simulator, 4).await;
    assert_eq!(deliveries["failed_attempts"], 1);
    assert_eq!(*names.names.lock(), ["0", "1", "2", "3"]);
}

/// Passes deliveries to a gateway, once there is one: its address is not known before the simulator's.
#[derive(Clone, Default)]
struct Relay(Arc<Mutex<Option<SocketAddr>>>);

async fn relay(State(relay): State<Relay>, headers: HeaderMap, body: String) -> StatusCode {
    let Some(gateway) = *relay.0.lock() else { return StatusCode::SERVICE_UNAVAILABLE };
    let passed = ["svix-id", "svix-timestamp", "svix-signature", "content-type", "content-length"];
    let lines: String = passed.iter().map(|name| format!("{name}: {}\r\n", headers[*name].to_str().unwrap())).collect();
    let page = send(gateway, "POST", "/webhooks/clerk", &lines, &body).await;
    StatusCode::from_u16(page.status).unwrap()
}

#[tokio::test]
async fn gateway_forgets_what_a_webhook_changes() {
    let to_gateway = Relay::default();
    let receiver = Web::start(Router::new().route("/hooks", post(relay)).with_state(to_gateway.clone())).await;
    let url = format!("--webhook-url={}/hooks", receiver.url());
    let folder = Folder::new();
    let secret = folder.write("secret", SECRET);
    let simulator = simulator(&[&url, &format!("--webhook-secret-file={}", secret.display())]).await;
    let lines = "webhooks: { signing_secret_files: [hook] }\n\
                 policies: { retry: off, coalesce: off, batch: off, pace: off, cache: { mode: on, ttl: 1h } }";
    let clerk = format!("http://{}", simulator.address);
    let gateway = Front::with_files(&clerk, "{ requests: 1000, window: 10s }", lines, &[("hook", SECRET)]).await;
    *to_gateway.0.lock() = Some(gateway.address);

    let body = json!({"email_address": ["a@example.org"], "first_name": "Before"});
    let user = write(&simulator, "POST", "/v1/users", &body).await;
    let path = format!("/v1/users/{}", user["id"].as_str().unwrap());
    until_delivered(&simulator, 1).await;
    let read = async || {
        let page = request(gateway.address, "GET", &path, &format!("Authorization: Bearer {KEY}\r\n")).await;
        let user: Value = serde_json::from_str(&page.text()).unwrap();
        (user["first_name"].as_str().unwrap().to_owned(), !page.header("age").is_empty())
    };
    assert_eq!(read().await, ("Before".to_owned(), false));
    assert_eq!(read().await, ("Before".to_owned(), true));
    // Behind the gateway's back.
    write(&simulator, "PATCH", &path, &json!({"first_name": "After"})).await;
    until_delivered(&simulator, 2).await;
    assert_eq!(read().await.0, "After");
}

#[tokio::test]
async fn incomplete_webhook_flags_are_refused() {
    let url = "--webhook-url=http://127.0.0.1:1/";
    for (arguments, text) in [
        (vec![url], "CLERK_WEBHOOK_SIGNING_SECRET"),
        (vec![url, "--webhook-secret=CANARYshort"], "whsec_"),
        (vec![url, "--webhook-secret-file=/does/not/exist"], "/does/not/exist"),
        (vec!["--webhook-url=ftp://x/", "--webhook-secret=whsec_x"], "http://127.0.0.1:3000"),
        (vec!["--webhook-secret=whsec_x"], "--webhook-url"),
    ] {
        let arguments = [vec!["simulate", "--listen-address=127.0.0.1:0"], arguments].concat();
        let ended = run(command(&arguments)).await;
        assert_eq!(ended.status, Some(1), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(text) && !ended.stderr.contains("CANARY"), "{arguments:?}: {}", ended.stderr);
    }
}
