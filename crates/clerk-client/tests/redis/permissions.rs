//! A user with exactly the documented rights, and with one right less.

use std::collections::BTreeSet;

use clerk_client::redis::{RedisOptions, RefusalClass, acl_rule};
use clerk_test_support::log;
use clerk_test_support::redis::RedisServer;

use crate::exercise::everything;
use crate::support::{refused, until};

/// The documented command.
const DOCUMENT: &str = include_str!("../../../../docs/redis.md");

/// The rights of the rule, one per entry.
pub(crate) fn rights(prefix: &str) -> Vec<String> {
    let rule = acl_rule(prefix);
    let (_, rights) = rule.split_once(" on ><password> ").unwrap();
    rights.split(' ').map(str::to_owned).collect()
}

async fn options(server: &RedisServer, rights: &[&str]) -> RedisOptions {
    server.options().url(server.url_of_user("app", rights).await)
}

/// The commands run since the last reset of the statistics.
async fn run(server: &RedisServer) -> BTreeSet<String> {
    let stats: String = server.command(&["INFO", "commandstats"]).await;
    let names = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next());
    names.map(str::to_owned).collect()
}

#[test]
fn the_documents_show_the_rule() {
    let rule = acl_rule("clerk-exporter:");
    assert!(DOCUMENT.contains(&rule), "docs/redis.md does not show: {rule}");
}

#[tokio::test]
async fn user_with_the_documented_rights_can_do_everything() {
    let server = RedisServer::start(&[]).await;
    let rights = rights("clerk-exporter:");
    let rights: Vec<_> = rights.iter().map(String::as_str).collect();
    let options = options(&server, &rights).await;
    let () = server.command(&["CONFIG", "RESETSTAT"]).await;
    let client = everything(&server, options.clone(), "prod").await;
    assert_eq!(refused(&client), []);
    // Again after the connections and the scripts are lost.
    let () = server.command(&["SCRIPT", "FLUSH"]).await;
    let _: i64 = server.command(&["CLIENT", "KILL", "USER", "app"]).await;
    let client = everything(&server, options, "prod").await;
    assert_eq!(refused(&client), []);
    let health = client.health();
    assert_eq!((health.refused, health.unavailable, health.timeouts), (0, 0, 0));
    assert_eq!(server.denied().await, [""; 0]);
    // Each right is used: none is superfluous.
    let mut subscription = client.subscribe(&crate::support::channel("news"));
    let is_pinged = async {
        until("the subscription is pinged", async || run(&server).await.contains("ping").then_some(())).await;
    };
    tokio::select! {
        () = is_pinged => {}
        () = async { loop { subscription.next().await; } } => {}
    }
    let run = run(&server).await;
    for right in rights.iter().filter_map(|right| right.strip_prefix('+')) {
        assert!(run.contains(right), "{right} is never run: {run:?}");
    }
}

#[tokio::test]
async fn each_missing_right_is_named() {
    let server = RedisServer::start(&[]).await;
    let rights = rights("clerk-exporter:");
    // Without `TIME` everything works, see `time`.
    let wanted: Vec<_> = rights.iter().filter(|right| !matches!(right.as_str(), "-@all" | "+time")).collect();
    assert!(wanted.len() > 30, "{wanted:?}");
    for missing in wanted {
        log::listen();
        let () = server.command(&["FLUSHALL"]).await;
        let () = server.command(&["SCRIPT", "FLUSH"]).await;
        let () = server.command(&["ACL", "LOG", "RESET"]).await;
        let left: Vec<_> = rights.iter().filter(|right| *right != missing).map(String::as_str).collect();
        let client = everything(&server, options(&server, &left).await, "prod").await;
        let mut subscription = client.subscribe(&crate::support::channel("news"));
        let is_refused = async {
            until(missing, async || refused(&client).contains(&RefusalClass::Permission).then_some(())).await;
        };
        tokio::select! {
            () = is_refused => {}
            () = async { loop { subscription.next().await; } } => {}
        }
        let denied = server.denied().await;
        let named = match missing.as_bytes()[0] {
            b'~' => "to the keys of the prefix",
            b'&' => "to the channels of the prefix",
            _ => {
                let name = &missing[1..];
                assert!(denied.iter().any(|it| it == name), "{missing}: {denied:?}");
                missing
            }
        };
        let log = log::everything();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("Redis refuses operations")).collect();
        let names = |line: &&str| line.split(" (NOPERM)").next().is_some_and(|head| head.contains(named));
        assert!(!warnings.is_empty() && warnings.iter().all(names), "{missing} is not named: {log}");
        assert!(
            warnings.iter().all(|line| line.contains("docs/redis.md") && line.contains(&acl_rule("clerk-exporter:")))
        );
        assert!(!log.contains("CANARY"), "{log}");
    }
}
