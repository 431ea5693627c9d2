//! A restart does not spend the quota twice, and a throttled instance is one log line.

use crate::exporter::{Clerk, Exporter, Folder, KEY, eventually, request};
use clerk_simulator::HeaderProfile;

const PATH: &str = "/v1/users/count";

/// A Clerk with this hourly limit and no quota headers.
async fn clerk(requests: u32) -> Clerk {
    let limits = vec![format!("instance={requests}/3600s").parse().unwrap()];
    Clerk::with(clerk_simulator::Options::default().limits(limits).headers(HeaderProfile::None)).await
}

fn write(folder: &Folder, url: &str, requests: u32, pace: &str) -> std::path::PathBuf {
    folder.write("key", KEY);
    let text = format!(
        "probe: {{ interval: 1h }}
instances:
  - {{ name: prod, secret_key_file: key, api_url: '{url}', limit: {{ requests: {requests}, window: 1h }} }}
gateway:
  listen_address: 127.0.0.1:0
  sole: true
  max_wait: 1ms
  policies: {{ retry: off, coalesce: off, cache: off, batch: off, pace: {pace} }}
"
    );
    folder.write("config.yml", &text)
}

async fn ask(exporter: &Exporter) -> u16 {
    let gateway = exporter.gateway().await;
    request(gateway, "GET", PATH, &format!("Authorization: Bearer {KEY}\r\n")).await.status
}

/// Requests that Clerk served and rejected.
fn at_clerk(clerk: &Clerk) -> (u64, u64) {
    let truth = clerk.simulator.truth();
    let windows = truth.instances.iter().flat_map(|instance| &instance.buckets).flat_map(|bucket| &bucket.windows);
    windows.fold((0, 0), |(allowed, refused), window| (allowed + window.allowed, refused + window.refused))
}

#[tokio::test]
async fn restart_does_not_spend_the_quota_twice() {
    let (clerk, folder) = (clerk(40).await, Folder::new());
    let config = write(&folder, &clerk.url(), 40, "on");
    let state = folder.path("state");
    let storage = format!("--storage.path={}", state.display());
    let before = Exporter::with_config(&config, &[&storage]).await;
    for _ in 0..30 {
        assert_eq!(ask(&before).await, 200);
    }
    // A second process on the same folder logs a warning and runs without state.
    let (elsewhere, other) = (self::clerk(40).await, Folder::new());
    let second = Exporter::with_config(&write(&other, &elsewhere.url(), 40, "on"), &[&storage]).await;
    eventually("the warning", async || second.output().contains("another process keeps its state").then_some(())).await;
    second.stopped().await;
    before.stopped().await;
    let after = Exporter::with_config(&config, &[&storage]).await;
    let mut served = 0;
    for _ in 0..30 {
        served += u32::from(ask(&after).await == 200);
    }
    let (allowed, refused) = at_clerk(&clerk);
    assert_eq!(refused, 0, "{served} served, {allowed} allowed");
    // The probes of both starts count, too.
    assert!((7..=9).contains(&served), "{served}");
    let log = after.output();
    assert!(log.contains("restored requests sent before this start"), "{log}");
    assert!(std::fs::read_dir(&state).unwrap().count() >= 2);
}

#[tokio::test]
async fn no_state_folder_is_logged_once_and_nothing_is_restored() {
    let (clerk, folder) = (clerk(40).await, Folder::new());
    let exporter = Exporter::with_config(&write(&folder, &clerk.url(), 40, "on"), &[]).await;
    assert_eq!(ask(&exporter).await, 200);
    let (_, log) = exporter.stopped().await;
    assert_eq!(log.matches("no state folder").count(), 1, "{log}");
}

/// The on-call engineer finds one line, which names the caller.
#[tokio::test]
async fn throttled_instance_logs_one_warning_with_its_top_caller() {
    let (clerk, folder) = (clerk(5).await, Folder::new());
    let exporter = Exporter::with_config(&write(&folder, &clerk.url(), 5, "off"), &[]).await;
    let mut refused = 0;
    for _ in 0..20 {
        refused += u32::from(ask(&exporter).await == 429);
    }
    assert!(refused >= 10, "{refused}");
    eventually("the warning", async || exporter.output().contains("Clerk rejects requests").then_some(())).await;
    let status = exporter.get("/api/v1/status").await;
    let status: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
    assert_eq!(status["instances"][0]["condition"], "blocked", "{status}");
    assert_eq!(status["instances"][0]["trouble"], "throttled");
    let page = exporter.get("/").await.text();
    assert!(page.contains("<strong>blocked</strong>") && page.contains("Top consumers"), "{page}");
    let top = exporter.get("/api/v1/top").await;
    let top: serde_json::Value = serde_json::from_slice(&top.body).unwrap();
    let first = &top["instances"][0]["last_1m"][0];
    assert_eq!((first["route"].as_str(), first["method"].as_str()), (Some(PATH), Some("GET")), "{top}");
    let labels =
        [("caller", "unknown"), ("route", PATH), ("method", "GET"), ("source", "gateway"), ("result", "refused")];
    exporter.until("clerk_ratelimit_requests_total", &labels, |count| count == f64::from(refused)).await;
    let (_, log) = exporter.stopped().await;
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("Clerk rejects requests")).collect();
    let [warning] = warnings[..] else { panic!("{log}") };
    for part in
        ["level=warn", "clerk_instance=prod", "top_caller=unknown", "top_route=/v1/users/count", "top_method=GET"]
    {
        assert!(warning.contains(part), "{part}: {warning}");
    }
}
