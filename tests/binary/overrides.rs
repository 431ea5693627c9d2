//! Pausing a caller from an operator's view: a call on the exporter's port, and what applications get.

use std::time::{SystemTime, UNIX_EPOCH};

use clerk_test_support::redis::RedisServer;
use serde_json::{Value, json};

use crate::exporter::{Clerk, Exporter, Folder, KEY, Page, eventually, request, send};
use crate::exposition::Scrape;

const WEB_TOKEN: &str = "web-token-CANARY-0123456789";
const IMPORT_TOKEN: &str = "import-token-CANARY-0123456789";

/// The password is `open sesame`.
const USERS: &str = "basic_auth_users: { alice: $2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy }\n";
const ALICE: &str = "Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n";

const PATH: &str = "/api/v1/overrides";
const PAUSE: &str = r#"{"instance":"prod","caller":"import","action":"pause","minutes":30}"#;
const END: &str = "clerk_gateway_caller_override_end_timestamp_seconds";

/// An exporter with a gateway whose port has a password.
async fn start(clerk: &Clerk, folder: &Folder, gateway: &str) -> Exporter {
    let web_config = folder.write("web.yml", USERS);
    let config = write(clerk, folder, gateway);
    Exporter::with_config(&config, &[&format!("--web.config.file={}", web_config.display())]).await
}

fn write(clerk: &Clerk, folder: &Folder, gateway: &str) -> std::path::PathBuf {
    folder.write("key", KEY);
    folder.write("web", WEB_TOKEN);
    folder.write("import", IMPORT_TOKEN);
    let text = format!(
        "probe: {{ interval: 1m }}
instances: [{{ name: prod, secret_key_file: key, api_url: '{}' }}]
gateway:
  listen_address: 127.0.0.1:0
  callers:
    - {{ name: web, token_file: web, instance: prod }}
    - {{ name: import, token_file: import, instance: prod, priority: low }}
  policies: {{ cache: off, coalesce: off, batch: off, pace: on }}
{gateway}",
        clerk.url()
    );
    folder.write("config.yml", &text)
}

async fn get(exporter: &Exporter, path: &str) -> Page {
    request(exporter.address, "GET", path, ALICE).await
}

async fn value(exporter: &Exporter, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    Scrape::parse(&get(exporter, "/metrics").await.text()).value(name, labels)
}

