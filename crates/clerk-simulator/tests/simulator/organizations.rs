//! Organizations and their members.

use super::*;

async fn post(simulator: &Simulator, path: &str, body: Value) -> Answer {
    with_body(simulator, "POST", path, body).await
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn generated_organizations_have_members() {
    let simulator = generous();
    let list = get(&simulator, "/v1/organizations?limit=50&include_members_count=true").await.json();
    assert_eq!(list["total_count"], 20);
    let newest = simulator.organization_id(19).unwrap();
    assert_eq!(ids(&list)[0], newest);
    assert!(simulator.organization_id(20).is_none());
    for organization in list["data"].as_array().unwrap() {
        let path = format!("/v1/organizations/{}/memberships?limit=20", organization["id"].as_str().unwrap());
        let members = get(&simulator, &path).await.json();
        assert_eq!(members["total_count"], organization["members_count"]);
        let admins = get(&simulator, &format!("{path}&role=org:admin")).await.json();
        assert_eq!(admins["total_count"], 1);
        let admin = &admins["data"][0]["public_user_data"]["user_id"];
        assert_eq!(admin, &organization["created_by"]);
        let of_admin = format!("/v1/users/{}/organization_memberships?limit=50", admin.as_str().unwrap());
        let of_admin = get(&simulator, &of_admin).await.json();
        let organizations = of_admin["data"].as_array().unwrap().iter().map(|it| &it["organization"]["id"]);
        assert_eq!(organizations.filter(|id| *id == &organization["id"]).count(), 1);
    }
    let by_name = get(&simulator, "/v1/organizations?order_by=name&limit=3&query=organization-1").await.json();
    assert_eq!(by_name["total_count"], 11);
    assert_eq!(by_name["data"][0]["slug"], "organization-1");
    assert_eq!(get(&simulator, "/v1/organizations?order_by=shoes").await.code(), "form_param_format_invalid");
}

#[tokio::test(start_paused = true)]
async fn organization_is_created_changed_and_deleted() {
    let simulator = generous();
    let creator = simulator.user_id(7).unwrap();
    let body = json!({"name": "Acme & Sons", "created_by": creator, "private_metadata": {"a": 1}});
    let made = post(&simulator, "/v1/organizations", body.clone()).await.json();
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["slug"], "acme---sons");
    assert_eq!(get(&simulator, "/v1/organizations/acme---sons").await.json()["id"], id);
    let path = format!("/v1/organizations/{id}");
    let members = get(&simulator, &format!("{path}/memberships")).await.json();
    assert_eq!(members["data"][0]["public_user_data"]["user_id"], creator.as_str());
    assert_eq!(members["data"][0]["role"], "org:admin");
    let mine = get(&simulator, &format!("/v1/organizations?user_id={creator}&limit=100")).await.json();
    assert_eq!(ids(&mine)[0], id);

    let second = post(&simulator, "/v1/organizations", body).await.json();
    assert_ne!(second["slug"], made["slug"], "a taken name gets another slug");
    let taken = post(&simulator, "/v1/organizations", json!({"name": "B", "slug": "acme---sons"})).await;
    assert_eq!(taken.code(), "form_identifier_exists");
    let changed = with_body(&simulator, "PATCH", &path, json!({"name": "Acme", "slug": "acme"})).await.json();
    assert_eq!((&changed["name"], &changed["slug"]), (&json!("Acme"), &json!("acme")));
    assert_eq!(get(&simulator, "/v1/organizations/acme---sons").await.status, StatusCode::NOT_FOUND);
    let metadata = json!({"public_metadata": {"a": 1, "b": null}, "private_metadata": {"b": 2}});
    let merged = with_body(&simulator, "PATCH", &format!("{path}/metadata"), metadata.clone()).await.json();
    assert_eq!(merged["private_metadata"], json!({"a": 1, "b": 2}));
    let replaced = with_body(&simulator, "PUT", &format!("{path}/metadata"), metadata).await.json();
    assert_eq!((&replaced["private_metadata"], &replaced["name"]), (&json!({"b": 2}), &json!("Acme")));

    let gone = send(&simulator, Method::DELETE, &path, KEY, None).await.json();
    assert_eq!(gone, json!({"object": "organization", "id": id, "slug": "acme", "deleted": true}));
    for path in [path.as_str(), "/v1/organizations/acme", "/v1/organizations/org_2abc"] {
        assert_eq!(get(&simulator, path).await.code(), "resource_not_found");
    }
    for (body, code) in [
        (json!({}), "form_param_missing"),
        (json!({"name": "A", "created_by": "user_x"}), "resource_not_found"),
        (json!({"name": "A", "slug": "a b"}), "form_param_format_invalid"),
        (json!({"name": "A", "public_metadata": 1}), "form_param_format_invalid"),
    ] {
        assert_eq!(post(&simulator, "/v1/organizations", body).await.code(), code);
    }
}

