//! The simulator's record, compared with an independent count.

use super::*;

#[tokio::test(start_paused = true)]
async fn truth_equals_an_independent_count() {
    for limiter in ["fixed", "fixed-from-first", "sliding", "sliding-counter", "token-bucket"] {
        let limits = vec!["instance=12/10s".parse().unwrap()];
        let simulator = Simulator::new(options().limiter(limiter.parse().unwrap()).limits(limits));
        let mut dice = fastrand::Rng::with_seed(5);
        let mut by_hand: Vec<(SystemTime, bool, u32)> = Vec::new();
        for _ in 0..2_000 {
            tokio::time::advance(Duration::from_millis(dice.u64(0..1_800))).await;
            let answer = get(&simulator, "/v1/users/count").await;
            let remaining = answer.header("x-ratelimit-remaining").unwrap().parse().unwrap();
            by_hand.push((simulator.now(), answer.status == StatusCode::TOO_MANY_REQUESTS, remaining));
        }
        let truth = simulator.truth();
        assert!(!truth.truncated);
        assert_eq!(truth.requests.total, 2_000);
        let bucket = truth.instance("development-1").unwrap().bucket(SimulatedBucket::Instance).unwrap();
        let events: Vec<_> =
            bucket.events.iter().map(|event| (event.at, event.refused, event.remaining_after)).collect();
        assert_eq!(events, by_hand, "{limiter}");
        let refused = by_hand.iter().filter(|(_, refused, _)| *refused).count() as u64;
        assert_eq!(truth.requests.by_status[&429], refused, "{limiter}");
        assert!(refused > 0, "{limiter}");
        assert_eq!(bucket.windows.iter().map(|window| window.allowed + window.refused).sum::<u64>(), 2_000);
        for window in &bucket.windows {
            assert_eq!(window.end.duration_since(window.start).unwrap(), Duration::from_secs(10));
            assert_eq!(window.start.duration_since(UNIX_EPOCH).unwrap().as_secs() % 10, 0);
            let within: Vec<_> = by_hand.iter().filter(|(at, ..)| (window.start..window.end).contains(at)).collect();
            assert_eq!(window.allowed, within.iter().filter(|(_, refused, _)| !refused).count() as u64);
            assert_eq!(window.refused, within.iter().filter(|(_, refused, _)| *refused).count() as u64);
            let least = within.iter().map(|(.., remaining)| *remaining).min();
            assert_eq!(Some(window.least_remaining), least);
            assert_eq!(bucket.least_remaining(window.start, window.end), least);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn truth_endpoint_returns_json_without_a_key() {
    let simulator = Simulator::new(options());
    get(&simulator, "/v1/users/count").await;
    let path = format!("/v1/users/{}", simulator.user_id(0).unwrap());
    with_body(&simulator, "PATCH", &path, json!({})).await;
    let answer = send(&simulator, Method::GET, "/_simulator/truth", "", None).await;
    assert_eq!(answer.json(), serde_json::to_value(simulator.truth()).unwrap());
    let instance = &answer.json()["instances"][0];
    assert_eq!(instance["name"], "development-1");
    assert_eq!(instance["buckets"][0]["bucket"], "instance");
    assert_eq!(instance["buckets"][0]["windows"][0]["start"], 1_795_608_000.0);
    assert_eq!(instance["buckets"][0]["windows"][0]["least_remaining"], 99);
    assert_eq!(instance["buckets"][1]["entity"], simulator.user_id(0).unwrap());
    let truth = simulator.truth();
    let user = truth.instances[0].entity_bucket(SimulatedBucket::UserUpdate, &simulator.user_id(0).unwrap()).unwrap();
    assert_eq!(user.windows[0].least_remaining, 9);
    let few = send(&simulator, Method::GET, "/_simulator/truth?events=0", "", None).await.json();
    assert_eq!(few["instances"][0]["buckets"][0]["events"], json!([]));
    assert!(!String::from_utf8(answer.body).unwrap().contains("sk_test"));
}

#[tokio::test(start_paused = true)]
async fn truth_is_bounded_and_reports_truncation() {
    let simulator = Simulator::new(options().kept_windows(3).kept_events(5));
    for _ in 0..10 {
        get(&simulator, "/v1/users/count").await;
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    let truth = simulator.truth();
    assert!(truth.truncated);
    let bucket = &truth.instances[0].buckets[0];
    assert_eq!((bucket.windows.len(), bucket.events.len()), (3, 5));
    simulator.reset();
    assert!(!simulator.truth().truncated);
}

#[tokio::test(start_paused = true)]
async fn reset_fills_the_budgets_and_clears_the_record() {
    let simulator = Simulator::new(options());
    for _ in 0..101 {
        get(&simulator, "/v1/users/count").await;
    }
    assert_eq!(get(&simulator, "/v1/users/count").await.status, StatusCode::TOO_MANY_REQUESTS);
    let answer = send(&simulator, Method::POST, "/_simulator/reset", "", None).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(simulator.truth().requests.total, 0);
    assert_eq!(get(&simulator, "/v1/users/count").await.header("x-ratelimit-remaining"), Some("99"));
}

#[tokio::test(start_paused = true)]
async fn hours_of_traffic_are_counted_exactly() {
    let simulator = Simulator::new(options().users(50_000).kept_events(1_000));
    let router = simulator.router();
    let paths = [
        "/v1/users/count".to_owned(),
        format!("/v1/users/{}", simulator.user_id(12_345).unwrap()),
        "/v1/users?limit=2&offset=40000".to_owned(),
    ];
    // Two hours with one request per second, and a burst of 120 every five minutes.
    let mut sent = 0_u64;
    for second in 0..7_200_u64 {
        for _ in 0..if second % 300 == 0 { 120 } else { 1 } {
            let request = Request::get(&paths[(sent % 3) as usize]).header("authorization", "Bearer sk_test_key");
            let request = request.body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap();
            sent += 1;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let truth = simulator.truth();
    assert_eq!(truth.requests.total, sent);
    let windows = &truth.instances[0].buckets[0].windows;
    assert_eq!(windows.len(), 720);
    for (number, window) in windows.iter().enumerate() {
        let expected = if number % 30 == 0 { (100, 29, 0) } else { (10, 0, 90) };
        assert_eq!((window.allowed, window.refused, window.least_remaining), expected, "window {number}");
    }
}
