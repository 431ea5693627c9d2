//! The applications' requests, and their results.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use clerk_exporter::gateway::{DECISION, Gateway};
use http::Request;
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::tape::Caller;
use crate::world::{Case, Clients, token};

/// Calls of a gateway's clients that a policy may save.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Calls {
    /// Reads of limited routes.
    pub(crate) reads: u64,
    /// Of those, reads without a response of Clerk: their callers disconnected, they were shed, or the gateway returned
    /// an error.
    pub(crate) unanswered: u64,
    /// Other calls.
    pub(crate) others: u64,
}

/// One call.
pub(crate) async fn call(
    gateway: Arc<Gateway>,
    calls: Arc<Mutex<Calls>>,
    users: Arc<[String]>,
    case: Case,
    mut random: fastrand::Rng,
) {
    let caller = if random.u32(..10) < 7 { Caller::Billing } else { Caller::Import };
    let own = match caller {
        Caller::Import => &users[30..],
        _ => &users[..30],
    };
    let user = &own[random.usize(..own.len())];
    let kind = random.u32(..100);
    let (method, path) = match kind {
        0..5 => ("GET", "/v1/jwks".to_owned()),
        5..12 => ("PATCH", format!("/v1/users/{user}/metadata")),
        12..30 => {
            let offset = random.u32(..20) * 2 + u32::from(caller == Caller::Import);
            ("GET", format!("/v1/users?limit=1&offset={offset}"))
        }
        30..45 if caller == Caller::Billing => ("GET", "/v1/users/count".to_owned()),
        _ => ("GET", format!("/v1/users/{user}")),
    };
    let is_read = method == "GET" && kind >= 5;
    {
        let mut calls = calls.lock();
        calls.reads += u64::from(is_read);
        calls.others += u64::from(!is_read);
    }
    let body = if method == "PATCH" { Body::from(r#"{"public_metadata":{"n":1}}"#) } else { Body::empty() };
    let request = Request::builder().method(method).uri(path).header("host", "gateway");
    let request = request.header("authorization", format!("Bearer {}", token(caller)));
    let request = request.header("content-type", "application/json").body(body).unwrap();
    let answer = async {
        let response = gateway.handle(request).await;
        let decision = response.headers().get(&DECISION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let is_whole = response.into_body().collect().await.is_ok();
        is_whole && !matches!(decision.as_deref(), Some("shed" | "failed" | "rejected"))
    };
    let is_answered = match case.clients {
        Clients::Leave => tokio::time::timeout(Duration::from_millis(800), answer).await.unwrap_or(false),
        Clients::Patient | Clients::Break => answer.await,
    };
    calls.lock().unanswered += u64::from(is_read && !is_answered);
}
