//! The events of changes, and the list of what the simulator knows.

use clerk_simulator::{DeliveryOutcome, EventStream, WebhookSecret};

use super::*;

async fn next(events: &mut EventStream) -> (String, String, Value) {
    let event = tokio::time::timeout(Duration::from_secs(1), events.next()).await.expect("an event").unwrap();
    let body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!((&body["object"], &body["type"]), (&json!("event"), &json!(event.kind)));
    assert!(event.id.starts_with("msg_") && body["instance_id"].as_str().unwrap().starts_with("ins_"));
    assert_eq!((event.instance.as_str(), &body["timestamp"]), ("development-1", &json!(1_795_608_000_000_i64)));
    (event.kind.to_owned(), event.entity, body["data"].clone())
}

#[tokio::test(start_paused = true)]
async fn changes_are_events_in_their_order() {
    let simulator = generous();
    let mut events = simulator.events();
    let known = simulator.user_id(1).unwrap();
    let user = with_body(&simulator, "POST", "/v1/users", json!({"email_address": ["a@example.org"]})).await.json();
    let id = user["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/users/{id}");
    with_body(&simulator, "PATCH", &path, json!({"first_name": "A"})).await;
    let body = json!({"name": "Acme", "created_by": id});
    let organization = with_body(&simulator, "POST", "/v1/organizations", body).await.json();
    let own = format!("/v1/organizations/{}", organization["id"].as_str().unwrap());
    with_body(&simulator, "PATCH", &own, json!({"name": "B"})).await;
    let member = json!({"user_id": known, "role": "org:member"});
    with_body(&simulator, "POST", &format!("{own}/memberships"), member).await;
    with_body(&simulator, "PATCH", &format!("{own}/memberships/{known}"), json!({"role": "org:admin"})).await;
    send(&simulator, Method::DELETE, &format!("{own}/memberships/{known}"), KEY, None).await;
    let invitation = json!({"email_address": "b@example.org", "role": "org:member"});
    let invited = with_body(&simulator, "POST", &format!("{own}/invitations"), invitation).await.json();
    let revoke = format!("{own}/invitations/{}/revoke", invited["id"].as_str().unwrap());
    send(&simulator, Method::POST, &revoke, KEY, None).await;
    with_body(&simulator, "POST", "/v1/sessions", json!({"user_id": id})).await;
    send(&simulator, Method::POST, &format!("{path}/ban"), KEY, None).await;
    send(&simulator, Method::DELETE, &own, KEY, None).await;
    send(&simulator, Method::DELETE, &path, KEY, None).await;
    // Neither reads nor what is rejected.
    get(&simulator, "/v1/users").await;
    with_body(&simulator, "PATCH", &path, json!({"first_name": "B"})).await;

    let organization = organization["id"].as_str().unwrap();
    for (kind, entity) in [
        ("user.created", Some(id.as_str())),
        ("user.updated", Some(&id)),
        ("organization.created", Some(organization)),
        ("organizationMembership.created", Some(organization)),
        ("organization.updated", Some(organization)),
        ("organizationMembership.created", Some(organization)),
        ("organizationMembership.updated", Some(organization)),
        ("organizationMembership.deleted", Some(organization)),
        ("organizationInvitation.created", Some(organization)),
        ("organizationInvitation.revoked", Some(organization)),
        ("session.created", None),
        ("session.revoked", None),
        ("user.updated", Some(&id)),
        ("organization.deleted", Some(organization)),
        ("user.deleted", Some(&id)),
    ] {
        let event = next(&mut events).await;
        assert_eq!(event.0, kind);
        assert!(entity.is_none_or(|entity| entity == event.1), "{kind}: {}", event.1);
        if kind == "user.created" {
            assert_eq!(event.2, user);
        }
        if kind.ends_with(".deleted") && kind != "organizationMembership.deleted" {
            assert_eq!(event.2["deleted"], true);
        }
    }
    assert!(tokio::time::timeout(Duration::from_secs(1), events.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn slow_reader_loses_the_oldest_events_and_knows() {
    let simulator = generous();
    let mut events = simulator.events();
    let path = format!("/v1/users/{}", simulator.user_id(1).unwrap());
    for number in 0..4_100 {
        with_body(&simulator, "PATCH", &path, json!({"first_name": number.to_string()})).await;
    }
    let first = next(&mut events).await;
    assert_eq!((first.2["first_name"].as_str(), events.lost()), (Some("4"), 4));
}

#[tokio::test(start_paused = true)]
async fn events_are_signed_with_the_time_of_the_attempt() {
    let simulator = generous();
    let mut events = simulator.events();
    with_body(&simulator, "POST", "/v1/users", json!({"email_address": ["a@example.org"]})).await;
    let event = events.next().await.unwrap();
    let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    let headers = event.signature_headers(&secret, simulator.now());
    assert_eq!(headers[1], ("svix-timestamp", "1795608000".to_owned()));
    let later = event.signature_headers(&secret, simulator.now() + Duration::from_secs(5));
    assert_eq!(later[0], headers[0]);
    assert_ne!(later[2], headers[2]);
}

#[tokio::test(start_paused = true)]
async fn index_lists_routes_as_json_or_html() {
    let simulator = Simulator::new(options());
    simulator.count_delivery(DeliveryOutcome::Delivered);
    for path in ["/_simulator", "/_simulator/"] {
        let index = send(&simulator, Method::GET, path, "", None).await;
        assert_eq!(index.header("content-type"), Some("application/json"));
        let json = index.json();
        let routes = json["routes"].as_array().unwrap();
        assert_eq!(routes.len(), Simulator::routes().len());
        let verify = json!({
            "method": "POST", "path": "/v1/m2m_tokens/verify", "bucket": "instance", "key": "sk_ or ak_",
            "also_without_version": true,
        });
        assert!(routes.contains(&verify), "{routes:?}");
        assert!(json["endpoints"]["POST /_simulator/reset"].is_string());
        assert_eq!(json["webhooks"]["delivered"], 1);
    }
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let request = Request::get("/_simulator/").header("accept", browser).body(Body::empty()).unwrap();
    let response = simulator.router().oneshot(request).await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let page = String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap();
    for text in ["/v1/organizations/{organization_id}/memberships", "membership_update", "/_simulator/truth"] {
        assert!(page.contains(text), "{text}");
    }
}
