//! Sessions.

use super::*;

#[tokio::test(start_paused = true)]
async fn sessions_are_listed_found_and_revoked() {
    let simulator = generous();
    let mut seen = Vec::new();
    for number in 0..100 {
        let user = simulator.user_id(number).unwrap();
        let signed_in = get(&simulator, &format!("/v1/users/{user}")).await.json()["last_sign_in_at"].clone();
        let sessions = get(&simulator, &format!("/v1/sessions?user_id={user}")).await.json();
        assert_eq!(sessions.as_array().unwrap().is_empty(), signed_in.is_null());
        let Some(session) = sessions.get(0).cloned() else { continue };
        assert_eq!((&session["user_id"], &session["created_at"]), (&json!(user), &signed_in));
        let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
        assert_eq!(get(&simulator, &path).await.json(), session);
        let client = format!("/v1/sessions?paginated=true&client_id={}", session["client_id"].as_str().unwrap());
        assert_eq!(get(&simulator, &client).await.json()["data"][0], session);
        seen.push(session);
    }
    let statuses: Vec<_> = seen.iter().map(|session| session["status"].as_str().unwrap()).collect();
    assert!(statuses.contains(&"active") && statuses.contains(&"expired"), "{statuses:?}");
    let active = seen.iter().find(|session| session["status"] == "active").unwrap();
    let path = format!("/v1/sessions/{}", active["id"].as_str().unwrap());
    let revoked = send(&simulator, Method::POST, &format!("{path}/revoke"), KEY, None).await.json();
    assert_eq!(revoked["status"], "revoked");
    assert_eq!(get(&simulator, &path).await.json(), revoked);
    for path in ["/v1/sessions", "/v1/sessions/sess_x"] {
        assert!(get(&simulator, path).await.status.is_client_error());
    }
}

#[tokio::test(start_paused = true)]
async fn created_sessions_expire_and_end_with_a_ban() {
    let simulator = generous();
    let user = simulator.user_id(1).unwrap();
    let made = with_body(&simulator, "POST", "/v1/sessions", json!({"user_id": user})).await.json();
    let path = format!("/v1/sessions/{}", made["id"].as_str().unwrap());
    assert_eq!((&made["status"], &made["user_id"]), (&json!("active"), &json!(user)));
    tokio::time::advance(Duration::from_secs(7 * 86_400)).await;
    assert_eq!(get(&simulator, &path).await.json()["status"], "expired");
    let made = with_body(&simulator, "POST", "/v1/sessions", json!({"user_id": user})).await.json();
    let path = format!("/v1/sessions/{}", made["id"].as_str().unwrap());
    send(&simulator, Method::POST, &format!("/v1/users/{user}/ban"), KEY, None).await;
    assert_eq!(get(&simulator, &path).await.json()["status"], "revoked");
    send(&simulator, Method::DELETE, &format!("/v1/users/{user}"), KEY, None).await;
    assert_eq!(get(&simulator, &path).await.status, StatusCode::NOT_FOUND);
}
