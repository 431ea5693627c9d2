//! A server that refuses `TIME` in scripts. A user without that right stands in for it.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::{BucketKey, DistributedLimiter, RedisLimiter, Room};
use clerk_client::redis::{InstanceKeys, RedisClient, RedisOptions, Script};
use clerk_quota::Bucket;
use clerk_quota::clock::Clock;
use clerk_test_support::log;
use clerk_test_support::redis::RedisServer;

use crate::exercise::everything;
use crate::permissions::rights;
use crate::support::{key, refused, until};

const BUDGET: BucketKey = BucketKey { bucket: Bucket::Instance, entity: None };
const HOUR: Duration = Duration::from_secs(3600);

async fn options(server: &RedisServer) -> RedisOptions {
    let rights = rights("clerk-exporter:");
    let rights: Vec<_> = rights.iter().map(String::as_str).filter(|right| *right != "+time").collect();
    server.options().url(server.url_of_user("app", &rights).await)
}

fn count(what: &str) -> usize {
    log::everything().matches(what).count()
}

async fn take(limiter: &RedisLimiter, requests: u64) -> bool {
    let room = Room { requests, window: HOUR, may_explore: false };
    limiter.take(BUDGET, room, None).await.unwrap().outcome.is_ok()
}

/// A limiter whose process has a clock that is so many seconds off.
fn limiter(options: &RedisOptions, seconds: i64) -> Arc<RedisLimiter> {
    let clock = Clock::simulated(clerk_test_support::start());
    clock.simulate_step(seconds);
    RedisLimiter::new(RedisClient::new(options.clone().clock(Arc::new(clock))).unwrap(), "prod")
}

/// The bucket is known to count each request.
async fn counts_exactly(server: &RedisServer, client: &RedisClient) {
    let key = client.key_name(&InstanceKeys::new("prod").key(&["pace", "counting"]));
    let () = server.command(&["SET", &key, "1"]).await;
}

#[tokio::test]
async fn everything_works_with_one_warning_that_names_time() {
    log::listen();
    let server = RedisServer::start(&[]).await;
    let options = options(&server).await;
    let client = everything(&server, options, "prod").await;
    assert_eq!(refused(&client), []);
    let health = client.health();
    assert_eq!((health.refused, health.unavailable, health.timeouts), (0, 0, 0));
    assert!(server.denied().await.iter().all(|right| right == "time"), "{:?}", server.denied().await);
    assert_eq!(count("Redis refuses TIME in scripts"), 1, "{}", log::everything());
    assert!(log::everything().contains("docs/redis.md#time-in-scripts"));
    assert_eq!(count("Redis refuses operations"), 0);
    // Remembered for the connection, and tried again on the next one.
    let tried = server.denied().await.len();
    let limiter = RedisLimiter::new(client.clone(), "prod");
    take(&limiter, 10).await;
    assert_eq!(server.denied().await.len(), tried);
    let () = server.command(&["ACL", "SETUSER", "app", "+time"]).await;
    assert_eq!(count("Redis runs TIME in scripts again"), 0);
    let _: i64 = server.command(&["CLIENT", "KILL", "USER", "app"]).await;
    take(&limiter, 10).await;
    assert_eq!(count("Redis runs TIME in scripts again"), 1);
    assert_eq!(count("Redis refuses TIME in scripts"), 1);
}

#[tokio::test]
async fn processes_with_different_clocks_keep_one_limit() {
    let server = RedisServer::start(&[]).await;
    let options = options(&server).await;
    counts_exactly(&server, &RedisClient::new(options.clone()).unwrap()).await;
    // A window off and more, in both directions.
    let limiters = [7200, 0, -7200].map(|seconds| limiter(&options, seconds));
    let mut taken = 0;
    for _ in 0..4 {
        for limiter in &limiters {
            taken += usize::from(take(limiter, 6).await);
        }
    }
    assert_eq!(taken, 6, "the clock that is ahead is that of all");
}

#[tokio::test]
async fn clock_ahead_costs_one_limit_once() {
    let server = RedisServer::start(&[]).await;
    let options = options(&server).await;
    counts_exactly(&server, &RedisClient::new(options.clone()).unwrap()).await;
    let all = async |limiter: &RedisLimiter| {
        let mut taken = 0;
        for _ in 0..8 {
            taken += usize::from(take(limiter, 4).await);
        }
        taken
    };
    let [behind, ahead] = [0, 7200].map(|seconds| limiter(&options, seconds));
    assert_eq!(all(&behind).await, 4);
    // Entries look older than they are: this is what the documentation states.
    assert_eq!(all(&ahead).await, 4);
    assert_eq!((all(&behind).await, all(&ahead).await), (0, 0));
}

#[tokio::test]
async fn clock_that_stands_still_does_not_keep_the_log() {
    let server = RedisServer::start(&[]).await;
    let options = options(&server).await;
    let client = RedisClient::new(options.clone()).unwrap();
    counts_exactly(&server, &client).await;
    let [right, ahead] = [0, 7200].map(|seconds| limiter(&options, seconds));
    assert!(take(&ahead, 1).await);
    let log = client.key_name(&InstanceKeys::new("prod").key(&["pace", "instance", "", "log"]));
    let time_to_live = async || -> i64 { server.command(&["PTTL", &log]).await };
    let before = time_to_live().await;
    assert!((1..=2 * 3_600_000 + 30_000).contains(&before), "two windows and 30 s at most: {before}");
    for _ in 0..10 {
        assert!(!take(&right, 1).await);
    }
    assert!(time_to_live().await <= before, "a request that is refused does not keep it");
}

#[tokio::test]
async fn scripts_have_the_time_of_the_server_or_of_the_process() {
    let server = RedisServer::start(&[]).await;
    let clock = Arc::new(Clock::simulated(clerk_test_support::start()));
    let script = Script::timed("return {string.format('%.0f', now), #KEYS, #ARGV, KEYS[1], ARGV[2]}");
    let run = async |client: &RedisClient| {
        let reply = client.run(&script, &[&key("k")], &[b"1", b"2"]).await.unwrap().into_list().unwrap();
        let text = |at: usize| String::from_utf8(reply[at].clone().into_bytes().unwrap().into()).unwrap();
        assert_eq!((reply[1].int(), reply[2].int()), (Some(1), Some(2)));
        assert_eq!((text(3), text(4)), (client.key_name(&key("k")), "2".to_owned()));
        text(0).parse::<u128>().unwrap()
    };
    let micros = |clock: &Clock| clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    let of_process = RedisClient::new(options(&server).await.clock(Arc::clone(&clock))).unwrap();
    let before = micros(&clock);
    let now = run(&of_process).await;
    assert!((before..=micros(&clock)).contains(&now), "{now}");
    let of_server = RedisClient::new(server.options().clock(Arc::clone(&clock))).unwrap();
    let (seconds, _): (u128, u128) = server.command(&["TIME"]).await;
    let now = until("the time of the server", async || Some(run(&of_server).await)).await;
    assert!(now >= seconds * 1_000_000 && now > micros(&clock), "{now}");
}