async fn post(exporter: &Exporter, headers: &str, body: &str) -> Page {
    let headers = format!("{headers}Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    send(exporter.address, "POST", PATH, &headers, body).await
}

async fn end(exporter: &Exporter) -> Page {
    let path = format!("{PATH}?instance=prod&caller=import");
    request(exporter.address, "DELETE", &path, ALICE).await
}

/// The callers with an override, as this exporter lists them.
async fn listed(exporter: &Exporter) -> Vec<String> {
    let page: Value = serde_json::from_slice(&get(exporter, PATH).await.body).unwrap();
    let callers = page["overrides"].as_array().unwrap().iter();
    callers.map(|it| format!("{} {} {}", it["caller"], it["action"], it["scope"]).replace('"', "")).collect()
}

/// The status that an application gets from the gateway.
async fn ask(exporter: &Exporter, token: &str) -> u16 {
    let headers = format!("Authorization: Bearer {token}\r\n");
    request(exporter.gateway().await, "GET", "/v1/users/count", &headers).await.status
}

#[tokio::test]
async fn pause_is_shown_logged_and_ended() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let exporter = start(&clerk, &folder, "").await;
    assert_eq!(post(&exporter, "", PAUSE).await.status, 401);
    assert_eq!(listed(&exporter).await, Vec::<String>::new());
    let page = post(&exporter, ALICE, PAUSE).await;
    assert_eq!((page.status, page.header("content-type")), (200, vec!["application/json"]), "{page:?}");
    let set: Value = serde_json::from_slice(&page.body).unwrap();
    let until = set["until"].as_str().unwrap();
    let expected = json!({
        "instance": "prod", "caller": "import", "action": "pause", "max_share": null, "until": until, "scope": "process"
    });
    assert_eq!(set, expected);
    let left = humantime::parse_rfc3339(until).unwrap().duration_since(SystemTime::now()).unwrap().as_secs();
    assert!((1500..=1800).contains(&left), "{left}");
    assert_eq!(listed(&exporter).await, ["import pause process"]);
    let labels = [("clerk_instance", "prod"), ("caller", "import"), ("action", "pause")];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let metric = value(&exporter, END, &labels).await.unwrap();
    assert!(metric > now + 1500.0 && metric < now + 1801.0, "{metric}");
    let status: Value = serde_json::from_slice(&get(&exporter, "/api/v1/status").await.body).unwrap();
    assert_eq!(status["instances"][0]["overrides"], json!([expected]));
    let html = get(&exporter, "/").await.text();
    assert!(html.contains("<small>import paused, 29 min left</small>"), "{html}");
    let page = end(&exporter).await;
    assert!(page.status == 200 && page.text().contains("\"caller\":\"import\""), "{page:?}");
    assert_eq!((value(&exporter, END, &labels).await, listed(&exporter).await.len()), (None, 0));
    assert_eq!(end(&exporter).await.status, 404);
    let output = eventually("the log", async || {
        let output = exporter.output();
        output.contains("override of a caller ends").then_some(output)
    })
    .await;
    for (message, words) in [
        ("override of a caller begins", ["caller=import", "action=pause", "until=", "by=operator", "user=alice"]),
        (
            "override of a caller ends",
            ["caller=import", "action=pause", "clerk_instance=prod", "by=operator", "user=alice"],
        ),
    ] {
        let line = output.lines().find(|line| line.contains(message)).unwrap_or_else(|| panic!("{message}: {output}"));
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
    assert!(!output.contains("CANARY") && !output.contains("sesame"), "{output}");
}

#[tokio::test]
async fn paused_caller_gets_429_and_others_do_not() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let exporter = start(&clerk, &folder, "").await;
    assert_eq!((ask(&exporter, WEB_TOKEN).await, ask(&exporter, IMPORT_TOKEN).await), (200, 200));
    assert_eq!(post(&exporter, ALICE, PAUSE).await.status, 200);
    let headers = format!("Authorization: Bearer {IMPORT_TOKEN}\r\n");
    let page = request(exporter.gateway().await, "GET", "/v1/users/count", &headers).await;
    assert_eq!((page.status, page.header("x-clerk-exporter-decision")), (429, vec!["shed"]), "{page:?}");
    assert!(page.header("retry-after")[0].parse::<u64>().is_ok_and(|seconds| seconds > 0), "{page:?}");
    assert_eq!(ask(&exporter, WEB_TOKEN).await, 200);
    let labels = [("clerk_instance", "prod"), ("priority", "low"), ("reason", "caller_paused")];
    assert_eq!(value(&exporter, "clerk_gateway_shed_total", &labels).await, Some(1.0));
    let cap = [("clerk_instance", "prod"), ("caller", "import")];
    assert_eq!(value(&exporter, "clerk_gateway_caller_cap_requests", &cap).await, Some(0.0));
    assert_eq!(end(&exporter).await.status, 200);
    assert_eq!(ask(&exporter, IMPORT_TOKEN).await, 200);
}

#[tokio::test]
async fn port_without_passwords_changes_nothing() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let exporter = Exporter::with_config(&write(&clerk, &folder, ""), &[]).await;
    for headers in ["", ALICE] {
        let page = post(&exporter, headers, PAUSE).await;
        assert!(page.status == 403 && page.text().contains("basic_auth_users"), "{page:?}");
    }
    assert_eq!(end(&exporter).await.status, 403);
    assert_eq!(listed(&exporter).await, Vec::<String>::new());
}

/// A gateway for each folder, both on this Redis.
async fn on_redis(clerk: &Clerk, folder: &Folder, redis: &RedisServer) -> Exporter {
    folder.write("redis", &format!("unix://{}", redis.socket().display()));
    start(clerk, folder, "  cache: { redis_url_file: redis }\n").await
}

