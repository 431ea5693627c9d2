//! Two gateways, as in two processes, over one real Redis.

use std::time::Duration;

use clerk_client::cache::Encryption;
use clerk_client::limiter::{self, RedisLimiter};
use clerk_client::redis::{RedisClient, RefusalClass, acl_rule};
use clerk_client::secret::{Secret, SecretSource};
use clerk_exporter::gateway::{InstancePolicies, Mode, RoutePolicies};
use clerk_quota::Limit;
use clerk_simulator::{LimitOverride, Quota, SimulatedBucket};

use crate::reads::{BATCH, CACHE, OFF, Reads, get, roomy};
use crate::support::{Setup, within};
use clerk_test_support::redis::RedisServer;

const PATH: &str = "/v1/users/count";

/// A gateway over this Redis.
fn setup(redis: &RedisServer, policies: RoutePolicies) -> Setup {
    let plan = InstancePolicies { policies, ..InstancePolicies::default() };
    Setup { plan, store: Some(redis.store()), ..Setup::default() }
}

fn pair(redis: &RedisServer, policies: RoutePolicies) -> [Reads; 2] {
    let first = Reads::with(roomy(), setup(redis, policies));
    let second = first.beside(setup(redis, policies));
    [first, second]
}

#[tokio::test]
async fn gateways_share_cached_responses() {
    let redis = RedisServer::start(&[]).await;
    for policies in [CACHE, RoutePolicies { cache: Mode::On, ..BATCH }] {
        let [first, second] = pair(&redis, policies);
        let number = if policies.batch.is_on() { 1 } else { 2 };
        let (own, other) = (first.get(&first.path(number)).await, second.get(&first.path(number)).await);
        assert_eq!((other.status, &other.body, other.decision()), (200, &own.body, Some("cache_hit")));
        assert!(other.value("age").is_some());
        assert_eq!((first.sent(), second.sent()), (1, 0));
    }
}

