//! Verifications of tokens: one request for many, and never the answer to another one's question.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use clerk_client::cache::Encryption;
use clerk_client::secret::{Secret, SecretSource};
use clerk_exporter::gateway::{Decision, InstancePolicies, Mode, RoutePolicies, Saving};
use futures_util::future::join_all;
use http::request::Builder;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{OFF, Reads, authorized, pass, roomy};
use crate::support::{BULK_TOKEN, Setup, TOKEN, within};
use clerk_simulator::Simulator;
use clerk_test_support::KEY;
use clerk_test_support::redis::RedisServer;

const VERIFY: RoutePolicies = RoutePolicies { verify: Mode::On, ..OFF };

const API_KEYS: &str = "/v1/api_keys/verify";
const MACHINE_KEYS: [&str; 2] = ["ak_CANARYmachineone0123456789", "ak_CANARYmachinetwo0123456789"];

/// A stand-in for Clerk's verification: `secret` or `token` is `<id>`, and the answer says who asked how.
#[derive(Debug, Clone)]
struct Verifier {
    began: Instant,
    /// What answers say of these tokens, besides the defaults.
    tokens: Arc<Mutex<HashMap<String, Value>>>,
    /// The status of writes besides verifications.
    write_status: Arc<Mutex<Option<StatusCode>>>,
    /// Delay of an answer after it was made.
    lag: Arc<Mutex<Duration>>,
}

impl Default for Verifier {
    fn default() -> Self {
        let (tokens, write_status, lag) = Default::default();
        Self { began: Instant::now(), tokens, write_status, lag }
    }
}

impl Verifier {
    fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    fn say(&self, id: &str, value: Value) {
        self.tokens.lock().insert(id.to_owned(), value);
    }

    fn lag(&self, seconds: u64) {
        *self.lag.lock() = Duration::from_secs(seconds);
    }
}

async fn answer(State(verifier): State<Verifier>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
    let path = head.uri.path().strip_prefix("/v1").unwrap_or(head.uri.path()).to_owned();
    let (status, answer) = if path.ends_with("/verify") {
        let field = ["secret", "token", "access_token"].into_iter().find_map(|name| body[name].as_str());
        let id = field.unwrap_or_default().to_owned();
        let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let mut answer = json!({
            "object": "api_key", "id": id, "revoked": false, "expired": false, "expiration": null,
            "asked": [text("authorization"), path, head.uri.query(), text("clerk-api-version"), text("accept"), body],
        });
        let special = verifier.tokens.lock().get(&id).cloned().unwrap_or_default();
        let status = special["status"].as_u64().unwrap_or(200);
        for (name, value) in special.as_object().into_iter().flatten() {
            answer[name] = value.clone();
        }
        (StatusCode::from_u16(status.try_into().unwrap()).unwrap(), answer)
    } else {
        if let Some(id) = path.split('/').find(|part| part.starts_with("id_")) {
            verifier.say(id, json!({ "revoked": true }));
        }
        (verifier.write_status.lock().unwrap_or(StatusCode::OK), json!({}))
    };
    let lag = *verifier.lag.lock();
    tokio::time::sleep(lag).await;
    let date = httpdate::fmt_http_date(clerk_test_support::start() + verifier.began.elapsed());
    (status, [("date", date)], axum::Json(answer)).into_response()
}

fn gateway(verifier: &Verifier, policies: RoutePolicies) -> Reads {
    let plan = InstancePolicies { policies, ..InstancePolicies::default() };
    let setup = Setup { plan, machine_keys: MACHINE_KEYS.to_vec(), ..Setup::default() };
    Reads::over(Simulator::new(roomy()), verifier.router(), setup)
}

fn post(path: &str, key: &str) -> Builder {
    authorized("POST", path, key).header("content-type", "application/json")
}

fn body(id: &str) -> String {
    json!({ "secret": id }).to_string()
}

