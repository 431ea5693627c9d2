//! The error texts of the local server, checked against the table.

use std::collections::BTreeSet;

use clerk_client::redis::{RedisClient, RedisClientError, RedisOptions, RefusalClass, Script};
use clerk_test_support::redis::RedisServer;

use crate::support::{MINUTE, key, refused, until};

const TABLE: &str = include_str!("../data/redis-errors.tsv");

/// Replaces script hashes, which differ.
fn without_hashes(line: &str) -> String {
    let is_hash = |word: &str| word.trim_end_matches(',').len() == 40;
    line.trim().split(' ').map(|word| if is_hash(word) { "<hash>" } else { word }).collect::<Vec<_>>().join(" ")
}

/// Checks that the table contains the server's error for a command, if it covers that version.
async fn says(server: &RedisServer, user: Option<&RedisOptions>, words: &[&str]) {
    let url = user.map_or_else(|| server.url(), |options| options.url.clone());
    let error = server.error(&url, words).await;
    let info: String = server.command(&["INFO", "server"]).await;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap().trim().to_owned();
    let version: String = version.split('.').take(2).collect::<Vec<_>>().join(".");
    let rows = TABLE.lines().map(|row| row.split('\t').collect::<Vec<_>>()).filter(|row| row.len() == 6);
    let known: BTreeSet<_> = rows.filter(|row| row[1] == version).map(|row| without_hashes(row[3])).collect();
    let is_there = known.contains(&without_hashes(&error));
    assert!(known.is_empty() || is_there, "{version}: {words:?}: {error}");
}

const GET: &str = "return redis.call('GET', KEYS[1])";
const SET: &str = "return redis.call('SET', KEYS[1], 'v')";

#[tokio::test]
async fn refusals_of_access_rights_are_as_recorded() {
    let server = RedisServer::start(&[]).await;
    let rights = ["~clerk-exporter:*", "+@all", "-get", "-script"];
    let user = server.options().url(server.url_of_user("app", &rights).await);
    let user = Some(&user);
    says(&server, user, &["GET", "clerk-exporter:k"]).await;
    says(&server, user, &["SCRIPT", "LOAD", "return 1"]).await;
    says(&server, user, &["SET", "other", "v"]).await;
    says(&server, user, &["SUBSCRIBE", "news"]).await;
    says(&server, user, &["EVAL", "return redis.call('GET', ARGV[1])", "0", "clerk-exporter:k"]).await;
    says(&server, user, &["EVAL", "return redis.call('SET', ARGV[1], 'v')", "0", "other"]).await;
    says(&server, user, &["EVAL", "return redis.call('PUBLISH', 'news', 'x')", "0"]).await;
    let caught = "local e = redis.pcall('PUBLISH', 'news', 'x') return redis.error_reply(e.err)";
    says(&server, user, &["EVAL", caught, "0"]).await;
    says(&server, None, &["AUTH", "nobody", "wrong"]).await;
    says(&server, None, &["AUTH", "password"]).await;
    let locked = RedisServer::start(&["--requirepass", "right"]).await;
    let url = clerk_client::secret::Secret::new(format!("unix://{}", locked.socket().display()));
    assert_eq!(locked.error(&url, &["GET", "k"]).await, "NOAUTH Authentication required.");
}

#[tokio::test]
async fn refusals_of_a_server_in_trouble_are_as_recorded() {
    let server = RedisServer::start(&[]).await;
    says(&server, None, &["EVALSHA", &"f".repeat(40), "0"]).await;
    says(&server, None, &["NOSUCH", "NOPERM"]).await;
    says(&server, None, &["EVAL", "return redis.call('NOSUCH')", "0"]).await;
    for (option, value, back) in [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")] {
        let () = server.command(&["CONFIG", "SET", option, value]).await;
        says(&server, None, &["SET", "k", "v"]).await;
        says(&server, None, &["EVAL", SET, "1", "k"]).await;
        let () = server.command(&["CONFIG", "SET", option, back]).await;
    }
    let () = server.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    says(&server, None, &["SET", "k", "v"]).await;
    says(&server, None, &["EVAL", SET, "1", "k"]).await;
    let () = server.command(&["CONFIG", "SET", "replica-serve-stale-data", "no"]).await;
    says(&server, None, &["GET", "k"]).await;
    says(&server, None, &["EVAL", GET, "1", "k"]).await;
}

#[tokio::test]
async fn client_limit_is_not_reported_as_a_wrong_password() {
    let server = RedisServer::start(&[]).await;
    let options = server.options().url(server.url_of_user("app", &["~*", "&*", "+@all"]).await);
    let client = RedisClient::new(options).unwrap();
    // The admin connection is one; the client's would be the second.
    let mut admin = server.look().await;
    let () = redis::cmd("CONFIG").arg(&["SET", "maxclients", "1"]).query_async(&mut admin).await.unwrap();
    let error = client.get(&key("k")).await.unwrap_err();
    assert!(error.to_string().contains("maxclients"), "{error}");
    assert_eq!(refused(&client), []);
    let () = redis::cmd("CONFIG").arg(&["SET", "maxclients", "100"]).query_async(&mut admin).await.unwrap();
    until("the client connects", async || client.set(&key("k"), b"v", MINUTE).await.ok()).await;
}

#[tokio::test]
async fn renamed_commands_are_named_in_the_error() {
    let renamed = ["--rename-command", "GET", "", "--rename-command", "EVALSHA", ""];
    let server = RedisServer::start(&renamed).await;
    let client = server.store();
    let error = client.get(&key("k")).await.unwrap_err();
    assert!(error.to_string().contains("command get"), "{error}");
    let error = client.run(&Script::new(GET), &[&key("k")], &[]).await.unwrap_err();
    assert!(matches!(error, RedisClientError::Refused(_)) && error.to_string().contains("evalsha"), "{error}");
    assert_eq!(refused(&client), [RefusalClass::UnknownCommand]);
}

#[tokio::test]
async fn cluster_node_is_reported() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let arguments = ["--cluster-enabled", "yes", "--bind", "127.0.0.1", "--cluster-port", &port];
    let server = RedisServer::start(&arguments).await;
    says(&server, None, &["GET", "k"]).await;
    let error = server.store().get(&key("k")).await.unwrap_err();
    assert!(error.to_string().contains("CLUSTERDOWN"), "{error}");
}
