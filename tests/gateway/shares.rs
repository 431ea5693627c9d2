//! Shares of callers through the gateway: who waits for whom, and what a rejected caller is told.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::{DistributedLimiter, LimiterOptions, RedisLimiter};
use clerk_client::transport::{MemoryTransport, Transport};
use clerk_exporter::gateway::{InstancePolicies, Mode, OverrideAction, OverrideRequest, RoutePolicies};
use clerk_quota::Limit;
use clerk_simulator::{HeaderProfile, Simulator};
use clerk_test_support::KEY;
use clerk_test_support::redis::RedisServer;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{BULK_TOKEN, Setup, TOKEN, TokenShare, World};

const PACED: RoutePolicies = RoutePolicies {
    retry: Mode::Off,
    coalesce: Mode::Off,
    cache: Mode::Off,
    batch: Mode::Off,
    pace: Mode::On,
    verify: Mode::Off,
    ttl: Duration::from_secs(60),
    verify_ttl: Duration::from_secs(60),
    is_explicit: false,
};

/// A little more than a window.
const PATIENT: Option<Duration> = Some(Duration::from_secs(12));

struct Apps {
    world: Arc<World>,
}

struct Answer {
    status: u16,
    decision: Option<String>,
    retry_after: Option<u64>,
    body: Value,
    /// Since the request.
    after: Duration,
}

impl Apps {
    fn new(policies: RoutePolicies, shares: [TokenShare; 2]) -> Self {
        Self::with(policies, shares, Duration::from_secs(10), None)
    }

    /// 20 requests in a window, which only the gateway knows.
    fn with(
        policies: RoutePolicies,
        shares: [TokenShare; 2],
        window: Duration,
        budget: Option<Arc<dyn DistributedLimiter>>,
    ) -> Self {
        let simulator = Simulator::new(clerk_test_support::simulator(1).headers(HeaderProfile::None));
        let upstream: Arc<dyn Transport> = MemoryTransport::new(simulator.router());
        let plan =
            InstancePolicies { policies, max_queue_wait: Duration::from_secs(12), ..InstancePolicies::default() };
        let pace = Some(LimiterOptions::default().limit(Limit { requests: 20, window }));
        let setup = Setup { plan, pace, shares, budget, ..Setup::default() };
        Self { world: Arc::new(World::new(&upstream, "http://clerk.test", setup)) }
    }

    async fn ask(&self, token: &str, path: &str) -> Answer {
        ask(&self.world, token, path, "curl/8").await
    }

    /// An operator caps a caller for a minute.
    async fn cap(&self, caller: &str, max_share: f64) {
        let wanted = OverrideRequest {
            instance: None,
            caller,
            action: OverrideAction::Cap { max_share },
            duration: Duration::from_secs(60),
            by: None,
        };
        self.world.gateway.set_override(&wanted).await.unwrap();
    }

    async fn count(&self, token: &str) -> Answer {
        self.ask(token, "/v1/users/count").await
    }

    /// Statuses of as many requests, one after another.
    async fn counts(&self, token: &str, requests: usize) -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..requests {
            statuses.push(self.count(token).await.status);
        }
        statuses
    }

    fn begin(&self, token: &'static str, path: &'static str) -> JoinSet<Answer> {
        let apps = Self { world: Arc::clone(&self.world) };
        let mut task = JoinSet::new();
        task.spawn(async move { apps.ask(token, path).await });
        task
    }
}

async fn ask(world: &World, token: &str, path: &str, agent: &str) -> Answer {
    let from = Instant::now();
    let request = Request::get(path).header("host", "gateway").header("user-agent", agent);
    let request = request.header("authorization", format!("Bearer {token}"));
    let request = request.body(Full::new(bytes::Bytes::new())).unwrap();
    let (head, body) = world.gateway.handle(request).await.into_parts();
    let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let (decision, retry_after) = (text("x-clerk-exporter-decision"), text("retry-after"));
    let body = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    let retry_after = retry_after.map(|seconds| seconds.parse().unwrap());
    Answer { status: head.status.as_u16(), decision, retry_after, body, after: from.elapsed() }
}

async fn ended(mut task: JoinSet<Answer>) -> Answer {
    task.join_next().await.unwrap().unwrap()
}

const CAP: TokenShare = TokenShare { max: 0.5, ..TokenShare::NONE };

