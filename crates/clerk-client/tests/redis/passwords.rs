//! Passwords that change, and are read at each connect.

use clerk_client::redis::{ErrorReply, RedisClient, RedisClientError, RedisPassword, SubscriptionEvent};
use clerk_client::secret::Secret;
use clerk_test_support::log;
use clerk_test_support::redis::RedisServer;

use crate::support::{MINUTE, channel, key, refused, until, within};

async fn set_password(server: &RedisServer, password: &str) {
    let password = format!(">{password}");
    let () = server.command(&["ACL", "SETUSER", "app", "on", "resetpass", &password, "~*", "&*", "+@all"]).await;
    let _: i64 = server.command(&["CLIENT", "KILL", "USER", "app"]).await;
}

fn url(server: &RedisServer) -> Secret {
    Secret::new(format!("unix://{}?user=app", server.socket().display()))
}

#[tokio::test]
async fn file_is_read_at_each_connect() {
    log::listen();
    let server = RedisServer::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    let options = server.options().url(url(&server)).password(RedisPassword::file(&file));
    let client = RedisClient::new(options).unwrap();
    let error = client.get(&key("k")).await.unwrap_err();
    assert!(matches!(error, RedisClientError::Unavailable { .. }), "{error}");
    let mut subscription = client.subscribe(&channel("news"));
    for password in ["CANARY-first", "CANARY-second"] {
        std::fs::write(&file, password).unwrap();
        set_password(&server, password).await;
        until("the new password is used", async || client.set(&key("k"), b"v", MINUTE).await.ok()).await;
        let restored = async { while subscription.next().await != SubscriptionEvent::Restored {} };
        within(restored).await;
    }
    assert_eq!(refused(&client), []);
    std::fs::write(&file, "CANARY-wrong").unwrap();
    let _: i64 = server.command(&["CLIENT", "KILL", "USER", "app"]).await;
    let error = until("the wrong password is used", async || client.get(&key("k")).await.err()).await;
    assert_eq!(error, RedisClientError::Refused(ErrorReply::Credentials));
    assert!(!log::everything().contains("CANARY"), "{}", log::everything());
}

#[tokio::test]
async fn command_runs_at_each_connect() {
    let server = RedisServer::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    // Each run prints another password, as for tokens that expire.
    let count = directory.path().join("count");
    let script = "n=$(($(cat \"$0\" 2>/dev/null || echo 0) + 1)); echo $n >\"$0\"; echo CANARY-$n";
    let command = ["sh".into(), "-c".into(), script.into(), count.clone().into_os_string()];
    let client =
        RedisClient::new(server.options().url(url(&server)).password(RedisPassword::command(command))).unwrap();
    for run in 1..=3 {
        set_password(&server, &format!("CANARY-{run}")).await;
        client.set(&key("k"), b"v", MINUTE).await.unwrap();
        client.get(&key("k")).await.unwrap();
        assert_eq!(std::fs::read_to_string(&count).unwrap().trim(), run.to_string());
    }
    assert_eq!(client.health().connections, 3);
}
