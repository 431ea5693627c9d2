//! New configurations and keys without a restart.

use crate::exporter::{Clerk, Exporter, Folder, KEY, OTHER_KEY, eventually};

/// Instances with these names and one key each.
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
async fn http_reload_is_off_by_default() {
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
async fn invalid_file_changes_nothing_and_reports_the_error() {
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
    // The old configuration stays in use.
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
async fn sighup_removes_and_adds_instances() {
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
    assert!(!output.contains("reloaded the secret key"), "no key was: {output}");
}

#[tokio::test]
async fn changed_file_is_reloaded_if_enabled() {
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

/// As the kubelet does: `key` links to `..data/key`, and `..data` is swapped.
#[cfg(unix)]
#[tokio::test]
async fn key_swapped_by_symlink_is_used_without_a_reload() {
    use std::os::unix::fs::symlink;
    let keys = vec![format!("a={KEY}").parse().unwrap()];
    let clerk = Clerk::with(Clerk::options().keys(keys)).await;
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
    eventually("the log line on the new key", async || {
        exporter.output().contains("reloaded the secret key").then_some(())
    })
    .await;
    let (_, output) = exporter.stopped().await;
    assert_eq!(output.matches("reloaded the secret key").count(), 1, "{output}");
    assert_eq!(output.matches("probes fail").count(), 1, "one line for each change of state: {output}");
}

const FAILURES: &str = "clerk_exporter_file_reload_failures_total";
const RELOADED: &str = "clerk_exporter_file_reload_success_timestamp_seconds";

#[tokio::test]
async fn config_is_loaded_once_its_missing_file_appears() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    let path = folder.write("config.yml", &config(&clerk, &["a"]));
    let arguments = ["--config.enable-auto-reload", "--config.auto-reload-interval=1"];
    let exporter = Exporter::with_config(&path, &arguments).await;
    exporter.until("clerk_up", &[], |up| up == 1.0).await;
    let kind = [("kind", "config")];
    let first = exporter.metrics().await.value(RELOADED, &kind).unwrap();
    let url = clerk.url();
    let with_file = format!("  - {{ name: c, secret_key_file: late, api_url: '{url}' }}\n");
    folder.write("config.yml", &format!("{}{with_file}", config(&clerk, &["a"])));
    exporter.until(SUCCESSFUL, &[], |successful| successful == 0.0).await;
    // No file changes, and the load is retried anyway.
    exporter.until(FAILURES, &kind, |failures| failures >= 3.0).await;
    assert_eq!(exporter.output().matches("configuration rejected").count(), 1, "{}", exporter.output());
    folder.write("late", OTHER_KEY);
    exporter.until("clerk_up", &[("clerk_instance", "c")], |up| up == 1.0).await;
    let scrape = exporter.metrics().await;
    assert_eq!(scrape.value(SUCCESSFUL, &[]), Some(1.0));
    assert!(scrape.value(RELOADED, &kind).unwrap() >= first);
    let (_, output) = exporter.stopped().await;
    assert!(output.contains("late") && output.contains("configuration loaded"), "{output}");
}

#[tokio::test]
async fn unreadable_token_is_retried_and_the_old_one_stays() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    folder.write("token", "first-token-0123456789\n");
    let text = format!(
        "{}gateway:\n  listen_address: 127.0.0.1:0\n  unknown_keys: reject\n  \
         callers: [{{ name: web, token_file: token, instance: a }}]\n",
        config(&clerk, &["a"])
    );
    let exporter = Exporter::with_config(&folder.write("config.yml", &text), &[]).await;
    let gateway = exporter.gateway().await;
    let ask = async |token: &str| {
        let authorization = format!("Authorization: Bearer {token}\r\n");
        crate::exporter::request(gateway, "GET", "/v1/users/count", &authorization).await.status
    };
    assert_eq!(ask("first-token-0123456789").await, 200);
    let kind = [("kind", "caller_token")];
    assert_eq!(exporter.metrics().await.value(FAILURES, &kind), Some(0.0));
    std::fs::remove_file(folder.path("token")).unwrap();
    exporter.until(FAILURES, &kind, |failures| failures >= 2.0).await;
    assert_eq!(ask("first-token-0123456789").await, 200, "the previous token stays in use");
    folder.write("token", "other-token-0123456789\n");
    eventually("the new token", async || (ask("other-token-0123456789").await == 200).then_some(())).await;
    assert_eq!(ask("first-token-0123456789").await, 401);
    let failures = exporter.metrics().await.value(FAILURES, &kind).unwrap();
    let (_, output) = exporter.stopped().await;
    assert_eq!(output.matches("failed to reload caller tokens").count(), 1, "{failures}: {output}");
    assert!(output.contains("reloaded caller tokens") && !output.contains("token-0123"), "{output}");
}

#[tokio::test]
async fn unusable_certificate_is_counted() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    let tls = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/prometheus-web/tests/data/tls");
    for name in ["server.pem", "server.key"] {
        std::fs::copy(tls.join(name), folder.path(name)).unwrap();
    }
    folder.write("web.yml", "tls_server_config: { cert_file: server.pem, key_file: server.key }\n");
    let text =
        format!("{}gateway: {{ listen_address: 127.0.0.1:0, web_config_file: web.yml }}\n", config(&clerk, &["a"]));
    let exporter = Exporter::with_config(&folder.write("config.yml", &text), &[]).await;
    let kind = [("kind", "tls_certificate")];
    assert_eq!(exporter.metrics().await.value(FAILURES, &kind), Some(0.0));
    assert!(exporter.metrics().await.value(RELOADED, &kind).is_some());
    folder.write("server.pem", "half of a certificate");
    exporter.until(FAILURES, &kind, |failures| failures >= 2.0).await;
    std::fs::copy(tls.join("server.pem"), folder.path("server.pem")).unwrap();
    let failures = exporter.metrics().await.value(FAILURES, &kind).unwrap();
    assert!(failures >= 2.0);
    let (_, output) = exporter.stopped().await;
    assert!(output.contains("cert_file") && output.contains("stays in force"), "{output}");
}
