//! Tests of the simulator through its router.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod any_input;
mod events;
mod faults;
mod invitations;
mod limits;
mod machine_auth;
mod organizations;
mod other_endpoints;
mod sessions;
mod sockets;
mod truth;
mod user_writes;
mod users;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, to_bytes};
use clerk_simulator::{
    Fault, FaultBody, FaultRule, Faults, HeaderProfile, LimiterKind, Options, Plan, SimulatedBucket, Simulator,
};
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

const KEY: &str = "sk_test_key";

/// A multiple of 10 s, so that a fixed window has just started.
fn base() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_608_000)
}

fn options() -> Options {
    Options::default().users(1_000).base(Some(base())).headers(HeaderProfile::XRateLimit)
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn ids(&self) -> Vec<String> {
        self.json().as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().to_owned()).collect()
    }
}

async fn send(simulator: &Simulator, method: Method, path: &str, key: &str, body: Option<Value>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let response = simulator.router().oneshot(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

async fn get(simulator: &Simulator, path: &str) -> Answer {
    send(simulator, Method::GET, path, KEY, None).await
}

async fn with_body(simulator: &Simulator, method: &str, path: &str, body: Value) -> Answer {
    send(simulator, method.parse().unwrap(), path, KEY, Some(body)).await
}

/// A simulator with limits that no test reaches.
fn generous() -> Simulator {
    let limits = SimulatedBucket::ALL.map(|bucket| format!("{bucket}=1000000/10s").parse().unwrap());
    Simulator::new(options().limits(limits.to_vec()))
}