#[tokio::test]
async fn webhook_invalidates_all_gateways() {
    let redis = RedisServer::start(&[]).await;
    let [first, second] = pair(&redis, CACHE);
    let path = first.path(1);
    for reads in [&first, &second] {
        reads.get(&path).await;
    }
    first.rename_elsewhere(1, "Changed").await;
    first.announce(1).await;
    let name = async |reads: &Reads| reads.get(&path).await.json()["first_name"].as_str().unwrap().to_owned();
    assert_eq!(name(&first).await, "Changed", "the receiving gateway invalidates immediately");
    within(async {
        while name(&second).await != "Changed" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(name(&second).await, "Changed");
}

/// A gateway whose Redis user has these permissions.
async fn limited(redis: &RedisServer, user: &str, rights: &[&str]) -> Setup {
    let url = redis.url_of_user(user, rights).await;
    let store = RedisClient::new(redis.options().url(url)).unwrap();
    Setup { store: Some(store), ..setup(redis, CACHE) }
}

async fn first_name(reads: &Reads, number: u32) -> String {
    reads.get(&reads.path(number)).await.json()["first_name"].as_str().unwrap().to_owned()
}

fn refuses(reads: &Reads, class: RefusalClass) -> bool {
    reads.world.gateway.stats().redis.unwrap().refuses[class as usize]
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = tokio::time::timeout(Duration::from_secs(60), async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    wait.await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Redis 7's default for new users: keys and commands, but no channels unless granted.
#[tokio::test]
async fn webhook_without_channel_permission_invalidates_all_gateways() {
    let redis = RedisServer::start(&[]).await;
    let rights = ["~clerk-exporter:*", "+@all"];
    let first = Reads::with(roomy(), limited(&redis, "app", &rights).await);
    let second = first.beside(limited(&redis, "app", &rights).await);
    for round in 0..5 {
        let name = format!("Changed {round}");
        for reads in [&first, &second, &first, &second] {
            assert_eq!(reads.get(&reads.path(1)).await.status, 200);
        }
        first.rename_elsewhere(1, &name).await;
        assert_ne!(first_name(&second, 1).await, name, "it is cached until the webhook");
        let answer = if round % 2 == 0 { first.deliver(1).await } else { second.deliver(1).await };
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!([first_name(&first, 1).await, first_name(&second, 1).await], [name.clone(), name], "at once");
    }
    for reads in [&first, &second] {
        let stats = reads.world.gateway.stats();
        assert_eq!(stats.cache.unwrap().memory.hits, 0, "no invalidations from others");
        until("the refusal is recorded", async || refuses(reads, RefusalClass::Permission)).await;
    }
    // With the permission, they receive each other's invalidations, and memory is used.
    let () = redis.command(&["ACL", "SETUSER", "app", "&clerk-exporter:*"]).await;
    for reads in [&first, &second] {
        until("memory is used", async || {
            reads.get(&reads.path(2)).await;
            reads.world.gateway.stats().cache.unwrap().memory.hits > 0
        })
        .await;
    }
    assert_eq!(first.deliver(2).await.status, 200);
    assert!(!refuses(&first, RefusalClass::Permission), "the refused operation succeeded");
}

#[tokio::test]
async fn undelivered_webhook_gets_503_naming_the_permission() {
    let redis = RedisServer::start(&[]).await;
    let rule = acl_rule("clerk-exporter:");
    let rights: Vec<_> = rule.split(" on ><password> ").nth(1).unwrap().split(' ').collect();
    let silent: Vec<_> = rights.iter().copied().filter(|right| *right != "+publish").chain(["+pubsub"]).collect();
    let first = Reads::with(roomy(), limited(&redis, "silent", &silent).await);
    let second = first.beside(limited(&redis, "app", &rights).await);
    until("the second one uses its memory", async || {
        second.get(&second.path(1)).await;
        second.world.gateway.stats().cache.unwrap().memory.hits > 0
    })
    .await;
    let answer = first.deliver(1).await;
    assert_eq!(answer.status, 503);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains("+publish") && text.contains("please redeliver"), "{text}");
    assert!(refuses(&first, RefusalClass::Permission) && !refuses(&second, RefusalClass::Permission));
    // Keys are different: if Redis may hold stale entries, the response is 503, too.
    let deaf = first.beside(limited(&redis, "deaf", &["&*", "+@all"]).await);
    let answer = deaf.deliver(1).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(answer.status == 503 && text.contains("to the keys of the prefix"), "{text}");
    let () = redis.command(&["ACL", "SETUSER", "silent", "+publish"]).await;
    assert_eq!(first.deliver(1).await.status, 200);
}

#[tokio::test]
async fn gateways_share_the_limit_and_use_all_of_it() {
    let redis = RedisServer::start(&[]).await;
    let window = Duration::from_secs(3600);
    let limits = vec![LimitOverride { bucket: SimulatedBucket::Instance, quota: Quota::new(20, window) }];
    let of = || {
        let plan =
            InstancePolicies { policies: RoutePolicies { pace: Mode::On, ..OFF }, ..InstancePolicies::default() };
        Setup {
            // Longer than Redis ever needs, and shorter than the window.
            plan: InstancePolicies { max_queue_wait: Duration::from_secs(50), ..plan },
            pace: Some(limiter::LimiterOptions::default().limit(Some(Limit { requests: 20, window }))),
            budget: Some(RedisLimiter::new(redis.store(), "test")),
            ..Setup::default()
        }
    };
    let first = Reads::with(roomy().limits(limits), of());
    let second = first.beside(of());
    let all =
        async { tokio::join!(first.together((0..30).map(|_| get(PATH))), second.together((0..30).map(|_| get(PATH)))) };
    let (mut answers, others) = within(all).await;
    answers.extend(others);
    let good = answers.iter().filter(|answer| answer.status == 200).count();
    let shed = answers.iter().filter(|answer| answer.decision() == Some("shed")).count();
    assert_eq!((good, shed), (20, 40));
    let requests = first.simulator.truth().requests;
    assert_eq!((requests.total, requests.by_status.get(&429)), (20, None));
}

#[tokio::test]
async fn gateways_continue_alone_without_redis() {
    let mut redis = RedisServer::start(&[]).await;
    let all = RoutePolicies { cache: Mode::On, coalesce: Mode::On, pace: Mode::On, ..BATCH };
    let gateways = pair(&redis, all);
    for reads in &gateways {
        reads.get(PATH).await;
    }
    redis.kill().await;
    for reads in &gateways {
        for number in 0..3 {
            let answer = within(reads.get(&reads.path(number))).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let answers = within(reads.together((10..40).map(|number| get(&reads.path(number))))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
    }
}

#[tokio::test]
async fn encrypted_responses_show_no_user_data() {
    let redis = RedisServer::start(&[]).await;
    let key = SecretSource::Inline(Secret::new("00112233445566778899aabbccddeeff".repeat(2)));
    let mut found = Vec::new();
    for seal in [None, Some(Encryption::new(&key, &[]).unwrap())] {
        let _: () = redis.command(&["FLUSHALL"]).await;
        let is_sealed = seal.is_some();
        let reads = Reads::with(roomy(), Setup { seal, ..setup(&redis, CACHE) });
        let user = reads.get(&reads.path(1)).await.json();
        let email = user["email_addresses"][0]["email_address"].as_str().unwrap().to_owned();
        assert!(email.contains('@'));
        reads.get(&format!("/v1/users?email_address={}", email.replace('@', "%40"))).await;
        let words = [email.as_str(), email.split('@').next().unwrap(), "example.com", &reads.user(1)];
        let mut shown = 0;
        for (name, _) in redis.keys().await {
            let value: Vec<u8> = redis.command(&["GET", &name]).await;
            let text = format!("{name} {}", String::from_utf8_lossy(&value));
            shown += words.iter().filter(|word| text.contains(*word)).count();
        }
        found.push((is_sealed, shown > 0));
        let second = reads
            .beside(Setup { seal: is_sealed.then(|| Encryption::new(&key, &[]).unwrap()), ..setup(&redis, CACHE) });
        assert_eq!(second.get(&reads.path(1)).await.decision(), Some("cache_hit"), "the holder of the key can read it");
    }
    // Without encryption the text is found, so that the search is valid.
    assert_eq!(found, [(false, true), (true, false)]);
}