#[tokio::test(start_paused = true)]
async fn rejected_caller_is_told_of_its_cap() {
    let impatient = TokenShare { max_wait: Some(Duration::from_millis(1)), ..CAP };
    let apps = Apps::new(PACED, [TokenShare::NONE, impatient]);
    assert_eq!(apps.counts(BULK_TOKEN, 10).await, [200; 10]);
    let answer = apps.count(BULK_TOKEN).await;
    assert_eq!((answer.status, answer.decision.as_deref()), (429, Some("shed")));
    assert!((9..=11).contains(&answer.retry_after.unwrap()), "{:?}", answer.retry_after);
    let error = &answer.body["errors"][0];
    assert_eq!(error["code"], "too_many_requests");
    let why = error["long_message"].as_str().unwrap();
    assert!(why.starts_with("import: not sent: the caller has used its cap of 10 requests in 10s"), "{why}");
    assert_eq!(apps.counts(TOKEN, 5).await, [200; 5]);
    let stats = apps.world.numbers();
    let (name, usage) = &stats.callers[0];
    assert_eq!((stats.callers.len(), &**name, usage.cap, usage.guarantee), (1, "import", Some(10), None));
}

#[tokio::test(start_paused = true)]
async fn capped_caller_holds_up_no_other() {
    for policies in [PACED, RoutePolicies { coalesce: Mode::On, ..PACED }, RoutePolicies { batch: Mode::On, ..PACED }] {
        let apps = Apps::new(policies, [TokenShare::NONE, TokenShare { max_wait: PATIENT, ..CAP }]);
        apps.counts(BULK_TOKEN, 10).await;
        // It waits for its cap. Others that ask the same do not wait with it.
        let capped = apps.begin(BULK_TOKEN, "/v1/users/user_000001");
        tokio::task::yield_now().await;
        for token in [TOKEN, KEY] {
            let answer = apps.ask(token, "/v1/users/user_000001").await;
            assert!(answer.after < Duration::from_secs(1), "{policies:?} {:?}", answer.after);
            assert_ne!(answer.status, 429);
        }
        let answer = ended(capped).await;
        assert!(answer.after > Duration::from_secs(9) && answer.status != 429, "{:?}", answer.after);
    }
}

#[tokio::test(start_paused = true)]
async fn guaranteed_caller_is_first_after_what_was_lent() {
    let guarantee = TokenShare { min: 0.2, max_wait: PATIENT, ..TokenShare::NONE };
    let apps = Apps::new(PACED, [TokenShare::NONE, guarantee]);
    assert_eq!(apps.counts(KEY, 20).await, [200; 20]);
    // Those of high priority come first, and leave last.
    let others: Vec<_> = (0..20).map(|_| apps.begin(KEY, "/v1/users/count")).collect();
    tokio::task::yield_now().await;
    let own: Vec<_> = (0..4).map(|_| apps.begin(BULK_TOKEN, "/v1/users/count")).collect();
    let (mut latest, mut least) = (Duration::ZERO, 0);
    for task in own {
        let answer = ended(task).await;
        assert_eq!(answer.status, 200);
        latest = latest.max(answer.after);
    }
    for task in others {
        least += usize::from(ended(task).await.after >= latest);
    }
    assert!(latest < Duration::from_millis(10_300), "{latest:?}");
    assert!(least >= 16, "{least} of 20 left after those that were guaranteed");
}

#[tokio::test(start_paused = true)]
async fn each_caller_has_its_own_patience() {
    let impatient = TokenShare { max_wait: Some(Duration::from_secs(2)), ..TokenShare::NONE };
    let policies = RoutePolicies { coalesce: Mode::On, ..PACED };
    let apps = Apps::new(policies, [impatient, TokenShare::NONE]);
    for number in 0..20 {
        assert_ne!(apps.ask(KEY, &format!("/v1/users?offset={number}")).await.status, 429);
    }
    // The one that gives up does not take the other one with it.
    let patient = apps.begin(KEY, "/v1/users/count");
    tokio::task::yield_now().await;
    let answer = apps.count(TOKEN).await;
    assert_eq!((answer.status, answer.after), (429, Duration::ZERO));
    let why = answer.body["errors"][0]["long_message"].as_str().unwrap();
    assert!(why.contains("the wait would be too long") && !why.contains("billing"), "{why}");
    let answer = ended(patient).await;
    assert!(answer.status == 200 && answer.after > Duration::from_secs(9));
}

