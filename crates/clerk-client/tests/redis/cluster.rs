//! A cluster of three: slots on different nodes, a slot that moves, and messages.

use std::time::Duration;

use bytes::Bytes;
use clerk_client::redis::{InstanceKeys, RedisClient, RedisClientError, RedisKey, Reply, Script, SubscriptionEvent};
use clerk_client::secret::Secret;
use clerk_test_support::redis_cluster::RedisCluster;

use crate::exercise::everything;
use crate::support::{MINUTE, refused, until, within};

/// Instances whose slots are on different nodes of three, with the slot (`CLUSTER KEYSLOT`).
const INSTANCES: [(&str, u16); 3] = [("a", 15495), ("b", 3300), ("c", 7365)];

fn key(instance: &str, name: &str) -> RedisKey {
    InstanceKeys::new(instance).key(&[name])
}

fn url_of(port: u16) -> Secret {
    Secret::new(format!("redis://127.0.0.1:{port}"))
}

#[tokio::test]
async fn each_instance_is_found_from_every_node() {
    let cluster = RedisCluster::start(3, 0).await;
    let script = Script::new("return redis.call('GET', KEYS[1])");
    let urls = cluster.nodes().iter().map(|node| url_of(node.port)).chain([cluster.url()]);
    let mut owners = Vec::new();
    for (instance, slot) in INSTANCES {
        let found: u16 = cluster.nodes()[0].server.command(&["CLUSTER", "KEYSLOT", instance]).await;
        assert_eq!(found, slot);
        owners.push(cluster.owner(0, slot).await);
    }
    owners.sort_unstable();
    assert_eq!(owners, [0, 1, 2]);
    for url in urls {
        let client = RedisClient::new(cluster.options().url(url)).unwrap();
        for (instance, _) in INSTANCES {
            client.set(&key(instance, "k"), instance.as_bytes(), MINUTE).await.unwrap();
            let value = Some(Bytes::from_static(instance.as_bytes()));
            assert_eq!(client.get(&key(instance, "k")).await.unwrap(), value);
            // Each node has to learn the script.
            let reply = client.run(&script, &[&key(instance, "k")], &[]).await.unwrap();
            assert_eq!(reply.into_bytes(), value);
        }
        assert_eq!((client.health().refused, client.health().unavailable), (0, 0));
        assert_eq!(refused(&client), []);
    }
}

#[tokio::test]
async fn everything_works_on_a_cluster() {
    let cluster = RedisCluster::start(3, 0).await;
    let (instance, slot) = INSTANCES[0];
    let owner = cluster.owner(0, slot).await;
    // The node that redirects all of it.
    let other = &cluster.nodes()[(owner + 1) % 3];
    let options = cluster.options().url(url_of(other.port));
    let client = everything(&cluster.nodes()[owner].server, options, instance).await;
    assert_eq!(refused(&client), []);
    let health = client.health();
    assert_eq!((health.refused, health.unavailable, health.timeouts), (0, 0, 0));
}

#[tokio::test]
async fn slot_that_moves_is_followed() {
    let cluster = RedisCluster::start(3, 0).await;
    let (instance, slot) = INSTANCES[0];
    let from = cluster.owner(0, slot).await;
    let to = (from + 1) % 3;
    let client = cluster.client();
    let (old, new) = (key(instance, "old"), key(instance, "new"));
    client.set(&old, b"old", MINUTE).await.unwrap();
    cluster.begin_move(slot, from, to).await;
    // The keys that are there stay in use; others are created at the new node (ASK).
    assert_eq!(client.get(&old).await.unwrap().as_deref(), Some(&b"old"[..]));
    client.set(&new, b"new", MINUTE).await.unwrap();
    assert_eq!(client.get(&new).await.unwrap().as_deref(), Some(&b"new"[..]));
    let on_node: i64 = cluster.nodes()[to].server.command(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).await;
    assert_eq!(on_node, 1);
    // A script that is not yet known there.
    let one = Script::new("return redis.call('GET', KEYS[1])");
    let reply = client.run(&one, &[&new], &[]).await.unwrap();
    assert_eq!(reply.into_bytes().as_deref(), Some(&b"new"[..]));
    // Keys on both nodes.
    let two = Script::new("return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}");
    let error = client.run(&two, &[&old, &new], &[]).await.unwrap_err();
    assert!(matches!(&error, RedisClientError::Unavailable { reason } if reason.contains("TRYAGAIN")), "{error}");
    cluster.finish_move(slot, from, to).await;
    let reply = client.run(&two, &[&old, &new], &[]).await.unwrap();
    let bytes = |text: &'static str| Reply::Bytes(Bytes::from_static(text.as_bytes()));
    assert_eq!(reply, Reply::List(vec![bytes("old"), bytes("new")]));
    assert_eq!(refused(&client), []);
}

