//! The limit of each bucket, and what responses report about it.

use super::*;

/// Sends until the first rejection; returns how many were admitted.
async fn admitted(simulator: &Simulator, method: &str, path: &str, key: &str, most: u32) -> u32 {
    for count in 0..most {
        let answer = send(simulator, method.parse().unwrap(), path, key, Some(json!({}))).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(answer.code(), "too_many_requests");
            assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
            let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=3_600).contains(&retry_after));
            return count;
        }
    }
    most
}

#[tokio::test(start_paused = true)]
async fn each_bucket_has_clerks_published_limit() {
    let simulator = Simulator::new(options());
    let user = simulator.user_id(0).unwrap();
    let user_path = format!("/v1/users/{user}");
    let membership = format!("/v1/organizations/org_a/memberships/{user}");
    for (method, path, limit) in [
        ("GET", "/v1/users/count", 100),
        ("POST", "/v1/invitations", 100),
        ("POST", "/v1/invitations/bulk", 25),
        ("POST", "/v1/organizations/org_a/invitations", 250),
        ("POST", "/v1/organizations/org_b/invitations/bulk", 50),
        ("PATCH", &user_path, 10),
        ("PATCH", "/v1/organizations/org_a", 10),
        ("PATCH", &membership, 10),
    ] {
        assert_eq!(admitted(&simulator, method, path, KEY, 300).await, limit, "{method} {path}");
    }
    // An exhausted bucket does not block another one. Organization invitations share one bucket per instance.
    let other = format!("/v1/users/{}", simulator.user_id(1).unwrap());
    assert_eq!(admitted(&simulator, "PATCH", &other, KEY, 300).await, 10);
    assert_eq!(admitted(&simulator, "POST", "/v1/organizations/org_c/invitations", KEY, 300).await, 0);
    let answer = with_body(&simulator, "PUT", &format!("{user_path}/metadata"), json!({})).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "metadata shares the user's bucket");
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_production_instance_share_its_limit() {
    let keys = ["prod=sk_live_a", "prod=sk_live_b"].map(|key| key.parse().unwrap());
    let simulator = Simulator::new(options().keys(keys.to_vec()));
    assert_eq!(admitted(&simulator, "GET", "/v1/users/count", "sk_live_a", 600).await, 600);
    assert_eq!(admitted(&simulator, "GET", "/v1/users/count", "sk_live_b", 600).await, 400);
}

#[tokio::test(start_paused = true)]
async fn rejected_request_consumes_nothing() {
    let simulator = Simulator::new(options().plan(Some(Plan::Free)));
    tokio::time::advance(Duration::from_millis(8_200)).await;
    assert_eq!(admitted(&simulator, "GET", "/v1/users/count", KEY, 100).await, 20);
    let refused = get(&simulator, "/v1/users/count").await;
    assert_eq!(refused.header("retry-after"), Some("2"));
    assert_eq!(refused.header("x-ratelimit-reset"), Some("2"));
    tokio::time::advance(Duration::from_millis(1_800)).await;
    assert_eq!(admitted(&simulator, "GET", "/v1/users/count", KEY, 100).await, 20);
}

#[tokio::test(start_paused = true)]
async fn token_bucket_admits_the_burst_then_the_rate() {
    let limiter = LimiterKind::TokenBucket { burst: None };
    let simulator = Simulator::new(options().limiter(limiter).plan(Some(Plan::Free)));
    assert_eq!(admitted(&simulator, "GET", "/v1/users/count", KEY, 100).await, 40);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(admitted(&simulator, "GET", "/v1/users/count", KEY, 100).await, 10);
}

#[tokio::test(start_paused = true)]
async fn sliding_window_counts_across_the_boundary() {
    let limiter = LimiterKind::SlidingWindow;
    let simulator = Simulator::new(options().limiter(limiter).plan(Some(Plan::Free)));
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(admitted(&simulator, "GET", "/v1/users/count", KEY, 100).await, 20);
    tokio::time::advance(Duration::from_secs(2)).await;
    let refused = get(&simulator, "/v1/users/count").await;
    assert_eq!(refused.header("retry-after"), Some("8"));
    tokio::time::advance(Duration::from_secs(8)).await;
    assert_eq!(admitted(&simulator, "GET", "/v1/users/count", KEY, 100).await, 20);
}

#[tokio::test(start_paused = true)]
async fn header_profile_decides_the_quota_headers() {
    for (headers, present, absent) in [
        (HeaderProfile::None, vec![], vec!["x-ratelimit-limit", "ratelimit"]),
        (HeaderProfile::XRateLimit, vec![("x-ratelimit-limit", "100"), ("x-ratelimit-reset", "10")], vec!["ratelimit"]),
        (HeaderProfile::XRateLimitEpoch, vec![("x-ratelimit-reset", "1795608010")], vec!["ratelimit"]),
        (
            HeaderProfile::Ietf,
            vec![("ratelimit", "\"instance\";r=99;t=10"), ("ratelimit-policy", "\"instance\";q=100;w=10")],
            vec!["x-ratelimit-limit"],
        ),
    ] {
        let simulator = Simulator::new(options().headers(headers));
        let answer = get(&simulator, "/v1/users/count").await;
        for (name, value) in present {
            assert_eq!(answer.header(name), Some(value), "{headers}");
        }
        for name in absent {
            assert_eq!(answer.header(name), None, "{headers}");
        }
        assert_eq!(answer.header("retry-after"), None);
        admitted(&simulator, "GET", "/v1/users/count", KEY, 99).await;
        let refused = get(&simulator, "/v1/users/count").await;
        assert_eq!(refused.header("retry-after"), Some("10"), "{headers}");
    }
}
