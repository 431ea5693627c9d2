//! What all responses have in common, and which keys are accepted.

use super::*;

#[tokio::test(start_paused = true)]
async fn response_has_the_headers_that_clerk_sends() {
    let simulator = Simulator::new(options());
    let answer = get(&simulator, "/v1/users/count").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json(), json!({"object": "total_count", "total_count": 1_000}));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("date"), Some("Wed, 25 Nov 2026 12:00:00 GMT"));
    assert_eq!(answer.header("server"), Some("cloudflare"));
    assert_eq!(answer.header("cf-cache-status"), Some("DYNAMIC"));
    for name in ["cf-ray", "x-clerk-trace-id", "x-cloud-trace-context", "clerk-api-version", "x-cfworker", "vary"] {
        assert!(answer.header(name).is_some(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn date_header_follows_paused_time() {
    let simulator = Simulator::new(options());
    tokio::time::advance(Duration::from_secs(65)).await;
    let answer = get(&simulator, "/v1/users/count").await;
    assert_eq!(answer.header("date"), Some("Wed, 25 Nov 2026 12:01:05 GMT"));
}

#[tokio::test(start_paused = true)]
async fn trace_id_is_unique_and_repeated_in_error_bodies() {
    let simulator = Simulator::new(options());
    let (first, second) = (get(&simulator, "/v1/nothing").await, get(&simulator, "/v1/nothing").await);
    assert_eq!(first.header("x-clerk-trace-id"), first.json()["clerk_trace_id"].as_str());
    assert_ne!(first.header("x-clerk-trace-id"), second.header("x-clerk-trace-id"));
}

#[tokio::test(start_paused = true)]
async fn requested_api_version_is_echoed() {
    let request = Request::get("/v1/jwks")
        .header("authorization", "Bearer sk_test_key")
        .header("clerk-api-version", "2025-04-10")
        .body(Body::empty())
        .unwrap();
    let response = Simulator::new(options()).router().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["clerk-api-version"], "2025-04-10");
}

#[tokio::test(start_paused = true)]
async fn head_has_the_length_without_a_body_and_is_counted() {
    let simulator = Simulator::new(options());
    let answer = send(&simulator, Method::HEAD, "/v1/users/count", KEY, None).await;
    assert!(answer.body.is_empty());
    assert_eq!(answer.header("content-length"), Some("43"));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("99"));
}

#[tokio::test(start_paused = true)]
async fn missing_or_unknown_key_is_rejected_and_not_counted() {
    let simulator = Simulator::new(options().keys(vec!["sk_test_key".parse().unwrap()]));
    for path in ["/v1/jwks", "/v1/users/count", "/v1/nothing"] {
        let answer = send(&simulator, Method::GET, path, "", None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.code(), "authorization_header_format_invalid");
        let answer = send(&simulator, Method::GET, path, "sk_test_other", None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.code(), "clerk_key_invalid");
        assert_eq!(answer.header("x-ratelimit-limit"), None);
    }
    assert_eq!(get(&simulator, "/v1/users/count").await.header("x-ratelimit-remaining"), Some("99"));
    assert_eq!(simulator.truth().requests.by_status[&401], 6);
}

#[tokio::test(start_paused = true)]
async fn missing_resource_is_a_clerk_404() {
    let simulator = Simulator::new(options());
    for path in ["/v1/nothing", "/v1/users/user_2abc", "/v1/users/", "/elsewhere"] {
        let answer = get(&simulator, path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.code(), "resource_not_found", "{path}");
        assert!(answer.json()["errors"][0]["long_message"].is_string());
    }
}

#[tokio::test(start_paused = true)]
async fn instance_endpoint_reports_environment_and_shared_id() {
    let keys = ["prod=sk_live_a", "prod=sk_live_b", "dev=sk_test_c"].map(|key| key.parse().unwrap());
    let simulator = Simulator::new(options().keys(keys.to_vec()));
    let mut seen = Vec::new();
    for key in ["sk_live_a", "sk_live_b", "sk_test_c"] {
        let json = send(&simulator, Method::GET, "/v1/instance", key, None).await.json();
        assert_eq!(json["object"], "instance");
        let environment = if key.starts_with("sk_live") { "production" } else { "development" };
        assert_eq!(json["environment_type"], environment);
        seen.push(json["id"].as_str().unwrap().to_owned());
    }
    assert!(seen[0].starts_with("ins_") && seen[0].len() == 31);
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
}

#[tokio::test(start_paused = true)]
async fn too_large_body_is_rejected() {
    let body = json!({"first_name": "x".repeat(2 << 20)});
    let simulator = Simulator::new(options());
    let path = format!("/v1/users/{}", simulator.user_id(0).unwrap());
    let answer = with_body(&simulator, "PATCH", &path, body).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.code(), "request_body_too_large");
}
