//! Connections are replaced before they are too old.

use std::time::Duration;

use clerk_client::redis::{RedisClient, RedisPassword, SubscriptionEvent};
use clerk_client::secret::Secret;
use clerk_test_support::redis::RedisServer;

use crate::support::{MINUTE, channel, key, until, within};

#[tokio::test]
async fn old_connections_are_replaced_without_an_error() {
    let server = RedisServer::start(&[]).await;
    let client = RedisClient::new(server.options().max_connection_age(Duration::from_millis(1))).unwrap();
    client.set(&key("k"), b"v", MINUTE).await.unwrap();
    until("several connections were used", async || {
        assert_eq!(client.get(&key("k")).await.unwrap().as_deref(), Some(&b"v"[..]));
        (client.health().connections > 5).then_some(())
    })
    .await;
    let health = client.health();
    assert_eq!((health.unavailable, health.timeouts, health.refused), (0, 0, 0));
    // The replaced ones are closed: the current one, its successor, and the one that asks.
    until("old connections are closed", async || {
        let clients: String = server.command(&["CLIENT", "LIST"]).await;
        (clients.lines().count() <= 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connection_is_kept_while_it_cannot_be_replaced() {
    let server = RedisServer::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "CANARY-right").unwrap();
    server.url_of_user("app", &["~*", "&*", "+@all"]).await;
    let url = Secret::new(format!("unix://{}?user=app", server.socket().display()));
    let options = server.options().url(url).password(RedisPassword::file(&file));
    let client = RedisClient::new(options.max_connection_age(Duration::from_millis(1))).unwrap();
    client.set(&key("k"), b"v", MINUTE).await.unwrap();
    std::fs::write(&file, "wrong").unwrap();
    let begun = client.health().connections;
    until("another connection was refused", async || {
        client.get(&key("k")).await.unwrap();
        let denied = server.denied().await;
        (client.health().connections > begun && !denied.is_empty()).then_some(())
    })
    .await;
    for _ in 0..100 {
        client.get(&key("k")).await.unwrap();
    }
}

#[tokio::test]
async fn no_message_is_lost_when_a_subscription_is_replaced() {
    let server = RedisServer::start(&[]).await;
    let client = RedisClient::new(server.options().max_connection_age(Duration::from_millis(1))).unwrap();
    let mut subscription = client.subscribe(&channel("news"));
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Restored);
    let publisher = server.store();
    let connections = async || -> u64 {
        let info: String = server.command(&["INFO", "stats"]).await;
        let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        count.unwrap().trim().parse().unwrap()
    };
    let before = connections().await;
    let mut asked = 0;
    let mut expected = 0_u64;
    // Until the subscription was replaced often.
    while connections().await - before - asked < 20 {
        asked += 1;
        for _ in 0..20 {
            publisher.publish(&channel("news"), expected.to_string().as_bytes()).await.unwrap();
            expected += 1;
        }
        let mut last = None;
        while last != Some(expected - 1) {
            let SubscriptionEvent::Message(message) = within(subscription.next()).await else { panic!("lost") };
            let number: u64 = std::str::from_utf8(&message).unwrap().parse().unwrap();
            // A message may come twice, but none is left out.
            assert!(last.is_none_or(|last| number <= last + 1), "{number} after {last:?}");
            last = last.max(Some(number));
        }
    }
}
