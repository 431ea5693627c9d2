//! Creating, changing and deleting users.

use super::*;

async fn created(simulator: &Simulator, body: Value) -> Value {
    let answer = with_body(simulator, "POST", "/v1/users", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
    answer.json()
}

async fn delete(simulator: &Simulator, path: &str) -> Answer {
    send(simulator, Method::DELETE, path, KEY, None).await
}

async fn count(simulator: &Simulator, query: &str) -> u64 {
    get(simulator, &format!("/v1/users/count?{query}")).await.json()["total_count"].as_u64().unwrap()
}

fn id(user: &Value) -> &str {
    user["id"].as_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn created_user_is_in_lists_counts_and_filters() {
    let simulator = generous();
    let body = json!({
        "email_address": ["Zoe@Example.org"], "phone_number": ["+15555550100"], "username": "zoe",
        "external_id": "crm-1", "first_name": "Zoë", "password": "correct horse", "public_metadata": {"plan": "pro"},
    });
    let user = created(&simulator, body).await;
    assert_eq!(user["email_addresses"][0]["email_address"], "Zoe@Example.org");
    assert_eq!(user["phone_numbers"][0]["phone_number"], "+15555550100");
    assert_eq!((&user["last_name"], &user["last_sign_in_at"]), (&Value::Null, &Value::Null));
    assert_eq!(user["public_metadata"], json!({"plan": "pro"}));
    assert_eq!(get(&simulator, &format!("/v1/users/{}", id(&user))).await.json(), user);
    assert_eq!(get(&simulator, "/v1/users?limit=1").await.ids(), [id(&user)], "the newest comes first");
    let known = simulator.user_id(3).unwrap();
    for filter in [
        format!("user_id={}", id(&user)),
        "email_address=zoe@example.org".to_owned(),
        "phone_number=%2B15555550100".to_owned(),
        "phone_number=+15555550100".to_owned(),
        "username=zoe".to_owned(),
        "external_id=crm-1".to_owned(),
        "query=example.org".to_owned(),
        "created_at_after=1795607999999".to_owned(),
    ] {
        assert_eq!(get(&simulator, &format!("/v1/users?{filter}")).await.ids(), [id(&user)], "{filter}");
        assert_eq!(count(&simulator, &filter).await, 1, "{filter}");
    }
    let both = format!("/v1/users?order_by=created_at&user_id={}&user_id={known}", id(&user));
    assert_eq!(get(&simulator, &both).await.ids(), [&known, id(&user)]);
    assert_eq!(count(&simulator, "").await, 1_001);
    assert_eq!(
        send(&simulator, Method::GET, "/v1/users/count", "sk_test_other", None).await.json()["total_count"],
        1_000
    );
    simulator.reset();
    assert_eq!(count(&simulator, "").await, 1_000);
}

#[tokio::test(start_paused = true)]
async fn taken_identifiers_are_rejected_by_name() {
    let simulator = generous();
    let known = get(&simulator, &format!("/v1/users/{}", simulator.user_id(4).unwrap())).await.json();
    let email = known["email_addresses"][0]["email_address"].as_str().unwrap().to_uppercase();
    created(&simulator, json!({"email_address": ["a@example.org"], "phone_number": ["+15555550100"]})).await;
    for (body, parameter) in [
        (json!({"email_address": [email]}), "email_address"),
        (json!({"email_address": ["A@example.org"]}), "email_address"),
        (json!({"phone_number": ["+15555550100"]}), "phone_number"),
        (json!({"username": known["username"]}), "username"),
        (json!({"email_address": ["b@example.org"], "external_id": known["external_id"]}), "external_id"),
    ] {
        let answer = with_body(&simulator, "POST", "/v1/users", body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "form_identifier_exists"), "{body}");
        assert_eq!(answer.json()["errors"][0]["meta"]["param_name"], parameter);
    }
    let other = simulator.user_id(5).unwrap();
    let change = json!({"username": known["username"]});
    let answer = with_body(&simulator, "PATCH", &format!("/v1/users/{other}"), change.clone()).await;
    assert_eq!(answer.code(), "form_identifier_exists");
    let own = with_body(&simulator, "PATCH", &format!("/v1/users/{}", id(&known)), change).await;
    assert_eq!(own.status, StatusCode::OK, "a user keeps its own name");
    assert_eq!(count(&simulator, "").await, 1_001);
}

#[tokio::test(start_paused = true)]
async fn invalid_new_users_are_rejected() {
    let simulator = generous();
    for (body, code) in [
        (json!({}), "form_data_missing"),
        (json!({"email_address": ["no-address"]}), "form_param_format_invalid"),
        (json!({"email_address": [7]}), "form_param_format_invalid"),
        (json!({"phone_number": ["555"]}), "form_param_format_invalid"),
        (json!({"username": "x", "password": "short"}), "form_password_length_too_short"),
        (json!([]), "request_body_invalid"),
    ] {
        assert_eq!(with_body(&simulator, "POST", "/v1/users", body.clone()).await.code(), code, "{body}");
    }
    created(&simulator, json!({"username": "x", "password": "short", "skip_password_checks": true})).await;
    created(&simulator, json!({"skip_user_requirement": true})).await;
    assert_eq!(count(&simulator, "").await, 1_002);
}

#[tokio::test(start_paused = true)]
async fn deleted_user_is_nowhere() {
    let simulator = generous();
    let [first, generated, last] = [0, 500, 999].map(|number| simulator.user_id(number).unwrap());
    let user = get(&simulator, &format!("/v1/users/{generated}")).await.json();
    let new = created(&simulator, json!({"email_address": ["a@example.org"]})).await;
    for id in [generated.as_str(), id(&new), &first, &last] {
        let gone = delete(&simulator, &format!("/v1/users/{id}")).await.json();
        assert_eq!(gone, json!({"object": "user", "id": id, "deleted": true}));
        for answer in [
            get(&simulator, &format!("/v1/users/{id}")).await,
            delete(&simulator, &format!("/v1/users/{id}")).await,
            with_body(&simulator, "PATCH", &format!("/v1/users/{id}"), json!({"first_name": "A"})).await,
        ] {
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
        }
        assert!(get(&simulator, &format!("/v1/users?user_id={id}")).await.ids().is_empty());
    }
    let email = user["email_addresses"][0]["email_address"].as_str().unwrap();
    assert_eq!(count(&simulator, &format!("email_address={email}")).await, 0);
    assert_eq!(count(&simulator, "").await, 997);
    let listed = get(&simulator, "/v1/users?limit=500").await.ids();
    let rest = get(&simulator, &format!("/v1/users?limit=500&starting_after={}", listed[499])).await.ids();
    let expected: Vec<_> =
        (1..999).rev().filter(|number| *number != 500).map(|number| simulator.user_id(number).unwrap()).collect();
    assert_eq!([listed, rest].concat(), expected);
    // The names are free again.
    created(&simulator, json!({"email_address": [email]})).await;
    created(&simulator, json!({"email_address": ["a@example.org"]})).await;
}

#[tokio::test(start_paused = true)]
async fn users_are_banned_and_locked() {
    let simulator = generous();
    let user = (0..1_000).map(|number| simulator.user_id(number).unwrap()).nth(1).unwrap();
    let banned = count(&simulator, "banned=true").await;
    for (action, field, expected) in
        [("ban", "banned", true), ("lock", "locked", true), ("unban", "banned", false), ("unlock", "locked", false)]
    {
        let answer = send(&simulator, Method::POST, &format!("/v1/users/{user}/{action}"), KEY, None).await;
        assert_eq!(answer.json()[field], expected, "{action}");
        let now = count(&simulator, "banned=true").await;
        assert_eq!(now - banned, u64::from(answer.json()["banned"] == true), "{action}");
    }
    let unknown = send(&simulator, Method::POST, "/v1/users/user_x/ban", KEY, None).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn pages_stay_complete_beside_changes() {
    let simulator = generous();
    let mut expected: Vec<String> = (0..1_000).map(|number| simulator.user_id(number).unwrap()).collect();
    for number in 0..30 {
        let user = created(&simulator, json!({"email_address": [format!("n{number}@example.org")]})).await;
        expected.push(id(&user).to_owned());
    }
    for place in [1_015, 999, 998, 400, 0] {
        delete(&simulator, &format!("/v1/users/{}", expected.remove(place))).await;
    }
    for order in ["created_at", "updated_at", "username"] {
        let mut seen = Vec::new();
        for offset in [0, 400, 800] {
            let path = format!("/v1/users?limit=400&order_by={order}&offset={offset}");
            seen.extend(get(&simulator, &path).await.ids());
        }
        if order != "created_at" {
            seen.sort_by_key(|id| expected.iter().position(|known| known == id));
        }
        assert_eq!(seen, expected, "{order}");
    }
}
