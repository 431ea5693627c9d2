//! The cache example works as described.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use clerk_client::cache::{Cache, CacheOptions};
use clerk_client::clerk::Clerk;
use clerk_client::secret::{Secret, SecretSource};
use clerk_client::webhook::SigningSecret;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::clock;
use clerk_test_support::{World, simulator};

/// A signing secret for tests.
const SECRET: &str = "whsec_CANARYf7SKAZopvozCjHEFxTrktz+dM+";

async fn get(app: &Router, id: &str) -> Response<Body> {
    app.clone().oneshot(Request::get(format!("/users/{id}")).body(Body::empty()).unwrap()).await.unwrap()
}

fn came_from(response: &Response<Body>) -> &str {
    response.headers()["x-cache"].to_str().unwrap()
}

/// Delivers a webhook about a changed user.
async fn report(app: &Router, id: &str) -> StatusCode {
    let body = json!({"type": "user.updated", "object": "event", "data": {"id": id}}).to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let signature = SigningSecret::parse(SECRET).unwrap().sign("msg_1", now, body.as_bytes());
    let request = Request::post("/webhooks/clerk")
        .header("svix-id", "msg_1")
        .header("svix-timestamp", HeaderValue::from(now))
        .header("svix-signature", signature)
        .body(Body::from(body))
        .unwrap();
    app.clone().oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn user_is_fetched_once_until_a_webhook_arrives() {
    let world = World::new(simulator(1));
    let cache = Cache::new(CacheOptions::new("example"), clock());
    let secret = SecretSource::Inline(Secret::new(SECRET.to_owned()));
    let app = crate::example::app(Clerk::with_transport(Arc::clone(&world.outbound)), cache, secret).unwrap();
    let id = world.simulator.user_id(0).unwrap();
    let first = get(&app, &id).await;
    assert_eq!(came_from(&first), "Fetched");
    let body = first.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["id"], id);
    let second = get(&app, &id).await;
    assert!(came_from(&second).starts_with("Memory"));
    assert_eq!(second.into_body().collect().await.unwrap().to_bytes(), body);
    assert_eq!(world.simulator.truth().requests.total, 1);
    assert_eq!(report(&app, &id).await, StatusCode::OK);
    assert_eq!(came_from(&get(&app, &id).await), "Fetched");
    assert_eq!(world.simulator.truth().requests.total, 2);
    assert_eq!(get(&app, "user_000000000000000000000000000").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&app, "a%2F..%2Fb").await.status(), StatusCode::NOT_FOUND);
}
