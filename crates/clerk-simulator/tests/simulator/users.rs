//! Listing, finding and changing users.

use super::*;

#[tokio::test(start_paused = true)]
async fn seed_decides_the_users() {
    let list = |seed| async move {
        let simulator = Simulator::new(options().seed(seed));
        get(&simulator, "/v1/users?limit=50").await.body
    };
    assert_eq!(list(3).await, list(3).await);
    assert_ne!(list(3).await, list(4).await);
}

#[tokio::test(start_paused = true)]
async fn user_has_the_fields_that_the_sdks_need() {
    let simulator = Simulator::new(options());
    let id = simulator.user_id(7).unwrap();
    assert_eq!(id.len(), 32);
    let user = get(&simulator, &format!("/v1/users/{id}")).await.json();
    assert_eq!(user["id"], id.as_str());
    assert_eq!(user["object"], "user");
    assert_eq!(user["email_addresses"][0]["id"], user["primary_email_address_id"]);
    assert!(user["email_addresses"][0]["email_address"].as_str().unwrap().ends_with(".7@example.com"));
    assert!(user["created_at"].as_i64().unwrap() < user["updated_at"].as_i64().unwrap());
    assert_eq!(user["public_metadata"], json!({}));
    assert_eq!(user["phone_numbers"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn pages_by_offset_and_cursor_list_each_user_once() {
    let simulator = generous();
    let everyone: Vec<_> = (0..1_000).rev().map(|number| simulator.user_id(number).unwrap()).collect();
    let mut by_offset = Vec::new();
    for offset in (0..1_000).step_by(300) {
        by_offset.extend(get(&simulator, &format!("/v1/users?limit=300&offset={offset}")).await.ids());
    }
    assert_eq!(by_offset, everyone);
    for (order, reversed) in [("-created_at", false), ("created_at", true)] {
        let mut by_cursor: Vec<String> = Vec::new();
        loop {
            let after = by_cursor.last().map(|id| format!("&starting_after={id}")).unwrap_or_default();
            let page = get(&simulator, &format!("/v1/users?limit=300&order_by={order}{after}")).await.ids();
            if page.is_empty() {
                break;
            }
            by_cursor.extend(page);
        }
        if reversed {
            by_cursor.reverse();
        }
        assert_eq!(by_cursor, everyone, "{order}");
    }
    assert!(get(&simulator, "/v1/users?offset=1000").await.ids().is_empty());
    assert!(get(&simulator, "/v1/users?offset=4294967295").await.ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn page_has_ten_users_by_default_even_for_more_ids() {
    let simulator = generous();
    assert_eq!(get(&simulator, "/v1/users").await.ids().len(), 10);
    let ids: Vec<_> = (0..30).map(|number| simulator.user_id(number).unwrap()).collect();
    let repeated = ids.iter().map(|id| format!("user_id={id}")).collect::<Vec<_>>().join("&");
    assert_eq!(get(&simulator, &format!("/v1/users?{repeated}")).await.ids().len(), 10);
    let mut found = get(&simulator, &format!("/v1/users?limit=100&{repeated}")).await.ids();
    found.reverse();
    assert_eq!(found, ids);
    let listed = format!("/v1/users?limit=100&user_id={}", ids.join(","));
    assert_eq!(get(&simulator, &listed).await.ids().len(), 30);
}

#[tokio::test(start_paused = true)]
async fn unknown_ids_are_omitted_and_minus_excludes() {
    let simulator = generous();
    let [a, b] = [1, 2].map(|number| simulator.user_id(number).unwrap());
    let path = format!("/v1/users?user_id={a}&user_id=%2B{b}&user_id=user_unknown&user_id={a}");
    assert_eq!(get(&simulator, &path).await.ids(), [b.clone(), a.clone()]);
    let path = format!("/v1/users?user_id={a}&user_id={b}&user_id=-{b}");
    assert_eq!(get(&simulator, &path).await.ids(), std::slice::from_ref(&a));
    let count = get(&simulator, &format!("/v1/users/count?user_id=-{a}")).await.json();
    assert_eq!(count["total_count"], 999);
}

#[tokio::test(start_paused = true)]
async fn count_and_list_agree_for_every_filter() {
    let simulator = generous();
    let user = get(&simulator, &format!("/v1/users/{}", simulator.user_id(400).unwrap())).await.json();
    let (created, active) = (user["created_at"].as_i64().unwrap(), user["last_active_at"].as_i64());
    let email = user["email_addresses"][0]["email_address"].as_str().unwrap();
    let username = user["username"].as_str().unwrap();
    let month_ago = (1_795_608_000 - 30 * 86_400) * 1_000_i64;
    for (filter, expected) in [
        (String::new(), Some(1_000)),
        (format!("created_at_after={created}"), Some(599)),
        (format!("created_at_before={created}"), Some(400)),
        (format!("created_at_after={created}&created_at_before={created}"), Some(0)),
        (format!("email_address={email}"), Some(1)),
        (format!("email_address={email}&created_at_after={created}"), Some(0)),
        (format!("username={username}"), Some(1)),
        ("external_id=legacy-400&external_id=legacy-401".into(), Some(1)),
        ("email_address_query=.400@EXAMPLE".into(), Some(1)),
        (format!("username_query={username}"), Some(1)),
        (format!("query={}", simulator.user_id(3).unwrap()), Some(1)),
        (format!("last_active_at_since={month_ago}"), None),
        (format!("last_active_at_since={}", active.unwrap_or(0)), None),
        ("banned=true".into(), None),
        ("name_query=Grace".into(), None),
        ("phone_number=%2B15550100".into(), Some(0)),
        ("organization_id=org_a".into(), Some(0)),
    ] {
        let count = get(&simulator, &format!("/v1/users/count?{filter}")).await.json();
        let count = usize::try_from(count["total_count"].as_u64().unwrap()).unwrap();
        let mut listed = 0;
        for offset in [0, 500] {
            listed += get(&simulator, &format!("/v1/users?limit=500&offset={offset}&{filter}")).await.ids().len();
        }
        assert_eq!(count, listed, "{filter}");
        match expected {
            Some(expected) => assert_eq!(count, expected, "{filter}"),
            None => assert!((1..1_000).contains(&count), "{filter}: {count}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_order_sorts_and_minus_reverses_it() {
    let simulator = generous();
    for field in ["created_at", "updated_at", "last_active_at", "last_sign_in_at", "username", "first_name"] {
        for sign in ["", "-"] {
            let path = format!("/v1/users?limit=500&order_by={sign}{field}");
            let users = get(&simulator, &path).await.json();
            let mut values: Vec<_> = users.as_array().unwrap().iter().map(|user| user[field].clone()).collect();
            if sign == "-" {
                values.reverse();
            }
            let key = |value: &Value| (value.as_i64().unwrap_or(-1), value.as_str().unwrap_or("").to_owned());
            assert!(values.is_sorted_by_key(key), "{sign}{field}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_parameters_are_rejected_by_name() {
    let simulator = generous();
    for (query, parameter) in
        [("limit=501", "limit"), ("offset=-1", "offset"), ("starting_after=user_x", "starting_after")]
    {
        let answer = get(&simulator, &format!("/v1/users?{query}")).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.code().starts_with("form_param_"));
        assert_eq!(answer.json()["errors"][0]["meta"]["param_name"], parameter);
    }
}

#[tokio::test(start_paused = true)]
async fn user_changes_apply_to_their_instance_only() {
    let simulator = generous();
    let path = format!("/v1/users/{}", simulator.user_id(9).unwrap());
    let body = json!({"first_name": "Zoë", "last_name": null, "username": "zoe", "public_metadata": {"a": 1}});
    let answer = with_body(&simulator, "PATCH", &path, body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let user = get(&simulator, &path).await.json();
    assert_eq!(user, answer.json());
    assert_eq!((&user["first_name"], &user["last_name"]), (&json!("Zoë"), &Value::Null));
    assert_eq!(user["updated_at"], 1_795_608_000_000_i64);
    assert_eq!(get(&simulator, "/v1/users?username=zoe").await.ids().len(), 1);
    assert_eq!(get(&simulator, "/v1/users?name_query=zo%C3%AB").await.ids().len(), 1);
    let elsewhere = send(&simulator, Method::GET, &path, "sk_test_other", None).await.json();
    assert_ne!(elsewhere["first_name"], "Zoë");

    let metadata = format!("{path}/metadata");
    let merged = with_body(&simulator, "PATCH", &metadata, json!({"public_metadata": {"b": 2}})).await.json();
    assert_eq!(merged["public_metadata"], json!({"a": 1, "b": 2}));
    let replaced = with_body(&simulator, "PUT", &metadata, json!({"public_metadata": {"c": 3}})).await.json();
    assert_eq!(replaced["public_metadata"], json!({"c": 3}));

    simulator.reset();
    assert_ne!(get(&simulator, &path).await.json()["first_name"], "Zoë");
}
