//! Lookups of single users that become list requests.

use std::collections::BTreeMap;

use axum::extract::Request as Incoming;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use clerk_exporter::gateway::{Decision, InstancePolicies, Mode, RoutePolicies, Saving};
use clerk_simulator::{FaultRule, Plan as Budget};

use http_body_util::BodyExt;

use super::{BATCH, OFF, Reads, authorized, get, roomy, throttled};
use crate::support::{BULK_TOKEN, Setup};
use clerk_test_support::KEY;

const MISSING: [&str; 3] =
    ["user_2NNEqL2nrIRdJ194ndJqAHwEfxC", "user_2NNEqL2nrIRdJ194ndJqAHwEfxD", "user_2NNEqL2nrIRdJ194ndJqAHwEfxE"];

fn is_list(target: &str) -> bool {
    target.starts_with("/v1/users?")
}

#[tokio::test(start_paused = true)]
async fn lookups_are_batched_with_the_same_responses() {
    let (batched, direct) = (Reads::new(BATCH), Reads::new(OFF));
    let paths: Vec<_> = (0..200).map(|number| batched.path(number)).collect();
    let paths: Vec<_> = paths.into_iter().chain(MISSING.map(|id| format!("/v1/users/{id}"))).collect();
    let answers = batched.together(paths.iter().map(|path| get(path))).await;
    let targets = batched.targets();
    // Users missing from a list are looked up again, each alone: a list does not prove that they do not exist.
    assert_eq!(targets.iter().filter(|target| is_list(target)).count(), 3, "{targets:?}");
    assert_eq!(targets.len(), 6, "{targets:?}");
    for (path, answer) in paths.iter().zip(&answers) {
        let alone = direct.get(path).await;
        assert_eq!((answer.status, answer.decision()), (alone.status, Some("batched")), "{path}");
        assert_eq!(answer.value("content-type"), alone.value("content-type"));
        if alone.status == 200 {
            assert_eq!(answer.body, alone.body, "{path}");
        } else {
            let (own, clerk) = (answer.json(), alone.json());
            assert_eq!(own["errors"][0]["code"], "resource_not_found");
            assert_eq!(shape(&own), shape(&clerk));
            assert_eq!(own["errors"][0]["code"], clerk["errors"][0]["code"]);
        }
    }
    assert_eq!(batched.decided(Decision::Batched), 203);
    // 203 lookups took six requests; the three users missing from a list saved nothing.
    assert_eq!(batched.saved(Saving::Batch), 99 + 99);
    let spent: u64 = batched.world.top()[0].iter().map(|share| share.requests).sum();
    assert_eq!(spent, 6);
}

/// Clerk returns ten users for an invalid limit.
#[tokio::test(start_paused = true)]
async fn truncated_list_yields_no_404_for_existing_users() {
    for most in [10, 1, 0] {
        let simulator = clerk_simulator::Simulator::new(roomy());
        let router = simulator.router().layer(from_fn(move |request: Incoming, next: Next| async move {
            let is_list = request.uri().path() == "/v1/users";
            let answer = next.run(request).await;
            if !is_list {
                return answer;
            }
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let users: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
            axum::Json(users.into_iter().take(most).collect::<Vec<_>>()).into_response()
        }));
        for policies in [BATCH, RoutePolicies { cache: Mode::On, coalesce: Mode::On, ..BATCH }] {
            let reads = Reads::before(router.clone(), policies);
            let paths: Vec<_> = (0..28).map(|number| reads.path(number)).collect();
            let paths: Vec<_> = paths.into_iter().chain([format!("/v1/users/{}", MISSING[0])]).collect();
            let answers = reads.together(paths.iter().map(|path| get(path))).await;
            let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses, [[200; 28].as_slice(), &[404]].concat(), "cut off after {most}");
            let spent: u64 = reads.world.top()[0].iter().map(|share| share.requests).sum();
            assert_eq!(spent, reads.sent() as u64, "each request is counted");
            // No lookup saves less than nothing.
            assert!(reads.saved(Saving::Batch) <= (29 - spent.min(29)).max(2), "repeated lookups were not saved");
        }
    }
}

/// The keys of a JSON value, and the type of each value.
fn shape(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), shape(value)))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect(),
        Value::Array(values) => values.iter().map(shape).collect(),
        Value::String(_) => "text".into(),
        other => other.clone(),
    }
}