#[tokio::test]
async fn messages_reach_subscribers_at_every_node() {
    let cluster = RedisCluster::start(3, 0).await;
    let (instance, slot) = INSTANCES[0];
    let channel = InstanceKeys::new(instance).channel(&["news"]);
    let owner = cluster.owner(0, slot).await;
    let clients: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| RedisClient::new(cluster.options().url(url_of(node.port))).unwrap())
        .chain([cluster.client()])
        .collect();
    let mut subscriptions: Vec<_> = clients.iter().map(|client| client.subscribe(&channel)).collect();
    for subscription in &mut subscriptions {
        assert_eq!(within(subscription.next()).await, SubscriptionEvent::Restored);
    }
    // Polled all the time, or else they cannot follow.
    let mut received: Vec<_> = subscriptions.iter().map(|_| 0).collect();
    let all_have =
        async |received: &mut [u64], subscriptions: &mut [clerk_client::redis::Subscription], number: u64| {
            let polled = received.iter_mut().zip(subscriptions);
            let polled = polled.map(|(received, subscription)| async move {
                while *received < number {
                    if let SubscriptionEvent::Message(message) = subscription.next().await {
                        *received = std::str::from_utf8(&message).unwrap().parse::<u64>().unwrap().max(*received);
                    }
                }
            });
            within(futures_util::future::join_all(polled)).await;
        };
    for (number, client) in (1..).zip(&clients) {
        client.publish(&channel, number.to_string().as_bytes()).await.unwrap();
        all_have(&mut received, &mut subscriptions, number).await;
    }
    // Once they know where the instance is, they go there: then no other node carries the messages.
    let write = async || {
        for client in &clients {
            client.set(&key(instance, "k"), b"v", MINUTE).await.unwrap();
        }
    };
    write().await;
    let subscribers = async |node: usize| -> u64 {
        let name = clients[0].channel_name(&channel);
        let (_, count): (String, u64) = cluster.nodes()[node].server.command(&["PUBSUB", "NUMSUB", &name]).await;
        count
    };
    let wait_at = async |subscriptions: &mut [clerk_client::redis::Subscription], node: usize| {
        let polled = subscriptions.iter_mut().map(|subscription| async move {
            loop {
                subscription.next().await;
            }
        });
        tokio::select! {
            () = until("all subscribe at the owner", async || (subscribers(node).await == 4).then_some(())) => {}
            _ = futures_util::future::join_all(polled) => {}
        }
    };
    wait_at(&mut subscriptions, owner).await;
    // After the slot has moved, they follow it.
    let to = (owner + 1) % 3;
    cluster.begin_move(slot, owner, to).await;
    cluster.finish_move(slot, owner, to).await;
    write().await;
    wait_at(&mut subscriptions, to).await;
}

#[tokio::test]
async fn lost_seed_does_not_matter() {
    let mut cluster = RedisCluster::start(3, 0).await;
    // The cluster goes on to serve the slots that it has.
    for node in cluster.nodes() {
        let () = node.server.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).await;
    }
    let (instance, slot) = INSTANCES[0];
    let owner = cluster.owner(0, slot).await;
    cluster.node_mut((owner + 1) % 3).server.kill().await;
    for _ in 0..10 {
        let client = cluster.client();
        client.set(&key(instance, "k"), b"v", Duration::from_secs(60)).await.unwrap();
    }
}