/// An operator must not need a policy first.
#[tokio::test(start_paused = true)]
async fn cap_of_an_operator_holds_while_pacing_is_off() {
    for pace in [Mode::Off, Mode::Shadow] {
        let apps = Apps::new(RoutePolicies { pace, ..PACED }, [TokenShare::NONE; 2]);
        apps.cap("import", 0.25).await;
        assert_eq!(apps.counts(BULK_TOKEN, 5).await, [200; 5]);
        let answer = apps.count(BULK_TOKEN).await;
        assert!(answer.status == 200 && answer.after > Duration::from_secs(9), "it waits: {:?}", answer.after);
        assert_eq!(apps.counts(TOKEN, 30).await, [200; 30], "others are not paced");
    }
}

/// Batches that began before the cap, and others, must not evade it.
#[tokio::test(start_paused = true)]
async fn cap_of_an_operator_is_for_batches_that_have_begun_before() {
    let policies = RoutePolicies { batch: Mode::On, pace: Mode::Shadow, ..PACED };
    let apps = Apps::new(policies, [TokenShare::NONE, TokenShare { max_wait: PATIENT, ..TokenShare::NONE }]);
    let look_up = async |number: usize| apps.ask(BULK_TOKEN, &format!("/v1/users/user_{number:06}")).await;
    look_up(0).await;
    apps.cap("import", 0.25).await;
    for number in 1..6 {
        assert_eq!(look_up(number).await.after.as_secs(), 0);
    }
    assert!(look_up(6).await.after > Duration::from_secs(9));
    apps.world.gateway.end_override(None, "import", None).await.unwrap();
    for number in 7..20 {
        assert_eq!(look_up(number).await.after.as_secs(), 0, "the cap has ended");
    }
}

/// Requests without a `User-Agent` are one caller to the operator, not those of all others.
#[tokio::test(start_paused = true)]
async fn cap_of_unnamed_callers_is_not_for_all() {
    let apps = Apps::new(RoutePolicies { coalesce: Mode::On, ..PACED }, [TokenShare::NONE; 2]);
    apps.cap("unknown", 0.05).await;
    let ask = |path: &'static str| {
        let world = Arc::clone(&apps.world);
        async move { ask(&world, KEY, path, "").await }
    };
    assert_eq!(ask("/v1/users/count").await.status, 200);
    let mut capped = JoinSet::new();
    capped.spawn(ask("/v1/users/count"));
    tokio::task::yield_now().await;
    let answer = apps.count(TOKEN).await;
    assert_eq!((answer.status, answer.after), (200, Duration::ZERO));
    assert!(ended(capped).await.after > Duration::from_secs(9));
}

#[tokio::test(start_paused = true)]
async fn pause_of_one_caller_does_not_reject_another_that_waits_with_it() {
    let apps = Apps::new(RoutePolicies { coalesce: Mode::On, ..PACED }, [TokenShare::NONE; 2]);
    for number in 0..20 {
        assert_ne!(apps.ask(TOKEN, &format!("/v1/users?offset={number}")).await.status, 429);
    }
    let leader = apps.begin(KEY, "/v1/users/count");
    tokio::task::yield_now().await;
    let follower = apps.begin(TOKEN, "/v1/users/count");
    tokio::task::yield_now().await;
    let wanted = OverrideRequest {
        instance: None,
        caller: "curl",
        action: OverrideAction::Pause,
        duration: Duration::from_secs(60),
        by: None,
    };
    apps.world.gateway.set_override(&wanted).await.unwrap();
    let (leader, follower) = (ended(leader).await, ended(follower).await);
    let why = leader.body["errors"][0]["long_message"].as_str().unwrap();
    assert!(leader.status == 429 && why.starts_with("curl: not sent: the caller is paused; try again in "), "{why}");
    assert_eq!(follower.status, 200, "{}", follower.body);
}

#[tokio::test]
async fn cap_is_of_all_gateways_together() {
    let redis = RedisServer::start(&[]).await;
    let impatient = TokenShare { max_wait: Some(Duration::from_millis(1)), ..CAP };
    let hour = Duration::from_secs(3600);
    let gateway = || {
        let budget: Arc<dyn DistributedLimiter> = RedisLimiter::new(redis.store(), "test");
        Apps::with(PACED, [TokenShare::NONE, impatient], hour, Some(budget))
    };
    let gateways = [gateway(), gateway()];
    for request in 0..10 {
        assert_eq!(gateways[request % 2].count(BULK_TOKEN).await.status, 200, "{request}");
    }
    for apps in &gateways {
        let answer = apps.count(BULK_TOKEN).await;
        let why = answer.body["errors"][0]["long_message"].as_str().unwrap();
        assert!(answer.status == 429 && why.contains("import: not sent: the caller has used its cap of 10"), "{why}");
        assert_eq!(apps.count(TOKEN).await.status, 200);
    }
}
