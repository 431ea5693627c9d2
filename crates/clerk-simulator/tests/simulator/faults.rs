//! What goes wrong on command.

use super::*;

async fn meet(fault: Fault) -> (Simulator, Answer) {
    let simulator = Simulator::new(options());
    simulator.set_faults(fault.times(1).into()).unwrap();
    let answer = get(&simulator, "/v1/users/count").await;
    (simulator, answer)
}

/// What is left after one more request, which no fault meets.
async fn then_left(simulator: &Simulator) -> String {
    let answer = get(simulator, "/v1/users/count").await;
    assert_eq!(answer.status, StatusCode::OK);
    answer.header("x-ratelimit-remaining").unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn errors_of_clerk_are_counted_and_pages_of_the_edge_are_not() {
    for (status, code) in [(500, "internal_clerk_error"), (503, "service_unavailable"), (504, "gateway_timeout")] {
        let (simulator, answer) = meet(Fault::Status { status, body: FaultBody::Clerk }).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.code(), code);
        assert_eq!(answer.header("x-ratelimit-remaining"), Some("99"));
        assert_eq!(then_left(&simulator).await, "98");
    }
    for (status, body, content_type) in [
        (521, FaultBody::Html, "text/html; charset=UTF-8"),
        (200, FaultBody::Html, "text/html; charset=UTF-8"),
        (502, FaultBody::Empty, "application/json"),
        (200, FaultBody::Empty, "application/json"),
    ] {
        let (simulator, answer) = meet(Fault::Status { status, body }).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.header("content-type"), Some(content_type));
        assert_eq!(answer.body.is_empty(), body == FaultBody::Empty);
        assert_eq!(answer.header("x-ratelimit-remaining"), None);
        assert_eq!(then_left(&simulator).await, "99");
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_can_come_with_any_retry_after_and_any_body() {
    let throttled =
        |retry_after: Option<&str>, body| Fault::Throttled { retry_after: retry_after.map(Into::into), body };
    let (simulator, answer) = meet(throttled(Some("0"), FaultBody::Clerk)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.code(), "too_many_requests");
    assert_eq!(answer.header("retry-after"), Some("0"));
    assert_eq!(then_left(&simulator).await, "99");
    let (_, answer) = meet(throttled(None, FaultBody::Html)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.body.starts_with(b"<!DOCTYPE html>"));
    assert_eq!(answer.header("retry-after"), None);
}

#[tokio::test(start_paused = true)]
async fn latency_delays_the_answer_by_paused_time() {
    let simulator = Simulator::new(options());
    simulator.set_faults(Fault::Latency { millis: 12_000 }.always().into()).unwrap();
    let before = simulator.now();
    let answer = get(&simulator, "/v1/users/count").await;
    assert_eq!(simulator.now().duration_since(before).unwrap(), Duration::from_secs(12));
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("x-ratelimit-reset"), Some("8"), "counted when it was processed");
}

#[tokio::test(start_paused = true)]
async fn a_reset_breaks_the_body_and_can_lose_the_answer_to_a_write_that_was_done() {
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
async fn quota_headers_can_be_unreadable_on_an_answer_that_is_right() {
    let (simulator, answer) = meet(Fault::MalformedQuotaHeaders {}).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("x-ratelimit-limit"), Some("plenty"));
    assert_eq!(then_left(&simulator).await, "98");
}

#[tokio::test(start_paused = true)]
async fn a_body_can_be_huge_plain_or_compressed() {
    let (_, answer) = meet(Fault::HugeBody { bytes: 3_000_000 }).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body.len(), 3_000_000);
    let (_, answer) = meet(Fault::GzipBomb { bytes: 30_000_000 }).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.body.starts_with(&[0x1f, 0x8b]));
    assert!(answer.body.len() < 300_000, "{}", answer.body.len());
}

#[tokio::test(start_paused = true)]
async fn a_redirect_leads_where_it_says() {
    let (simulator, answer) = meet(Fault::Redirect { location: "http://127.0.0.1:1/else".into() }).await;
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(answer.header("location"), Some("http://127.0.0.1:1/else"));
    assert_eq!(then_left(&simulator).await, "99");
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_the_plan_is_a_403() {
    let (simulator, answer) = meet(Fault::QuotaExceeded { code: "user_quota_exceeded".into() }).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.code(), "user_quota_exceeded");
    assert_eq!(then_left(&simulator).await, "98");
}

#[tokio::test(start_paused = true)]
async fn clock_skew_moves_the_date_and_absolute_resets_but_not_the_windows() {
    let headers = HeaderProfile::XRateLimitEpoch;
    let simulator = Simulator::new(Options { headers, ..options() });
    simulator.set_faults(Faults { clock_skew_seconds: -3_600, ..Faults::default() }).unwrap();
    let answer = get(&simulator, "/v1/users/count").await;
    assert_eq!(answer.header("date"), Some("Wed, 25 Nov 2026 11:00:00 GMT"));
    assert_eq!(answer.header("x-ratelimit-reset"), Some("1795604410"));
    assert_eq!(simulator.truth().instances[0].buckets[0].windows[0].start, base());
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_counts_gives_way_to_the_limiter() {
    let simulator = Simulator::new(Options { limits: vec!["instance=1/10s".parse().unwrap()], ..options() });
    let fault = Fault::Status { status: 500, body: FaultBody::Clerk };
    simulator.set_faults(fault.always().into()).unwrap();
    assert_eq!(get(&simulator, "/v1/users/count").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&simulator, "/v1/users/count").await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn faults_are_commanded_over_http() {
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
async fn control_endpoints_meet_no_faults_and_explain_themselves() {
    let simulator = Simulator::new(options());
    simulator.set_faults(Fault::Reset { after_bytes: 0 }.always().into()).unwrap();
    let help = send(&simulator, Method::GET, "/_simulator/", "", None).await;
    assert_eq!(help.json()["limiter"], "fixed");
    // Every fault in the help is one that the endpoint takes.
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