#[tokio::test(start_paused = true)]
async fn single_lookup_is_sent_for_that_user() {
    let reads = Reads::new(BATCH);
    let answer = reads.get(&reads.path(5)).await;
    assert_eq!((answer.status, answer.json()["id"].as_str()), (200, Some(&*reads.user(5))));
    assert_eq!(reads.targets(), [reads.path(5)]);
    assert_eq!(reads.saved(Saving::Batch), 0);
    assert_eq!(reads.get(&format!("/v1/users/{}", MISSING[0])).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn versions_of_the_api_are_not_mixed() {
    let reads = Reads::new(BATCH);
    let versions = [Some("2024-10-01"), Some("2025-04-10"), None];
    let requests: Vec<_> = (0..30)
        .map(|number| match versions[number as usize % 3] {
            Some(version) => get(&reads.path(number)).header("clerk-api-version", version),
            None => get(&reads.path(number)),
        })
        .collect();
    let answers = reads.together(requests).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let asked = reads.asked();
    assert_eq!(asked.len(), 3);
    for asked in asked {
        let version = asked.headers.get("clerk-api-version").map(|value| value.to_str().unwrap());
        for number in 0..30 {
            let belongs = versions[number as usize % 3] == version;
            assert_eq!(asked.target.contains(&reads.user(number)), belongs, "{version:?} {number}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn low_priority_lookups_have_separate_batches() {
    let reads = Reads::new(BATCH);
    let requests: Vec<_> = (0..10)
        .map(|number| authorized("GET", &reads.path(number), if number < 5 { KEY } else { BULK_TOKEN }))
        .collect();
    reads.together(requests).await;
    let targets = reads.targets();
    assert_eq!(targets.len(), 2);
    let has =
        |target: &str, numbers: std::ops::Range<u32>| numbers.into_iter().all(|n| target.contains(&reads.user(n)));
    assert!(targets.iter().any(|target| has(target, 0..5)) && targets.iter().any(|target| has(target, 5..10)));
}

#[tokio::test(start_paused = true)]
async fn throttled_batch_throttles_each_lookup() {
    for pace in [Mode::Off, Mode::Shadow, Mode::On] {
        let reads = Reads::new(RoutePolicies { pace, ..BATCH });
        reads.fault(throttled(7).times(1));
        let answers = reads.together((0..20).map(|number| get(&reads.path(number)))).await;
        for answer in &answers {
            assert_eq!((answer.status, answer.value("retry-after")), (429, Some("7")));
            assert_eq!(answer.json()["errors"][0]["code"], "too_many_requests");
        }
        assert_eq!(reads.sent(), 1, "{pace:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn disabled_policies_are_off_in_batches() {
    let reads = Reads::new(BATCH);
    reads.fault(throttled(7).always());
    let from = tokio::time::Instant::now();
    for sent in 1..4 {
        let answers = reads.together((0..20).map(|number| get(&reads.path(number)))).await;
        assert!(answers.iter().all(|answer| answer.status == 429));
        assert_eq!(reads.sent(), sent, "neither retried nor split");
    }
    assert!(from.elapsed().as_secs() < 1, "nothing waits for the limit");
}

#[tokio::test(start_paused = true)]
async fn batch_is_retried_if_retry_is_on() {
    let reads = Reads::new(RoutePolicies { retry: Mode::On, ..BATCH });
    reads.fault(throttled(7).times(1));
    let answers = reads.together((0..20).map(|number| get(&reads.path(number)))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(reads.sent(), 2);
}

#[tokio::test(start_paused = true)]
async fn batch_is_queued_or_shed_if_pacing_is_on() {
    let options = roomy().plan(Some(Budget::Development)).limits(vec![]);
    let plan = InstancePolicies { policies: RoutePolicies { pace: Mode::On, ..BATCH }, ..InstancePolicies::default() };
    let plan = InstancePolicies { max_queue_wait: std::time::Duration::from_millis(100), ..plan };
    let reads = Reads::with(options, Setup { plan, ..Setup::default() });
    for _ in 0..100 {
        reads.get("/v1/users/count").await;
    }
    let answers = reads.together((0..20).map(|number| get(&reads.path(number)))).await;
    for answer in &answers {
        assert_eq!((answer.status, answer.decision()), (429, Some("shed")));
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(reads.sent(), 100);
}

#[tokio::test(start_paused = true)]
async fn other_reads_are_not_batched() {
    let reads = Reads::new(BATCH);
    let user = reads.path(1);
    let requests = vec![
        get("/v1/users/nonsense"),
        get("/v1/users/user_a%2Fb"),
        get("/v1/users/user_1%00"),
        get("/v1/users/org_2NNEqL2nrIRdJ194ndJqAHwEfxC"),
        get(&format!("{user}?expand=a")),
        get(&user).header("cache-control", "no-cache"),
        get(&format!("{user}/organization_memberships")),
        authorized("HEAD", &user, KEY),
        authorized("PATCH", &user, KEY),
    ];
    let expected: Vec<_> = requests.iter().map(|request| request.uri_ref().unwrap().to_string()).collect();
    let answers = reads.together(requests).await;
    let mut targets = reads.targets();
    targets.sort();
    let mut expected = expected;
    expected.sort();
    assert_eq!(targets, expected);
    assert!(answers.iter().all(|answer| answer.decision().is_none()), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn rejected_batch_key_sends_each_lookup_with_its_own_key() {
    let reads = Reads::new(BATCH);
    // A list's path is `/v1/users?…`; the simulator matches paths only, so that both requests fail once.
    let rule = FaultRule { times: Some(1), ..super::status(401).always() };
    reads.fault(rule);
    let answers = reads.together((0..5).map(|number| get(&reads.path(number)))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(reads.targets().iter().filter(|target| !is_list(target)).count(), 5);
    // The list request counts, too.
    let spent: u64 = reads.world.top()[0].iter().map(|share| share.requests).sum();
    assert_eq!((spent, reads.sent()), (6, 6));
}
