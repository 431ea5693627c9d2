//! Injected faults.

use super::*;

async fn get_with(fault: Fault) -> (Simulator, Answer) {
    let simulator = Simulator::new(options());
    simulator.set_faults(fault.times(1).into()).unwrap();
    let answer = get(&simulator, "/v1/users/count").await;
    (simulator, answer)
}

/// Returns the remaining quota after one more request, which no fault affects.
async fn remaining_after_next(simulator: &Simulator) -> String {
    let answer = get(simulator, "/v1/users/count").await;
    assert_eq!(answer.status, StatusCode::OK);
    answer.header("x-ratelimit-remaining").unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn clerk_errors_are_counted_and_edge_pages_are_not() {
    for (status, code) in [(500, "internal_clerk_error"), (503, "service_unavailable"), (504, "gateway_timeout")] {
        let (simulator, answer) = get_with(Fault::Status { status, body: FaultBody::Clerk }).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.code(), code);
        assert_eq!(answer.header("x-ratelimit-remaining"), Some("99"));
        assert_eq!(remaining_after_next(&simulator).await, "98");
    }
    for (status, body, content_type) in [
        (521, FaultBody::Html, "text/html; charset=UTF-8"),
        (200, FaultBody::Html, "text/html; charset=UTF-8"),
        (502, FaultBody::Empty, "application/json"),
        (200, FaultBody::Empty, "application/json"),
    ] {
        let (simulator, answer) = get_with(Fault::Status { status, body }).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.header("content-type"), Some(content_type));
        assert_eq!(answer.body.is_empty(), body == FaultBody::Empty);
        assert_eq!(answer.header("x-ratelimit-remaining"), None);
        assert_eq!(remaining_after_next(&simulator).await, "99");
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_fault_has_any_retry_after_and_body() {
    let throttled =
        |retry_after: Option<&str>, body| Fault::Throttled { retry_after: retry_after.map(Into::into), body };
    let (simulator, answer) = get_with(throttled(Some("0"), FaultBody::Clerk)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.code(), "too_many_requests");
    assert_eq!(answer.header("retry-after"), Some("0"));
    assert_eq!(remaining_after_next(&simulator).await, "99");
    let (_, answer) = get_with(throttled(None, FaultBody::Html)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.body.starts_with(b"<!DOCTYPE html>"));
    assert_eq!(answer.header("retry-after"), None);
}

#[tokio::test(start_paused = true)]
async fn latency_delays_the_response_in_paused_time() {
    let simulator = Simulator::new(options());
    simulator.set_faults(Fault::Latency { millis: 12_000 }.always().into()).unwrap();
    let before = simulator.now();
    let answer = get(&simulator, "/v1/users/count").await;
    assert_eq!(simulator.now().duration_since(before).unwrap(), Duration::from_secs(12));
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("x-ratelimit-reset"), Some("8"), "counted when it was processed");
}

#[tokio::test(start_paused = true)]
async fn reset_breaks_the_body_after_the_write_is_done() {
    let simulator = Simulator::new(options());
    let path = format!("/v1/users/{}", simulator.user_id(0).unwrap());
    let rule = FaultRule { counted: Some(true), ..Fault::Reset { after_bytes: 3 }.times(1) };
    simulator.set_faults(rule.into()).unwrap();
    let request = Request::patch(&path).header("authorization", "Bearer sk_test_key");
    let request = request.body(Body::from(r#"{"first_name":"Lost"}"#)).unwrap();
    let response = simulator.router().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], "4");
    assert!(to_bytes(response.into_body(), 1 << 20).await.is_err());
    assert_eq!(get(&simulator, &path).await.json()["first_name"], "Lost");
}

#[tokio::test(start_paused = true)]
async fn malformed_quota_headers_on_a_correct_response() {
    let (simulator, answer) = get_with(Fault::MalformedQuotaHeaders {}).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("x-ratelimit-limit"), Some("plenty"));
    assert_eq!(remaining_after_next(&simulator).await, "98");
}

#[tokio::test(start_paused = true)]
async fn huge_bodies_are_plain_or_compressed() {
    let (_, answer) = get_with(Fault::HugeBody { bytes: 3_000_000 }).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body.len(), 3_000_000);
    let (_, answer) = get_with(Fault::GzipBomb { bytes: 30_000_000 }).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.body.starts_with(&[0x1f, 0x8b]));
    assert!(answer.body.len() < 300_000, "{}", answer.body.len());
}

