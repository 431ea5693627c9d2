//! Operations that Clerk bills, from a user's view: kept across restarts, added up over gateways.

use std::path::PathBuf;
use std::time::SystemTime;

use axum::Router;
use axum::routing::post;
use clerk_test_support::redis::RedisServer;

use crate::exporter::{Exporter, Folder, KEY, Web, request};

const MONTH: &str = "clerk_metered_month_operations";
const VERIFY: [(&str, &str); 2] = [("clerk_instance", "prod"), ("operation", "api_key_verify")];

/// A Clerk that verifies every API key. As at Clerk, the version in the path may be missing.
async fn clerk() -> Web {
    let verify = || post(async || "{}");
    Web::start(Router::new().route("/v1/api_keys/verify", verify()).route("/api_keys/verify", verify())).await
}

fn write(folder: &Folder, url: &str, gateway: &str) -> PathBuf {
    folder.write("key", KEY);
    // The month must not end during the test.
    let today: u8 = httpdate::fmt_http_date(SystemTime::now())[5..7].parse().unwrap();
    let billing_day = (today + 14) % 28 + 1;
    let text = format!(
        "probe: {{ interval: 1h }}
instances:
  - {{ name: prod, secret_key_file: key, api_url: '{url}', metered: {{ billing_day: {billing_day}, free: {{ m2m_verify: 7 }} }} }}
gateway:
  listen_address: 127.0.0.1:0
{gateway}"
    );
    folder.write("config.yml", &text)
}

/// Verifies API keys through the gateway, as an SDK without `/v1` in its paths does.
async fn verify(exporter: &Exporter, requests: usize) {
    let (gateway, headers) =
        (exporter.gateway().await, format!("Authorization: Bearer {KEY}\r\nContent-Length: 0\r\n"));
    for _ in 0..requests {
        assert_eq!(request(gateway, "POST", "/api_keys/verify", &headers).await.status, 200);
    }
}

async fn value(exporter: &Exporter, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    exporter.metrics().await.value(name, labels)
}

#[tokio::test]
async fn month_is_kept_across_restarts() {
    let (clerk, folder) = (clerk().await, Folder::new());
    let config = write(&folder, &clerk.url(), "");
    let storage = format!("--storage.path={}", folder.path("state").display());
    let first = Exporter::with_config(&config, &[&storage]).await;
    let start = value(&first, "clerk_metered_month_start_timestamp_seconds", &VERIFY[..1]).await;
    verify(&first, 3).await;
    assert_eq!(value(&first, MONTH, &VERIFY).await, Some(3.0));
    let counter = [VERIFY[0], VERIFY[1], ("source", "gateway")];
    assert_eq!(value(&first, "clerk_metered_operations_total", &counter).await, Some(3.0));
    let free = [VERIFY[0], ("operation", "m2m_verify")];
    assert_eq!(value(&first, "clerk_metered_free_operations", &free).await, Some(7.0));
    let status: serde_json::Value = serde_json::from_str(&first.get("/api/v1/status").await.text()).unwrap();
    let operations = &status["instances"][0]["metered_month"]["operations"];
    assert_eq!(operations[0], serde_json::json!({ "operation": "api_key_verify", "used": 3, "free": 100_000 }));
    assert_eq!(operations[2], serde_json::json!({ "operation": "m2m_verify", "used": 0, "free": 7 }));
    first.stopped().await;
    let second = Exporter::with_config(&config, &[&storage]).await;
    verify(&second, 2).await;
    assert_eq!(value(&second, MONTH, &VERIFY).await, Some(5.0));
    assert_eq!(value(&second, "clerk_metered_operations_total", &counter).await, Some(2.0), "of this process");
    let again = value(&second, "clerk_metered_month_start_timestamp_seconds", &VERIFY[..1]).await;
    assert!(start.is_some() && start == again, "{start:?} {again:?}");
    // Killed, it has kept what was there before its last write.
    let kept = || std::fs::read_to_string(folder.path("state").join("months")).unwrap_or_default();
    crate::exporter::eventually("the file", async || kept().contains("[5,0,0,0]").then_some(())).await;
    second.signal("KILL").await;
    second.ended().await;
    let third = Exporter::with_config(&config, &[&storage]).await;
    assert_eq!(value(&third, MONTH, &VERIFY).await, Some(5.0));
}

#[tokio::test]
async fn month_is_absent_without_storage() {
    let (clerk, folder) = (clerk().await, Folder::new());
    let exporter = Exporter::with_config(&write(&folder, &clerk.url(), ""), &[]).await;
    verify(&exporter, 1).await;
    assert_eq!(value(&exporter, MONTH, &VERIFY).await, None);
    assert_eq!(value(&exporter, "clerk_metered_month_end_timestamp_seconds", &VERIFY[..1]).await, None);
    assert_eq!(value(&exporter, "clerk_metered_free_operations", &VERIFY).await, Some(100_000.0));
}

/// With a folder or without, each process has its own field, so that no restart counts twice.
#[tokio::test]
async fn gateways_on_one_redis_add_up() {
    let (clerk, redis) = (clerk().await, RedisServer::start(&[]).await);
    let [one, other] = [Folder::new(), Folder::new()].map(|folder| {
        folder.write("redis", &format!("unix://{}", redis.socket().display()));
        let config = write(&folder, &clerk.url(), "  cache: { redis_url_file: redis }\n");
        (config, format!("--storage.path={}", folder.path("state").display()), folder)
    });
    let first = Exporter::with_config(&one.0, &[&one.1]).await;
    let second = Exporter::with_config(&other.0, &[]).await;
    verify(&first, 3).await;
    verify(&second, 2).await;
    // The second one learns of the first, which writes its last operations when it ends.
    first.stopped().await;
    second.until(MONTH, &VERIFY, |month| month == 5.0).await;
    let first = Exporter::with_config(&one.0, &[&one.1]).await;
    verify(&first, 1).await;
    first.until(MONTH, &VERIFY, |month| month == 6.0).await;
    // A process without a folder is another one after a restart.
    second.stopped().await;
    let second = Exporter::with_config(&other.0, &[]).await;
    verify(&second, 1).await;
    first.stopped().await;
    second.until(MONTH, &VERIFY, |month| month == 7.0).await;
}
