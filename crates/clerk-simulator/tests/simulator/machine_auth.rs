//! API keys, tokens between machines, OAuth access tokens: with and without `/v1`.

use super::*;

const MACHINE: &str = "ak_machine";

async fn machine(simulator: &Simulator, method: &str, path: &str, key: &str, body: Value) -> Answer {
    send(simulator, method.parse().unwrap(), path, key, Some(body)).await
}

#[tokio::test(start_paused = true)]
async fn api_keys_are_created_verified_and_revoked() {
    for base in ["/v1/api_keys", "/api_keys"] {
        let simulator = generous();
        let body = json!({"name": "CI", "subject": "user_1", "scopes": ["read"], "seconds_until_expiration": 60.0});
        let answer = with_body(&simulator, "POST", base, body).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        let made = answer.json();
        let secret = made["secret"].as_str().unwrap();
        let own = format!("{base}/{}", made["id"].as_str().unwrap());
        let verify = async |secret: &str| {
            with_body(&simulator, "POST", &format!("{base}/verify"), json!({"secret": secret})).await
        };
        let verified = verify(secret).await.json();
        assert_eq!((&verified["id"], verified.get("secret")), (&made["id"], None));
        assert_eq!(verified["last_used_at"], 1_795_608_000_000_i64);
        assert_eq!(verify("ak_unknown").await.status, StatusCode::NOT_FOUND);
        assert_eq!(get(&simulator, &format!("{own}/secret")).await.json(), json!({"secret": secret}));
        let changed = with_body(&simulator, "PATCH", &own, json!({"description": "d", "scopes": []})).await.json();
        assert_eq!((&changed["description"], &changed["scopes"]), (&json!("d"), &json!([])));
        assert_eq!(changed["expiration"], made["expiration"]);
        tokio::time::advance(Duration::from_secs(60)).await;
        let expired = verify(secret).await;
        assert_eq!((expired.status, &expired.json()["expired"]), (StatusCode::OK, &json!(true)));
        let revoked = with_body(&simulator, "POST", &format!("{own}/revoke"), json!({"revocation_reason": "r"})).await;
        assert_eq!(revoked.json()["revocation_reason"], "r");
        let verified = verify(secret).await;
        assert_eq!((verified.status, &verified.json()["revoked"]), (StatusCode::OK, &json!(true)));
        let count = async |query: &str| {
            get(&simulator, &format!("{base}?subject=user_1{query}")).await.json()["total_count"].clone()
        };
        assert_eq!((count("").await, count("&include_invalid=true").await), (json!(0), json!(1)));
        let gone = send(&simulator, Method::DELETE, &own, KEY, None).await.json();
        assert_eq!(gone["deleted"], true);
        assert_eq!(get(&simulator, &own).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test(start_paused = true)]
async fn machine_tokens_are_created_verified_and_revoked() {
    for base in ["/v1/m2m_tokens", "/m2m_tokens"] {
        let simulator = generous();
        let body = json!({"claims": {"job": 7}, "seconds_until_expiration": 60, "token_format": "opaque"});
        let answer = machine(&simulator, "POST", base, MACHINE, body).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        let made = answer.json();
        let token = made["token"].as_str().unwrap();
        let own = format!("{base}/{}/revoke", made["id"].as_str().unwrap());
        assert!(made["subject"].as_str().unwrap().starts_with("mch_"));
        for key in [MACHINE, "ak_other", KEY] {
            let verified = machine(&simulator, "POST", &format!("{base}/verify"), key, json!({"token": token})).await;
            assert_eq!(verified.json()["claims"], json!({"job": 7}), "{key}");
            assert_eq!(verified.json().get("token"), None);
        }
        let unknown = machine(&simulator, "POST", &format!("{base}/verify"), MACHINE, json!({"token": "mt_x"})).await;
        assert_eq!(unknown.code(), "resource_not_found");
        let listed = send(&simulator, Method::GET, base, MACHINE, None).await.json();
        assert_eq!(listed["m2m_tokens"][0]["id"], made["id"]);
        let subject = format!("{base}?subject={}", made["subject"].as_str().unwrap());
        assert_eq!(get(&simulator, &subject).await.json()["total_count"], 1);
        assert_eq!(send(&simulator, Method::GET, &subject, "ak_other", None).await.status, StatusCode::NOT_FOUND);
        assert_eq!(machine(&simulator, "POST", &own, "ak_other", json!({})).await.status, StatusCode::NOT_FOUND);
        let revoked = with_body(&simulator, "POST", &own, json!({"revocation_reason": null})).await.json();
        assert_eq!(revoked["revoked"], true);
        let verified = machine(&simulator, "POST", &format!("{base}/verify"), MACHINE, json!({"token": token})).await;
        assert_eq!((verified.status, &verified.json()["revoked"]), (StatusCode::OK, &json!(true)));
        assert_eq!(get(&simulator, &subject).await.json()["total_count"], 0);
        assert_eq!(get(&simulator, &format!("{subject}&revoked=true")).await.json()["total_count"], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn valid_token_is_reused_while_its_rest_is_long_enough() {
    let simulator = generous();
    let create = async |claims: u32, least: u32| {
        let body = json!({
            "claims": {"n": claims}, "seconds_until_expiration": 60, "min_remaining_ttl_seconds": least,
        });
        machine(&simulator, "POST", "/m2m_tokens", MACHINE, body).await.json()["token"].as_str().unwrap().to_owned()
    };
    let first = create(1, 30).await;
    assert_ne!(create(2, 30).await, first);
    tokio::time::advance(Duration::from_secs(29)).await;
    assert_eq!(create(1, 30).await, first);
    tokio::time::advance(Duration::from_secs(1)).await;
    let second = create(1, 30).await;
    assert_ne!(second, first);
    assert_eq!(create(1, 59).await, second);
    let body = json!({"seconds_until_expiration": 60, "min_remaining_ttl_seconds": 60});
    let refused = machine(&simulator, "POST", "/m2m_tokens", MACHINE, body).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn endpoints_reject_the_wrong_kind_of_key() {
    let simulator = generous();
    for (method, path, key) in [
        ("POST", "/m2m_tokens", KEY),
        ("GET", "/v1/users", MACHINE),
        ("GET", "/v1/api_keys?subject=user_1", MACHINE),
        ("POST", "/v1/api_keys/verify", MACHINE),
        ("POST", "/v1/oauth_applications/access_tokens/verify", MACHINE),
    ] {
        let answer = machine(&simulator, method, path, key, json!({})).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "clerk_key_invalid"), "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn oauth_token_belongs_to_its_user() {
    let simulator = generous();
    let (user, token) = (simulator.user_id(3).unwrap(), simulator.oauth_token(3).unwrap());
    for path in ["/v1/oauth_applications/access_tokens/verify", "/oauth_applications/access_tokens/verify"] {
        let verified = with_body(&simulator, "POST", path, json!({"access_token": token})).await.json();
        assert_eq!((&verified["subject"], &verified["revoked"]), (&json!(user), &json!(false)));
        let unknown = with_body(&simulator, "POST", path, json!({"access_token": "oat_x"})).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);
        assert_eq!(with_body(&simulator, "POST", path, json!({})).await.code(), "form_param_missing");
    }
    send(&simulator, Method::DELETE, &format!("/v1/users/{user}"), KEY, None).await;
    let path = "/v1/oauth_applications/access_tokens/verify";
    let verified = with_body(&simulator, "POST", path, json!({"secret": token})).await;
    assert_eq!((verified.status, &verified.json()["revoked"]), (StatusCode::OK, &json!(true)));
}