/// Redis may take longer than its time-out on a busy machine.
async fn done(what: &str, mut call: impl AsyncFnMut() -> Page) {
    eventually(what, async || (call().await.status == 200).then_some(())).await;
}

async fn until_listed(exporter: &Exporter, expected: &[&str]) {
    eventually(&format!("{expected:?}"), async || (listed(exporter).await == expected).then_some(())).await;
}

#[tokio::test]
async fn gateways_on_one_redis_follow_each_other() {
    let (clerk, mut redis) = (Clerk::start().await, RedisServer::start(&[]).await);
    let folders = [Folder::new(), Folder::new()];
    let (first, second) = (on_redis(&clerk, &folders[0], &redis).await, on_redis(&clerk, &folders[1], &redis).await);
    done("the pause", async || post(&first, ALICE, PAUSE).await).await;
    until_listed(&first, &["import pause all"]).await;
    until_listed(&second, &["import pause all"]).await;
    // The other one ends it.
    eventually("the end", async || matches!(end(&second).await.status, 200 | 404).then_some(())).await;
    until_listed(&first, &[]).await;
    let cap = r#"{"caller":"web","action":"cap","max_share":0.25,"minutes":60}"#;
    done("the cap", async || post(&second, ALICE, cap).await).await;
    until_listed(&first, &["web cap all"]).await;
    assert!(first.output().contains("by=other_gateway"), "{}", first.output());
    // A gateway that starts later knows it, too.
    let folder = Folder::new();
    let third = on_redis(&clerk, &folder, &redis).await;
    until_listed(&third, &["web cap all"]).await;
    // Without Redis, what is known stays, and nothing is set.
    redis.kill().await;
    eventually("a refusal", async || {
        let page = post(&first, ALICE, PAUSE).await;
        (page.status == 503 && page.text().starts_with("not set: ")).then_some(())
    })
    .await;
    for exporter in [&first, &second, &third] {
        assert_eq!(listed(exporter).await, ["web cap all"]);
    }
}

#[tokio::test]
async fn pause_holds_in_all_gateways_on_one_redis() {
    let (clerk, redis) = (Clerk::start().await, RedisServer::start(&[]).await);
    let folders = [Folder::new(), Folder::new()];
    let (first, second) = (on_redis(&clerk, &folders[0], &redis).await, on_redis(&clerk, &folders[1], &redis).await);
    done("the pause", async || post(&first, ALICE, PAUSE).await).await;
    for exporter in [&first, &second] {
        eventually("the 429", async || (ask(exporter, IMPORT_TOKEN).await == 429).then_some(())).await;
        assert_eq!(ask(exporter, WEB_TOKEN).await, 200);
    }
    eventually("the end", async || matches!(end(&first).await.status, 200 | 404).then_some(())).await;
    eventually("200", async || (ask(&second, IMPORT_TOKEN).await == 200).then_some(())).await;
}

#[tokio::test]
async fn pause_works_without_time_and_with_a_password_command() {
    let (clerk, folder, redis) = (Clerk::start().await, Folder::new(), RedisServer::start(&[]).await);
    redis.url_of_user("app", &["~*", "&*", "+@all", "-time"]).await;
    folder.write("redis", &format!("unix://{}?user=app", redis.socket().display()));
    // The password of that user.
    let password = "redis_password_command: [printf, CANARY-right]";
    let exporter = start(&clerk, &folder, &format!("  cache: {{ redis_url_file: redis, {password} }}\n")).await;
    done("the pause", async || post(&exporter, ALICE, PAUSE).await).await;
    until_listed(&exporter, &["import pause all"]).await;
    eventually("the 429", async || (ask(&exporter, IMPORT_TOKEN).await == 429).then_some(())).await;
    let output = exporter.output();
    assert!(output.contains("Redis refuses TIME in scripts") && !output.contains("CANARY"), "{output}");
}