#[tokio::test(start_paused = true)]
async fn members_join_change_and_leave() {
    let simulator = generous();
    let body = json!({"name": "Acme", "max_allowed_memberships": 2});
    let made = post(&simulator, "/v1/organizations", body).await.json();
    let path = format!("/v1/organizations/{}/memberships", made["id"].as_str().unwrap());
    let [a, b, c] = [1, 2, 3].map(|number| simulator.user_id(number).unwrap());
    let joined = post(&simulator, &path, json!({"user_id": a, "role": "org:member"})).await.json();
    assert_eq!(joined["public_user_data"]["user_id"], a.as_str());
    let member = |user: &str| json!({"user_id": user, "role": "org:member"});
    for (body, status, code) in [
        (member(&a), 400, "already_a_member_in_organization"),
        (member("user_x"), 404, "resource_not_found"),
        (json!({"user_id": b}), 422, "form_param_missing"),
    ] {
        let answer = post(&simulator, &path, body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
    }
    post(&simulator, &path, member(&b)).await;
    let full = post(&simulator, &path, member(&c)).await;
    assert_eq!((full.status.as_u16(), full.code().as_str()), (403, "organization_membership_quota_exceeded"));

    let own = format!("{path}/{a}");
    let admin = with_body(&simulator, "PATCH", &own, json!({"role": "org:admin"})).await.json();
    assert_eq!((&admin["role"], &admin["role_name"]), (&json!("org:admin"), &json!("admin")));
    let metadata = json!({"public_metadata": {"a": 1, "b": null}});
    let changed = with_body(&simulator, "PATCH", &format!("{own}/metadata"), metadata).await.json();
    assert_eq!((&changed["public_metadata"], &changed["role"]), (&json!({"a": 1}), &json!("org:admin")));
    let found = get(&simulator, &format!("{path}?user_id={a}&query=1@example.com")).await.json();
    assert_eq!(found["total_count"], 1);
    let left = send(&simulator, Method::DELETE, &own, KEY, None).await.json();
    assert_eq!(left["id"], admin["id"]);
    assert_eq!(send(&simulator, Method::DELETE, &own, KEY, None).await.status, StatusCode::NOT_FOUND);
    send(&simulator, Method::DELETE, &format!("/v1/users/{b}"), KEY, None).await;
    assert_eq!(get(&simulator, &path).await.json()["total_count"], 0, "a deleted user is no member");
}

#[tokio::test(start_paused = true)]
async fn users_are_filtered_by_their_organizations() {
    let simulator = generous();
    let mut paths = Vec::new();
    for (name, numbers) in [("A", [1, 2, 3]), ("B", [3, 4, 5])] {
        let made = post(&simulator, "/v1/organizations", json!({"name": name})).await.json();
        let id = made["id"].as_str().unwrap().to_owned();
        for number in numbers {
            let body = json!({"user_id": simulator.user_id(number).unwrap(), "role": "org:member"});
            post(&simulator, &format!("/v1/organizations/{id}/memberships"), body).await;
        }
        paths.push(id);
    }
    let (a, b) = (&paths[0], &paths[1]);
    for (query, expected) in [
        (format!("organization_id={a}"), vec![1, 2, 3]),
        (format!("organization_id={a}&organization_id={b}"), vec![1, 2, 3, 4, 5]),
        (format!("organization_id={a}&organization_id=-{b}"), vec![1, 2]),
        (format!("organization_id={a}&user_id={}", simulator.user_id(2).unwrap()), vec![2]),
        ("organization_id=org_unknown".to_owned(), vec![]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|number| simulator.user_id(number).unwrap()).collect();
        let path = format!("/v1/users?order_by=created_at&{query}");
        assert_eq!(get(&simulator, &path).await.ids(), expected, "{query}");
        let count = get(&simulator, &format!("/v1/users/count?{query}")).await.json();
        assert_eq!(count["total_count"], expected.len(), "{query}");
    }
    let others = get(&simulator, &format!("/v1/users/count?organization_id=-{a}")).await.json();
    assert_eq!(others["total_count"], 997);
}
