//! New configurations and new keys, without a restart.

use crate::exporter::{Clerk, Exporter, Folder, KEY, OTHER_KEY, eventually};

/// Instances of these names, all with one key each.
fn config(clerk: &Clerk, names: &[&str]) -> String {
    let mut text = "probe: { interval: 1s }\ninstances:\n".to_owned();
    for name in names {
        let key = if *name == "a" { KEY } else { OTHER_KEY };
        text.push_str(&format!("  - {{ name: {name}, secret_key: {key}, api_url: '{}' }}\n", clerk.url()));
    }
    text
}

const SUCCESSFUL: &str = "clerk_exporter_config_last_reload_successful";
const TIMESTAMP: &str = "clerk_exporter_config_last_reload_success_timestamp_seconds";

#[tokio::test]
async fn reloading_over_http_is_off_unless_it_is_enabled() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    let path = folder.write("config.yml", &config(&clerk, &["a"]));
    let off = Exporter::with_config(&path, &[]).await;
    let page = off.request("POST", "/-/reload", "Content-Length: 0\r\n").await;
    assert!(page.status == 403 && page.text().contains("--web.enable-lifecycle"), "{page:?}");
    let on = Exporter::with_config(&path, &["--web.enable-lifecycle"]).await;
    for method in ["GET", "HEAD", "DELETE"] {
        let page = on.request(method, "/-/reload", "").await;
        assert_eq!((page.status, page.header("allow")), (405, vec!["post, put"]), "{method}");
    }
    for method in ["POST", "PUT"] {
        assert_eq!(on.request(method, "/-/reload", "Content-Length: 0\r\n").await.status, 200, "{method}");
    }
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_what_is_wrong() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    let path = folder.write("config.yml", &config(&clerk, &["a"]));
    let exporter = Exporter::with_config(&path, &["--web.enable-lifecycle"]).await;
    exporter.until("clerk_up", &[], |up| up == 1.0).await;
    let first = exporter.metrics().await.value(TIMESTAMP, &[]).unwrap();
    for bad in [format!("{}unknown_key: 1\n", config(&clerk, &["a"])), String::new(), "{".to_owned()] {
        folder.write("config.yml", &bad);
        let page = exporter.request("POST", "/-/reload", "Content-Length: 0\r\n").await;
        let text = page.text();
        assert!(page.status == 500 && text.contains("config.yml"), "{text}");
        assert!(!text.contains("CANARY"), "{text}");
        let scrape = exporter.metrics().await;
        assert_eq!((scrape.value(SUCCESSFUL, &[]), scrape.value(TIMESTAMP, &[])), (Some(0.0), Some(first)));
        assert!(scrape.value("clerk_probes_total", &[("clerk_instance", "a")]).unwrap() >= 1.0);
    }
    // It goes on with the old one.
    let made = exporter.metrics().await.value("clerk_probes_total", &[]).unwrap();
    exporter.until("clerk_probes_total", &[], |probes| probes > made).await;
    folder.write("config.yml", &config(&clerk, &["a"]));
    assert_eq!(exporter.request("POST", "/-/reload", "Content-Length: 0\r\n").await.status, 200);
    let scrape = exporter.metrics().await;
    assert_eq!(scrape.value(SUCCESSFUL, &[]), Some(1.0));
    assert!(scrape.value(TIMESTAMP, &[]).unwrap() > first);
    assert!(scrape.value("clerk_probes_total", &[]).unwrap() > made, "counters stay");
}

#[tokio::test]
async fn a_hangup_takes_instances_away_and_brings_new_ones() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    let path = folder.write("config.yml", &config(&clerk, &["a", "b"]));
    let exporter = Exporter::with_config(&path, &[]).await;
    for name in ["a", "b"] {
        exporter.until("clerk_up", &[("clerk_instance", name)], |up| up == 1.0).await;
    }
    let made = exporter.metrics().await.value("clerk_probes_total", &[("clerk_instance", "a")]).unwrap();
    folder.write("config.yml", &config(&clerk, &["a", "c"]));
    exporter.signal("HUP").await;
    exporter.until("clerk_up", &[("clerk_instance", "c")], |up| up == 1.0).await;
    let scrape = exporter.metrics().await;
    assert!(scrape.samples.iter().all(|sample| sample.labels.values().all(|value| value != "b")));
    assert!(scrape.value("clerk_probes_total", &[("clerk_instance", "a")]).unwrap() >= made);
    assert!(exporter.get("/config").await.text().contains('c'));
    let (status, output) = exporter.stopped().await;
    assert!(status.success() && output.contains("configuration loaded"), "{output}");
    assert!(!output.contains("was replaced"), "no key was: {output}");
}

#[tokio::test]
async fn a_changed_file_is_noticed_if_that_is_wanted() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    let path = folder.write("config.yml", &config(&clerk, &["a"]));
    let arguments = ["--config.enable-auto-reload", "--config.auto-reload-interval=1"];
    let exporter = Exporter::with_config(&path, &arguments).await;
    exporter.until("clerk_up", &[], |up| up == 1.0).await;
    folder.write("config.yml", &config(&clerk, &["a", "c"]));
    exporter.until("clerk_up", &[("clerk_instance", "c")], |up| up == 1.0).await;
    folder.write("config.yml", "instances: []\n");
    exporter.until(SUCCESSFUL, &[], |successful| successful == 0.0).await;
    std::fs::remove_file(&path).unwrap();
    folder.write("config.yml", &config(&clerk, &["a"]));
    exporter.until(SUCCESSFUL, &[], |successful| successful == 1.0).await;
}

/// As the kubelet does it: `key` leads to `..data/key`, and `..data` is swapped.
#[cfg(unix)]
#[tokio::test]
async fn a_key_that_is_swapped_by_a_symbolic_link_is_used_without_a_reload() {
    use std::os::unix::fs::symlink;
    let keys = vec![format!("a={KEY}").parse().unwrap()];
    let clerk = Clerk::with(clerk_simulator::Options { keys, ..clerk_simulator::Options::default() }).await;
    let folder = Folder::new();
    for (version, key) in [("..v1", OTHER_KEY), ("..v2", KEY)] {
        std::fs::create_dir(folder.path(version)).unwrap();
        std::fs::write(folder.path(version).join("key"), format!("{key}\n")).unwrap();
    }
    symlink("..v1", folder.path("..data")).unwrap();
    symlink("..data/key", folder.path("key")).unwrap();
    let path = folder.write(
        "config.yml",
        &format!(
            "probe: {{ interval: 1s }}\ninstances: [{{ name: a, secret_key_file: key, api_url: '{}' }}]\n",
            clerk.url()
        ),
    );
    let exporter = Exporter::with_config(&path, &[]).await;
    exporter.until("clerk_key_valid", &[], |valid| valid == 0.0).await;
    exporter.until("clerk_probe_failures_total", &[("reason", "key")], |failures| failures >= 2.0).await;
    symlink("..v2", folder.path("..new")).unwrap();
    std::fs::rename(folder.path("..new"), folder.path("..data")).unwrap();
    exporter.until("clerk_key_valid", &[], |valid| valid == 1.0).await;
    let failures = exporter.metrics().await.value("clerk_probe_failures_total", &[("reason", "key")]).unwrap();
    assert!(failures >= 2.0, "counters stay");
    eventually("the log tells of the new key", async || exporter.output().contains("was replaced").then_some(())).await;
    let (_, output) = exporter.stopped().await;
    assert_eq!(output.matches("was replaced").count(), 1, "{output}");
    assert_eq!(output.matches("probes fail").count(), 1, "one line for each change of state: {output}");
}
