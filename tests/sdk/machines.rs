//! Calls with machine keys and for API keys: directly, and through a gateway that forwards or rejects unknown keys.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router, middleware};
use clerk_simulator::{Options, Simulator};
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::exporter::{KEY, Web};
use crate::front::Front;
use crate::{ALL_OFF, ALL_ON, Arrival, Clerk, ROOMY, Sdk, arrived_the_same, note, run, url};

const MACHINE_KEY: &str = "ak_machineCANARY0123456789";

/// Fixed responses on tokens and API keys, so that two runs see the same, for the right kind of key only.
async fn answer(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 16).await.unwrap();
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    let key = head.headers["authorization"].to_str().unwrap();
    let (is_machine, is_own) = (key == format!("Bearer {MACHINE_KEY}"), key == format!("Bearer {KEY}"));
    let token = json!({
        "object": "machine_to_machine_token", "id": "mt_1", "subject": "mch_1", "scopes": ["mch_2"],
        "claims": sent["claims"], "revoked": false, "revocation_reason": null, "expired": false,
        "expiration": 1_795_608_060_000_u64, "created_at": 1_795_608_000_000_u64, "updated_at": 1_795_608_000_000_u64,
        "token": "mt_secret",
    });
    let api_key = json!({
        "object": "api_key", "id": "ak_1", "type": "api_key", "name": sent["name"], "subject": "user_1", "scopes": [],
        "claims": null, "revoked": false, "revocation_reason": null, "expired": false, "expiration": null,
        "created_by": null, "description": null, "last_used_at": null, "created_at": 1_795_608_000_000_u64,
        "updated_at": 1_795_608_000_000_u64, "secret": "ak_secret",
    });
    let refused = |status: u16, code: &str| {
        let error =
            json!({ "errors": [{ "message": code, "long_message": code, "code": code }], "clerk_trace_id": "t" });
        (StatusCode::from_u16(status).unwrap(), Json(error)).into_response()
    };
    match (head.method.as_str(), head.uri.path()) {
        ("POST", "/m2m_tokens") if is_machine => Json(token).into_response(),
        ("POST", "/m2m_tokens/verify") if is_machine && sent["token"] == "mt_secret" => Json(token).into_response(),
        ("POST", "/m2m_tokens/verify") if is_machine => refused(404, "token_not_found"),
        ("POST", "/m2m_tokens/mt_1/revoke") if is_own => Json(token).into_response(),
        ("POST", "/api_keys/verify") if is_own && sent["secret"] != "ak_secret" => refused(404, "api_key_not_found"),
        ("GET", "/api_keys") if is_own => Json(json!({ "data": [api_key], "total_count": 1 })).into_response(),
        ("GET", "/api_keys/ak_1/secret") if is_own => Json(json!({ "secret": "ak_secret" })).into_response(),
        (_, path) if is_own && path.starts_with("/api_keys") => Json(api_key).into_response(),
        _ => refused(401, "clerk_key_invalid"),
    }
}

async fn clerk() -> Clerk {
    let simulator = Simulator::new(Options::default().users(1).keys(vec![KEY.parse().unwrap()]));
    let arrivals = Arc::<Mutex<Vec<Arrival>>>::default();
    let canned = ["/m2m_tokens", "/m2m_tokens/{*rest}", "/api_keys", "/api_keys/{*rest}"];
    let router = canned.into_iter().fold(Router::new(), |router, path| router.route(path, any(answer)));
    let router = router.fallback_service(simulator.router());
    let router = router.layer(middleware::from_fn_with_state(Arc::clone(&arrivals), note));
    Clerk { simulator, arrivals, web: Web::start(router).await }
}

/// The outcome of each call.
async fn calls(api_url: &str) -> Vec<Value> {
    let mut command = Sdk::Node.command(api_url, KEY, &["machines"]);
    command.env("CLERK_MACHINE_SECRET_KEY", MACHINE_KEY);
    let ended = run(command).await;
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    let calls: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(calls.len(), 12);
    calls
}

async fn gateway(clerk: &Clerk, knows_machines: bool, lines: &str) -> Front {
    let machines = if knows_machines { ", machine_secret_key_files: [machine]" } else { "" };
    Front::with_files(&clerk.url(), &format!("{ROOMY}{machines}"), lines, &[("machine", MACHINE_KEY)]).await
}

#[tokio::test]
async fn known_or_forwarded_machine_keys_see_the_same() {
    let clerk = clerk().await;
    let direct = calls(&clerk.url()).await;
    let directly = clerk.renew();
    let failed: Vec<_> = direct.iter().filter(|call| call["ok"] == false).map(|call| call["call"].clone()).collect();
    assert_eq!(failed, ["m2m.verify_unknown", "api_keys.verify_unknown"], "{direct:?}");
    for (knows_machines, lines) in [
        (false, format!("unknown_keys: forward\n{ALL_OFF}")),
        (true, format!("unknown_keys: reject\n{ALL_OFF}")),
        (true, format!("unknown_keys: reject\n{ALL_ON}")),
        (true, "unknown_keys: reject".to_owned()),
    ] {
        let gateway = gateway(&clerk, knows_machines, &lines).await;
        clerk.renew();
        let through = calls(&url(&gateway)).await;
        assert_eq!(through, direct, "{lines}");
        let arrived = clerk.renew();
        if lines.contains(ALL_OFF) {
            arrived_the_same(&directly, &arrived, Sdk::Node);
        }
        let instance = if knows_machines { "prod" } else { "other" };
        let labels = [("clerk_instance", instance), ("route", "/v1/m2m_tokens/verify"), ("code", "200")];
        gateway.exporter.until("clerk_gateway_requests_total", &labels, |count| count == 2.0).await;
        let (_, output) = gateway.exporter.stopped().await;
        assert!(!output.contains(MACHINE_KEY), "{output}");
    }
}

#[tokio::test]
async fn unknown_machine_key_is_rejected_with_a_reason() {
    let clerk = clerk().await;
    let gateway = gateway(&clerk, false, &format!("unknown_keys: reject\n{ALL_OFF}")).await;
    clerk.renew();
    let calls = calls(&url(&gateway)).await;
    for call in &calls {
        let of_machine = call["call"].as_str().unwrap().starts_with("m2m") && call["call"] != "m2m.revoke_token";
        let code = call["error"]["code"].as_str().unwrap_or_default();
        assert_eq!(code == "gateway_key_unknown", of_machine, "{call}");
    }
    let labels = [("shape", "machine_key"), ("result", "rejected")];
    gateway.exporter.until("clerk_gateway_unknown_credentials_total", &labels, |count| count == 4.0).await;
    assert!(clerk.renew().iter().all(|(_, _, headers)| !format!("{headers:?}").contains(MACHINE_KEY)));
}
