//! Invitations, organizations, memberships and the key set.

use super::*;

#[tokio::test(start_paused = true)]
async fn invitations_are_created_and_validated() {
    let simulator = generous();
    let one = with_body(&simulator, "POST", "/v1/invitations", json!({"email_address": "a@example.com"})).await;
    assert_eq!(one.status, StatusCode::OK);
    assert_eq!(one.json()["object"], "invitation");
    assert_eq!(one.json()["status"], "pending");
    let two = json!([{"email_address": "a@example.com"}, {"email_address": "b@example.com"}]);
    let bulk = with_body(&simulator, "POST", "/v1/invitations/bulk", two).await.json();
    assert_eq!(bulk.as_array().unwrap().len(), 2);
    assert_ne!(bulk[0]["id"], bulk[1]["id"]);
    let path = "/v1/organizations/org_2abc/invitations";
    let item = json!({"email_address": "a@example.com", "role": "org:admin"});
    let invited = with_body(&simulator, "POST", path, item.clone()).await.json();
    assert_eq!(invited["object"], "organization_invitation");
    assert_eq!(invited["organization_id"], "org_2abc");
    let bulk = with_body(&simulator, "POST", &format!("{path}/bulk"), json!([item])).await.json();
    assert_eq!(bulk["total_count"], 1);

    for (path, body, status, code) in [
        ("/v1/invitations", json!({}), 422, "form_param_missing"),
        ("/v1/invitations", json!({"email_address": "nobody"}), 422, "form_param_format_invalid"),
        ("/v1/invitations", json!([]), 400, "request_body_invalid"),
        ("/v1/invitations/bulk", json!(vec![json!({}); 11]), 400, "bulk_size_exceeded"),
        (path, json!({"email_address": "a@example.com"}), 422, "form_param_missing"),
        ("/v1/organizations/x/invitations", json!({}), 404, "resource_not_found"),
    ] {
        let answer = with_body(&simulator, "POST", path, body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn organizations_and_memberships_are_returned() {
    let simulator = generous();
    let organization = with_body(&simulator, "PATCH", "/v1/organizations/org_a", json!({"name": "Acme"})).await;
    assert_eq!(organization.json()["name"], "Acme");
    assert_eq!(get(&simulator, "/v1/organizations/org_a").await.json()["object"], "organization");
    let metadata = json!({"public_metadata": {"a": 1, "b": null}});
    for method in ["PATCH", "PUT"] {
        let answer = with_body(&simulator, method, "/v1/organizations/org_a/metadata", metadata.clone()).await;
        assert_eq!(answer.json()["public_metadata"], json!({"a": 1}));
    }
    let user = simulator.user_id(1).unwrap();
    let path = format!("/v1/organizations/org_a/memberships/{user}");
    let membership = with_body(&simulator, "PATCH", &path, json!({"role": "org:admin"})).await.json();
    assert_eq!(membership["object"], "organization_membership");
    assert_eq!(membership["public_user_data"]["user_id"], user.as_str());
    let answer = with_body(&simulator, "PATCH", &format!("{path}/metadata"), metadata).await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer = with_body(&simulator, "PATCH", "/v1/organizations/org_a/memberships/user_x", json!({})).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn jwks_has_a_2048_bit_key_and_is_not_counted() {
    let simulator = Simulator::new(options());
    for _ in 0..300 {
        let answer = get(&simulator, "/v1/jwks").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("x-ratelimit-limit"), None);
    }
    let keys = get(&simulator, "/v1/jwks").await.json();
    assert_eq!(keys["keys"][0]["n"].as_str().unwrap().len(), 342);
    assert_eq!(get(&simulator, "/v1/users/count").await.header("x-ratelimit-remaining"), Some("99"));
}
