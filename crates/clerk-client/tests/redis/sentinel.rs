//! A primary that sentinels replace.

use clerk_client::redis::{RedisClient, RedisClientError, Script, SubscriptionEvent};
use clerk_test_support::log;
use clerk_test_support::redis::RedisServer;
use clerk_test_support::redis_sentinel::WatchedRedis;

use crate::support::{MINUTE, channel, key, refused, until, within};

#[tokio::test]
async fn client_follows_a_fail_over() {
    log::listen();
    let watched = WatchedRedis::start(3, 60_000).await;
    let client = watched.client();
    let script = Script::new("return redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000)");
    let set = async |value: &'static [u8]| client.run(&script, &[&key("k")], &[value]).await;
    set(b"before").await.unwrap();
    let mut subscription = client.subscribe(&channel("news"));
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Restored);
    watched.fail_over().await;
    let [old, new] = watched.servers();
    let has_role = async |server: &RedisServer, role: &str| {
        (server.replication_role().await.as_deref() == Some(role)).then_some(())
    };
    until("the replica is the primary", async || has_role(new, "master").await).await;
    until("the former primary is a replica", async || has_role(old, "slave").await).await;
    // The script is not known there.
    until("the client writes to the new primary", async || set(b"after").await.ok()).await;
    let value: String = new.command(&["GET", &client.key_name(&key("k"))]).await;
    assert_eq!(value, "after");
    within(async { while subscription.next().await != SubscriptionEvent::Restored {} }).await;
    client.publish(&channel("news"), b"x").await.unwrap();
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Message("x".into()));
    assert_eq!(refused(&client), []);
    assert!(!log::everything().contains("CANARY"));
}

#[tokio::test]
async fn sentinels_have_a_password_of_their_own() {
    let watched = WatchedRedis::start(1, 60_000).await;
    let options = watched.options().url(watched.url_without_password());
    let error = RedisClient::new(options).unwrap().get(&key("k")).await.unwrap_err();
    assert!(matches!(error, RedisClientError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("sentinel_password"), "{error}");
    let url = watched.url().expose().replace("/clerk?", "/other?").into();
    let error = RedisClient::new(watched.options().url(url)).unwrap().get(&key("k")).await.unwrap_err();
    assert!(error.to_string().contains("do not know the name"), "{error}");
    watched.client().set(&key("k"), b"v", MINUTE).await.unwrap();
}
