//! A lasting refusal is a state: a warning when it begins, a log line when it ends, and a metric meanwhile.

use std::time::Duration;

use clerk_client::redis::{RedisClient, RefusalClass, Script, SubscriptionEvent};
use clerk_test_support::log;
use clerk_test_support::redis::RedisServer;

use crate::support::{MINUTE, channel, key, refused, until, within};

fn count(what: &str) -> usize {
    log::everything().matches(what).count()
}

#[tokio::test]
async fn refused_subscription_is_logged_once_until_it_ends() {
    log::listen();
    let server = RedisServer::start(&[]).await;
    let url = server.url_of_user("app", &["~clerk-exporter:*", "+@all"]).await;
    let client = RedisClient::new(server.options().url(url)).unwrap();
    let mut subscription = client.subscribe(&channel("news"));
    tokio::select! {
        event = subscription.next() => panic!("{event:?}"),
        () = until("several attempts", async || {
            (count("cannot subscribe to messages") > 2).then_some(())
        }) => {}
    }
    assert_eq!(refused(&client), [RefusalClass::Permission]);
    assert_eq!(count("Redis refuses operations"), 1, "{}", log::everything());
    assert!(log::everything().contains("the right to the channels of the prefix"));
    // Other commands succeed and do not end it.
    client.set(&key("k"), b"v", MINUTE).await.unwrap();
    assert_eq!(refused(&client), [RefusalClass::Permission]);
    let () = server.command(&["ACL", "SETUSER", "app", "&clerk-exporter:*"]).await;
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Restored);
    assert_eq!(refused(&client), []);
    assert_eq!(count("Redis accepts operations again"), 1);
}

#[tokio::test]
async fn refused_script_is_logged_once_until_it_ends() {
    log::listen();
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let client = server.store();
    let script = Script::new("return redis.call('SET', KEYS[1], 'v', 'PX', 1000)");
    let run = async || client.run(&script, &[&key("k")], &[]).await;
    run().await.unwrap();
    let () = server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for _ in 0..3 {
        run().await.unwrap_err();
        client.set(&key("k"), b"v", MINUTE).await.unwrap_err();
        client.get(&key("k")).await.unwrap();
    }
    assert_eq!(refused(&client), [RefusalClass::OutOfMemory]);
    assert_eq!(count("Redis refuses operations"), 1, "one cause, one warning");
    let () = server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    run().await.unwrap();
    client.set(&key("k"), b"v", MINUTE).await.unwrap();
    assert_eq!(refused(&client), [RefusalClass::OutOfMemory], "the script may have taken another path");
    // A minute later.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    until("it is over", async || {
        run().await.unwrap();
        refused(&client).is_empty().then_some(())
    })
    .await;
    assert_eq!(count("Redis accepts operations again"), 1);
}

#[tokio::test]
async fn wrong_password_ends_with_any_success() {
    log::listen();
    let server = RedisServer::start(&[]).await;
    let url = server.url_of_user("app", &["~*", "&*", "+@all"]).await;
    let () = server.command(&["ACL", "SETUSER", "app", "resetpass", ">another"]).await;
    let client = RedisClient::new(server.options().url(url)).unwrap();
    client.get(&key("k")).await.unwrap_err();
    assert_eq!(refused(&client), [RefusalClass::Credentials]);
    let () = server.command(&["ACL", "SETUSER", "app", ">CANARY-right"]).await;
    until("the login succeeds", async || client.set(&key("k"), b"v", MINUTE).await.ok()).await;
    assert_eq!(refused(&client), []);
    assert!(!log::everything().contains("CANARY"));
}