async fn verify(reads: &Reads, id: &str) -> super::Answer {
    let answer = reads.send_body(post(API_KEYS, KEY), &body(id)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

async fn revoke(reads: &Reads, method: &str, path: &str) {
    reads.send_body(post(path, KEY).method(method), "{}").await;
}

#[tokio::test(start_paused = true)]
async fn token_presented_a_thousand_times_costs_one_verification() {
    let verifier = Verifier::default();
    verifier.lag(1);
    let reads = gateway(&verifier, VERIFY);
    let first = join_all((0..500).map(|_| verify(&reads, "id_1"))).await;
    let mut later = Vec::new();
    for _ in 0..500 {
        later.push(verify(&reads, "id_1").await);
    }
    assert!(first.iter().chain(&later).all(|answer| answer.body == first[0].body));
    assert_eq!(reads.sent(), 1);
    assert_eq!((reads.saved(Saving::Verify), reads.saved(Saving::Cache), reads.saved(Saving::Coalesce)), (999, 0, 0));
    assert_eq!((reads.decided(Decision::Coalesced), reads.decided(Decision::CacheHit)), (499, 500));
    assert_eq!(later[0].decision(), Some("cache_hit"));
    // With and without the version in the path, as the SDK sends some.
    let other_path = reads.send_body(post("/api_keys/verify", KEY), &body("id_1")).await;
    assert_eq!((other_path.decision(), reads.sent()), (Some("cache_hit"), 1));
}

#[tokio::test(start_paused = true)]
async fn verification_ends_with_its_ttl_and_with_its_token() {
    let verifier = Verifier::default();
    let reads = gateway(&verifier, VERIFY);
    verify(&reads, "id_1").await;
    // Never longer than the TTL, whatever the jitter.
    pass(60).await;
    verify(&reads, "id_1").await;
    assert_eq!(reads.sent(), 2);
    let now = clerk_test_support::start().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    verifier.say("id_2", json!({ "expiration": u64::try_from(now).unwrap() + 60_000 + 20_000 }));
    verify(&reads, "id_2").await;
    // `Date` has whole seconds: the time may be up to a second later.
    pass(18).await;
    verify(&reads, "id_2").await;
    assert_eq!(reads.sent(), 3);
    pass(2).await;
    verify(&reads, "id_2").await;
    assert_eq!(reads.sent(), 4, "its token has expired");
}

#[tokio::test(start_paused = true)]
async fn only_successes_are_kept() {
    let verifier = Verifier::default();
    let reads = gateway(&verifier, VERIFY);
    for (number, special) in [
        json!({ "revoked": true }),
        json!({ "expired": true }),
        json!({ "revoked": null }),
        json!({ "expired": "false" }),
        json!({ "id": null }),
        json!({ "expiration": 1 }),
        json!({ "status": 404 }),
        json!({ "status": 429 }),
        json!({ "status": 503 }),
        json!({ "status": 201 }),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("id_{number}");
        verifier.say(&id, special.clone());
        verifier.lag(1);
        let before = reads.sent();
        // They are shared by those who wait, and by no other request.
        let body = body(&id);
        let answers = join_all((0..5).map(|_| reads.send_body(post(API_KEYS, KEY), &body))).await;
        assert!(answers.iter().all(|answer| answer.status == answers[0].status));
        assert_eq!(reads.sent() - before, 1, "{special}");
        reads.send_body(post(API_KEYS, KEY), &body).await;
        assert_eq!(reads.sent() - before, 2, "{special}");
    }
}

#[tokio::test(start_paused = true)]
async fn revocation_ends_the_verification_of_its_token() {
    for (method, path) in [
        ("POST", "/v1/api_keys/id_1/revoke"),
        ("POST", "/api_keys/id%5F1/revoke"),
        ("DELETE", "/v1/api_keys/id_1"),
        ("PATCH", "/v1/api_keys/id_1"),
        ("POST", "/m2m_tokens/id_1/revoke"),
        // These do not name the token.
        ("POST", "/v1/oauth_applications/id_1/revoke_token"),
        ("DELETE", "/v1/machines/id_1"),
    ] {
        for status in
            [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR]
        {
            let is_named = path.contains("api_keys") || path.contains("m2m_tokens");
            if !is_named && status.is_client_error() {
                continue;
            }
            let verifier = Verifier::default();
            *verifier.write_status.lock() = Some(status);
            let reads = gateway(&verifier, VERIFY);
            verify(&reads, "id_1").await;
            verify(&reads, "id_2").await;
            revoke(&reads, method, path).await;
            let sent = reads.sent();
            let answer = verify(&reads, "id_1").await;
            assert_eq!((reads.sent(), answer.decision()), (sent + 1, None), "{method} {path} {status}");
            // Others stay, where the revocation names the token.
            let other = verify(&reads, "id_2").await;
            assert_eq!(other.decision() == Some("cache_hit"), is_named, "{method} {path} {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn verification_in_flight_is_not_kept_after_a_revocation() {
    let verifier = Verifier::default();
    let reads = gateway(&verifier, VERIFY);
    verifier.lag(5);
    let slow = verify(&reads, "id_1");
    let revocation = async {
        pass(1).await;
        verifier.lag(0);
        revoke(&reads, "POST", "/v1/api_keys/id_1/revoke").await;
        // It does not join the one in flight, which may have been answered before.
        let answer = verify(&reads, "id_1").await;
        assert_eq!(answer.json()["revoked"], true);
    };
    let (before, ()) = tokio::join!(slow, revocation);
    assert_eq!(before.json()["revoked"], false, "it was answered before");
    let after = verify(&reads, "id_1").await;
    assert_eq!((after.json()["revoked"].clone(), after.decision()), (Value::Bool(true), None));
}

/// All requests that differ in something that Clerk may look at, each with the same token.
fn different() -> Vec<(Builder, String)> {
    let mut requests = Vec::new();
    for key in [KEY, TOKEN, BULK_TOKEN, MACHINE_KEYS[0], MACHINE_KEYS[1]] {
        requests.push((post(API_KEYS, key), body("id_1")));
    }
    for path in [
        "/v1/m2m_tokens/verify",
        "/v1/oauth_applications/access_tokens/verify",
        "/v1/api_keys/verify?__clerk_api_version=2025-04-10",
        "/v1/api_keys/verify?__clerk_api_version=2026-01-01",
        "/v1/api_keys/verify?",
    ] {
        requests.push((post(path, KEY), body("id_1")));
    }
    for (name, value) in [
        ("clerk-api-version", "2025-04-10"),
        ("clerk-api-version", "2026-01-01"),
        ("accept", "application/json"),
        ("accept", "text/plain"),
        ("content-encoding", "identity"),
        ("x-unknown", "1"),
        ("cache-control", "no-cache"),
    ] {
        requests.push((post(API_KEYS, KEY).header(name, value), body("id_1")));
    }
    requests.push((authorized("POST", API_KEYS, KEY).header("content-type", "text/plain"), body("id_1")));
    requests.push((authorized("POST", API_KEYS, KEY), body("id_1")));
    for text in
        [r#"{"secret":"id_1" }"#, r#"{"secret":"id_1","scopes":["a"]}"#, r#"{"token":"id_1"}"#, r#"{"secret":"id_2"}"#]
    {
        requests.push((post(API_KEYS, KEY), text.to_owned()));
    }
    requests
}

#[tokio::test(start_paused = true)]
async fn success_answers_no_other_request() {
    let all = different().len();
    let verifier = Verifier::default();
    let reads = gateway(&verifier, VERIFY);
    for round in 0..2 {
        for (number, (request, body)) in different().into_iter().enumerate() {
            let before = reads.sent();
            let answer = reads.send_body(request, &body).await;
            assert_eq!(answer.status, 200);
            if round == 0 {
                assert_eq!(reads.sent(), before + 1, "request {number} got the answer to another one");
            }
        }
    }
    // Fields that are not known to be harmless are never shared.
    let never_shared = 3;
    assert_eq!(reads.sent(), all + never_shared);
    // At the same time, too: none joins another one.
    verifier.lag(1);
    let reads = gateway(&verifier, VERIFY);
    join_all(different().into_iter().map(async |(request, body)| reads.send_body(request, &body).await)).await;
    assert_eq!(reads.sent(), all);
}

#[tokio::test(start_paused = true)]
async fn large_and_endless_bodies_are_forwarded() {
    let verifier = Verifier::default();
    let reads = gateway(&verifier, VERIFY);
    let large = json!({ "secret": "id_1", "padding": "x".repeat(20_000) }).to_string();
    for _ in 0..2 {
        assert_eq!(reads.send_body(post(API_KEYS, KEY), &large).await.decision(), None);
    }
    assert_eq!(reads.sent(), 2);
    assert_eq!(reads.send_body(post(API_KEYS, KEY), "").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_counts_and_shares_nothing() {
    let verifier = Verifier::default();
    let reads = gateway(&verifier, RoutePolicies { verify: Mode::Shadow, ..OFF });
    verifier.lag(1);
    join_all((0..3).map(|_| verify(&reads, "id_1"))).await;
    for _ in 0..4 {
        assert_eq!(verify(&reads, "id_1").await.decision(), None);
    }
    assert_eq!((reads.sent(), reads.saved(Saving::Verify)), (7, 0));
    assert_eq!((reads.shadowed(Decision::Coalesced), reads.shadowed(Decision::CacheHit)), (2, 4));
    revoke(&reads, "POST", "/v1/api_keys/id_1/revoke").await;
    verify(&reads, "id_1").await;
    assert_eq!(reads.shadowed(Decision::CacheHit), 4);
}

#[tokio::test(start_paused = true)]
async fn policy_is_for_verifications_alone_and_off_by_default() {
    let verifier = Verifier::default();
    let reads = gateway(&verifier, RoutePolicies { cache: Mode::On, coalesce: Mode::On, ..OFF });
    verify(&reads, "id_1").await;
    verify(&reads, "id_1").await;
    assert_eq!(reads.sent(), 2);
    let reads = gateway(&verifier, VERIFY);
    for _ in 0..2 {
        reads.send_body(post("/v1/m2m_tokens", KEY), &body("id_1")).await;
        reads.get("/v1/users/count").await;
        reads.send_body(post(API_KEYS, KEY).method("PUT"), &body("id_1")).await;
    }
    assert_eq!(reads.sent(), 6);
}

fn encryption(digit: &str) -> Encryption {
    Encryption::new(&SecretSource::Inline(Secret::new(digit.repeat(64))), &[]).unwrap()
}

fn with_redis(redis: &RedisServer, verifier: &Verifier, seal: impl Into<Option<Encryption>>) -> Reads {
    let plan = InstancePolicies { policies: VERIFY, ..InstancePolicies::default() };
    let setup = Setup { plan, store: Some(redis.store()), seal: seal.into(), ..Setup::default() };
    Reads::over(Simulator::new(roomy()), verifier.router(), setup)
}

#[tokio::test]
async fn gateways_share_verifications_and_their_end() {
    let redis = RedisServer::start(&[]).await;
    let verifier = Verifier::default();
    let [first, second] = [(); 2].map(|()| with_redis(&redis, &verifier, encryption("a")));
    verify(&first, "id_1").await;
    let other = verify(&second, "id_1").await;
    assert_eq!((first.sent(), second.sent(), other.decision()), (1, 0, Some("cache_hit")));
    // Another token, in the memory of the second: the revocation of any token ends all in Redis, and memory serves once
    // the gateway hears of revocations.
    within(async {
        loop {
            revoke(&first, "POST", "/v1/api_keys/id_0/revoke").await;
            if verify(&second, "id_2").await.decision() == Some("cache_hit") {
                return;
            }
        }
    })
    .await;
    revoke(&first, "POST", "/v1/api_keys/id_1/revoke").await;
    assert_eq!(verify(&first, "id_1").await.json()["revoked"], true, "the gateway that revokes, at once");
    within(async {
        while verify(&second, "id_1").await.json()["revoked"] != true {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(verify(&second, "id_2").await.decision(), Some("cache_hit"));
    // A gateway that starts now must not find it in Redis.
    let third = with_redis(&redis, &verifier, encryption("a"));
    assert_eq!(verify(&third, "id_1").await.json()["revoked"], true);
}

#[tokio::test]
async fn revocation_reaches_other_gateways_without_encryption() {
    let redis = RedisServer::start(&[]).await;
    let verifier = Verifier::default();
    let [first, second] = [(); 2].map(|()| with_redis(&redis, &verifier, None));
    verify(&first, "id_1").await;
    within(async {
        // Memory is used once the gateway hears of revocations.
        while verify(&second, "id_1").await.decision() != Some("cache_hit") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(redis.keys().await.iter().all(|(key, _)| !key.contains(":answer:")));
    revoke(&first, "POST", "/v1/api_keys/id_1/revoke").await;
    within(async {
        while verify(&second, "id_1").await.json()["revoked"] != true {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn revocation_with_an_unknown_key_ends_it_too() {
    let verifier = Verifier::default();
    let reads = gateway(&verifier, VERIFY);
    verify(&reads, "id_1").await;
    verify(&reads, "id_2").await;
    let revocation = post("/m2m_tokens/id_1/revoke", "ak_of_an_issuer_without_configuration");
    assert_eq!(reads.send_body(revocation, "{}").await.status, 200);
    assert_eq!(verify(&reads, "id_1").await.json()["revoked"], true);
    assert_eq!(verify(&reads, "id_2").await.decision(), Some("cache_hit"));
}

#[tokio::test(start_paused = true)]
async fn writes_end_cached_reads_of_tokens() {
    let verifier = Verifier::default();
    let cached = RoutePolicies { cache: Mode::On, is_explicit: true, ..OFF };
    for (read, write) in [
        ("/v1/api_keys", post("/v1/api_keys", KEY)),
        ("/v1/api_keys", post("/v1/api_keys/id_1/revoke", KEY)),
        ("/v1/api_keys/id_1", post("/api_keys/id_1/revoke", KEY)),
        ("/v1/m2m_tokens", post("/v1/m2m_tokens", KEY)),
        ("/v1/m2m_tokens", post("/v1/m2m_tokens/id_1/revoke", KEY)),
    ] {
        let routes =
            ["/v1/api_keys", "/v1/api_keys/{apiKeyID}", "/v1/m2m_tokens"].map(|route| (("GET", route), cached));
        let plan = InstancePolicies { policies: OFF, routes: routes.into(), ..InstancePolicies::default() };
        let setup = Setup { plan, ..Setup::default() };
        let reads = Reads::over(Simulator::new(roomy()), verifier.router(), setup);
        for _ in 0..2 {
            reads.get(read).await;
        }
        assert_eq!(reads.sent(), 1, "{read}");
        reads.send_body(write, "{}").await;
        reads.get(read).await;
        assert_eq!(reads.sent(), 3, "{read}");
    }
}

#[tokio::test]
async fn redis_holds_neither_tokens_nor_guessable_keys() {
    let redis = RedisServer::start(&[]).await;
    let verifier = Verifier::default();
    let first = with_redis(&redis, &verifier, encryption("a"));
    verify(&first, "id_CANARY").await;
    let stored = redis.strings().await;
    assert!(!stored.is_empty());
    for secret in ["CANARY", KEY, "api_key", "revoked"] {
        assert!(!stored.contains(secret), "{secret}");
    }
    // Without the key, Redis cannot be asked for a token by its name: the same request has another place.
    let other_key = with_redis(&redis, &verifier, encryption("b"));
    assert_eq!(verify(&other_key, "id_CANARY").await.decision(), None);
}

#[tokio::test(start_paused = true)]
async fn caller_tokens_are_told_apart_by_name() {
    let verifier = Verifier::default();
    let reads = gateway(&verifier, VERIFY);
    for token in [TOKEN, BULK_TOKEN, TOKEN, BULK_TOKEN] {
        let answer = reads.send_body(post(API_KEYS, token), &body("id_1")).await;
        assert_eq!(answer.json()["asked"][0], format!("Bearer {KEY}"));
    }
    assert_eq!(reads.sent(), 2);
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {KEY}").parse().unwrap());
    assert!(reads.asked().iter().all(|asked| asked.headers["authorization"] == headers["authorization"]));
}