#[tokio::test(start_paused = true)]
async fn redirect_has_the_given_location() {
    let (simulator, answer) = get_with(Fault::Redirect { location: "http://127.0.0.1:1/else".into() }).await;
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(answer.header("location"), Some("http://127.0.0.1:1/else"));
    assert_eq!(remaining_after_next(&simulator).await, "99");
}

#[tokio::test(start_paused = true)]
async fn exceeded_plan_quota_is_a_403() {
    let (simulator, answer) = get_with(Fault::QuotaExceeded { code: "user_quota_exceeded".into() }).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.code(), "user_quota_exceeded");
    assert_eq!(remaining_after_next(&simulator).await, "98");
}

#[tokio::test(start_paused = true)]
async fn clock_skew_shifts_date_and_absolute_resets_only() {
    let headers = HeaderProfile::XRateLimitEpoch;
    let simulator = Simulator::new(options().headers(headers));
    simulator.set_faults(Faults { clock_skew_seconds: -3_600, ..Faults::default() }).unwrap();
    let answer = get(&simulator, "/v1/users/count").await;
    assert_eq!(answer.header("date"), Some("Wed, 25 Nov 2026 11:00:00 GMT"));
    assert_eq!(answer.header("x-ratelimit-reset"), Some("1795604410"));
    assert_eq!(simulator.truth().instances[0].buckets[0].windows[0].start, base());
}

#[tokio::test(start_paused = true)]
async fn limiter_precedes_a_counted_fault() {
    let simulator = Simulator::new(options().limits(vec!["instance=1/10s".parse().unwrap()]));
    let fault = Fault::Status { status: 500, body: FaultBody::Clerk };
    simulator.set_faults(fault.always().into()).unwrap();
    assert_eq!(get(&simulator, "/v1/users/count").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&simulator, "/v1/users/count").await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn faults_are_changed_over_http() {
    let simulator = Simulator::new(options());
    let control = |method: &str, body: Value| {
        let (simulator, method) = (simulator.clone(), method.parse().unwrap());
        async move { send(&simulator, method, "/_simulator/faults", "", Some(body)).await }
    };
    let rule = |status: u16| json!({"rules": [{"fault": {"kind": "status", "status": status}, "times": 1}]});
    assert_eq!(control("POST", rule(500)).await.status, StatusCode::OK);
    assert_eq!(control("POST", rule(503)).await.json()["rules"].as_array().unwrap().len(), 2);
    assert_eq!(get(&simulator, "/v1/users/count").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&simulator, "/v1/users/count").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&simulator, "/v1/users/count").await.status, StatusCode::OK);
    assert_eq!(control("PUT", rule(504)).await.json()["rules"].as_array().unwrap().len(), 1);
    assert_eq!(control("GET", json!({})).await.json()["rules"][0]["fault"]["status"], 504);
    assert_eq!(control("DELETE", json!({})).await.json()["rules"], json!([]));

    let wrong = json!({"rules": [{"fault": {"kind": "status", "status": 302}}]});
    let answer = control("POST", wrong).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.json()["error"].as_str().unwrap().contains("fault rule 0"));
    let answer = control("POST", json!({"rulez": []})).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.json()["error"].as_str().unwrap().contains("rulez"));
    assert!(simulator.faults().rules.is_empty());
}

#[tokio::test(start_paused = true)]
async fn control_endpoints_have_no_faults_and_a_help() {
    let simulator = Simulator::new(options());
    simulator.set_faults(Fault::Reset { after_bytes: 0 }.always().into()).unwrap();
    let help = send(&simulator, Method::GET, "/_simulator/", "", None).await;
    assert_eq!(help.json()["limiter"], "fixed");
    // Every fault in the help is accepted by the endpoint.
    for fault in help.json()["faults"].as_array().unwrap() {
        let mut fault = fault.clone();
        if let Some(body) = fault.get_mut("body") {
            *body = json!("html");
        }
        let body = json!({"rules": [{"fault": fault}]});
        let answer = send(&simulator, Method::PUT, "/_simulator/faults", "", Some(body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{fault}");
    }
    let answer = send(&simulator, Method::GET, "/_simulator/nothing", "", None).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(simulator.truth().requests.total, 0);
}
