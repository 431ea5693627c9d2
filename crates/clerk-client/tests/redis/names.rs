//! Names of keys and channels as the server sees them.

use std::collections::BTreeSet;

use clerk_client::redis::{RedisClient, RedisConfigError, SCHEMA_VERSION};
use clerk_test_support::redis::RedisServer;

use crate::exercise::everything;
use crate::support::within;

/// The cluster slot of a key: CRC16 (XMODEM) of its hash tag, or of the whole key.
fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| Some(rest.split_once('}')?.0)).filter(|tag| !tag.is_empty());
    let sum = tag.unwrap_or(key).bytes().fold(0_u16, |sum, byte| {
        (0..8).fold(sum ^ (u16::from(byte) << 8), |sum, _| (sum << 1) ^ if sum & 0x8000 == 0 { 0 } else { 0x1021 })
    });
    sum % 16384
}

#[test]
fn slots_are_computed_as_the_cluster_specification_says() {
    assert_eq!((slot("123456789"), slot("x{123456789}y"), slot("{}123")), (0x31c3, 0x31c3, slot("{}123")));
}

#[tokio::test]
async fn every_name_contains_instance_and_schema() {
    let server = RedisServer::start(&[]).await;
    for (instance, tag) in [("prod", "prod"), ("a}b {c:%", "a%7Db%20%7Bc%3A%25")] {
        let mut monitor = server.monitor().await;
        let channels: BTreeSet<String> = {
            let client = everything(&server, server.options(), instance).await;
            let channels: Vec<String> = server.command(&["PUBSUB", "CHANNELS"]).await;
            drop(client);
            channels.into_iter().collect()
        };
        let _: String = server.command(&["ECHO", "the end"]).await;
        let begin = format!("clerk-exporter:{{{tag}}}:v{SCHEMA_VERSION}:");
        let is_ours = |name: &str| {
            name.starts_with(&begin) || name.starts_with(&format!("clerk-exporter:{{prod}}:v{SCHEMA_VERSION}:"))
        };
        let (mut keys, mut calls, mut declared) = (BTreeSet::new(), 0, BTreeSet::new());
        loop {
            let (command, is_in_script) = within(monitor.next()).await;
            match command[0].to_ascii_lowercase().as_str() {
                "echo" => break,
                // Sent by this test.
                "keys" | "command" | "pttl" if !is_in_script => continue,
                "publish" | "subscribe" => assert!(is_ours(&command[1]), "{command:?}"),
                _ => {}
            }
            let named = server.keys_of(&command).await;
            assert!(named.iter().all(|key| is_ours(key)), "{command:?}: {named:?}");
            if is_in_script {
                assert!(named.iter().all(|key| declared.contains(key)), "{command:?} is not among {declared:?}");
            } else if command[0].eq_ignore_ascii_case("evalsha") {
                let slots: BTreeSet<_> = named.iter().map(|key| slot(key)).collect();
                assert_eq!(slots.len(), 1, "{command:?}");
                calls += 1;
                declared = named.iter().cloned().collect();
            }
            keys.extend(named);
        }
        assert!(channels.iter().all(|channel| is_ours(channel)), "{channels:?}");
        let kinds = ["answer", "tag", "log", "starts", "throttled", "counting", "processes"];
        for kind in kinds {
            assert!(keys.iter().any(|key| key.starts_with(&begin) && key.contains(kind)), "no {kind} in {keys:?}");
        }
        assert!(calls > 10, "{calls}");
        let there: Vec<_> = server.keys().await.into_iter().map(|(key, _)| key).collect();
        assert!(there.iter().all(|key| keys.contains(key)), "{there:?}");
        let () = server.command(&["FLUSHALL"]).await;
    }
}

#[tokio::test]
async fn prefix_that_hides_the_hash_tag_is_rejected() {
    let server = RedisServer::start(&[]).await;
    let with = |prefix: &str| RedisClient::new(server.options().prefix(prefix.to_owned()));
    assert!(with("team:").is_ok());
    assert_eq!(with("{team}:").unwrap_err(), RedisConfigError::Prefix);
}
