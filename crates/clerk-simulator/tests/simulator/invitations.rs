//! Invitations to instances and organizations.

use super::*;

async fn post(simulator: &Simulator, path: &str, body: Value) -> Answer {
    with_body(simulator, "POST", path, body).await
}

#[tokio::test(start_paused = true)]
async fn invitations_are_created_listed_and_revoked() {
    let simulator = generous();
    let one = post(&simulator, "/v1/invitations", json!({"email_address": "a@example.org"})).await.json();
    assert_eq!((&one["object"], &one["status"]), (&json!("invitation"), &json!("pending")));
    let two = json!([{"email_address": "b@example.org"}, {"email_address": "c@example.org"}]);
    let bulk = post(&simulator, "/v1/invitations/bulk", two).await.json();
    assert_ne!(bulk[0]["id"], bulk[1]["id"]);
    let listed = get(&simulator, "/v1/invitations").await.json();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    let path = format!("/v1/invitations/{}", one["id"].as_str().unwrap());
    let revoked = send(&simulator, Method::POST, &format!("{path}/revoke"), KEY, None).await.json();
    assert_eq!((&revoked["revoked"], &revoked["status"]), (&json!(true), &json!("revoked")));
    let again = send(&simulator, Method::POST, &format!("{path}/revoke"), KEY, None).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);
    let page = get(&simulator, "/v1/invitations?paginated=true&limit=1").await.json();
    assert_eq!((&page["total_count"], page["data"].as_array().unwrap().len()), (&json!(2), 1));
    let page = get(&simulator, "/v1/invitations?paginated=true&status=revoked").await.json();
    assert_eq!(page["data"][0]["id"], one["id"]);
    let gone = send(&simulator, Method::DELETE, &path, KEY, None).await.json();
    assert_eq!(gone["deleted"], true);
    assert_eq!(send(&simulator, Method::DELETE, &path, KEY, None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn invalid_invitations_are_rejected() {
    let simulator = generous();
    let known = get(&simulator, "/v1/users?limit=1").await.json()[0]["email_addresses"][0]["email_address"].clone();
    post(&simulator, "/v1/invitations", json!({"email_address": "a@example.org"})).await;
    let organization = format!("/v1/organizations/{}/invitations", simulator.organization_id(0).unwrap());
    for (path, body, status, code) in [
        ("/v1/invitations", json!({}), 422, "form_param_missing"),
        ("/v1/invitations", json!({"email_address": "no-address"}), 422, "form_param_format_invalid"),
        ("/v1/invitations", json!({"email_address": "A@example.org"}), 400, "duplicate_record"),
        ("/v1/invitations", json!({"email_address": known}), 422, "form_identifier_exists"),
        ("/v1/invitations", json!([]), 400, "request_body_invalid"),
        ("/v1/invitations/bulk", json!(vec![json!({}); 11]), 400, "bulk_size_exceeded"),
        (&organization, json!({"email_address": "a@example.org"}), 422, "form_param_missing"),
        ("/v1/organizations/org_x/invitations", json!({}), 404, "resource_not_found"),
    ] {
        let answer = post(&simulator, path, body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{path}");
    }
    let existing = json!({"email_address": known, "ignore_existing": true});
    assert_eq!(post(&simulator, "/v1/invitations", existing).await.status, StatusCode::OK);
    let some = json!([{"email_address": "d@example.org"}, {"email_address": "no-address"}]);
    assert_eq!(post(&simulator, "/v1/invitations/bulk", some).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(get(&simulator, "/v1/invitations?query=d@ex").await.json(), json!([]), "a bulk request is all or none");
}

#[tokio::test(start_paused = true)]
async fn organization_invitations_are_created_listed_and_revoked() {
    let simulator = generous();
    let id = simulator.organization_id(0).unwrap();
    let path = format!("/v1/organizations/{id}/invitations");
    let inviter = simulator.user_id(1).unwrap();
    let body = json!({"email_address": "a@example.org", "role": "org:admin", "inviter_user_id": inviter});
    let made = post(&simulator, &path, body.clone()).await.json();
    assert_eq!(made["object"], "organization_invitation");
    assert_eq!((&made["organization_id"], &made["role_name"]), (&json!(id), &json!("admin")));
    assert_eq!(made["public_inviter_data"]["user_id"], inviter.as_str());
    assert_eq!(post(&simulator, &path, body).await.code(), "duplicate_record");
    let items = json!([{"email_address": "b@example.org", "role": "org:member"}]);
    assert_eq!(post(&simulator, &format!("{path}/bulk"), items).await.json()["total_count"], 1);
    let own = format!("{path}/{}", made["id"].as_str().unwrap());
    assert_eq!(get(&simulator, &own).await.json(), made);
    let pending = get(&simulator, &format!("/v1/organizations/{id}")).await.json();
    assert_eq!(pending["pending_invitations_count"], 2);
    let revoked = post(&simulator, &format!("{own}/revoke"), json!({"requesting_user_id": inviter})).await.json();
    assert_eq!(revoked["status"], "revoked");
    let again = send(&simulator, Method::POST, &format!("{own}/revoke"), KEY, None).await;
    assert_eq!(again.code(), "organization_invitation_not_pending");
    for (query, expected) in [("", 2), ("?status=pending", 1), ("?status=revoked", 1), ("/pending", 1)] {
        assert_eq!(get(&simulator, &format!("{path}{query}")).await.json()["total_count"], expected, "{query}");
    }
    let user = post(&simulator, "/v1/users", json!({"email_address": ["b@example.org"]})).await.json();
    let of_user = format!("/v1/users/{}/organization_invitations", user["id"].as_str().unwrap());
    let of_user = get(&simulator, &of_user).await.json();
    assert_eq!(of_user["data"][0]["public_organization_data"]["id"], id);
}
