//! The pages.

use clerk_simulator::{Fault, HeaderProfile};

use crate::exporter::{Clerk, Exporter, Folder, KEY, eventually, within};

/// One instance, from the environment.
async fn exporter(clerk: &Clerk, arguments: &[&str]) -> Exporter {
    Exporter::start(arguments, &[("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", &clerk.url())]).await
}

/// The targets of all links of a page.
fn links(html: &str) -> Vec<String> {
    html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn landing_page_shows_the_state_and_valid_links() {
    let clerk = Clerk::start().await;
    let exporter = exporter(&clerk, &[]).await;
    exporter.until("clerk_up", &[], |up| up == 1.0).await;
    let page = exporter.get("/").await;
    let html = page.text();
    assert_eq!((page.status, page.header("content-type")), (200, vec!["text/html; charset=utf-8"]));
    for mark in ["default", "development", "of 100", "fine", "key valid", "http-equiv=\"refresh\""] {
        assert!(html.contains(mark), "{mark}: {html}");
    }
    assert!(!html.contains("<script") && !html.contains("sk_test"), "{html}");
    for link in links(&html) {
        assert_eq!(exporter.get(&link).await.status, 200, "{link}");
    }
    assert!(exporter.request("HEAD", "/", "").await.body.is_empty());
}

#[tokio::test]
async fn links_are_valid_below_a_prefix() {
    let clerk = Clerk::start().await;
    for (arguments, prefix, shown) in [
        (vec!["--web.route-prefix=/clerk"], "/clerk", "/clerk"),
        (vec!["--web.external-url=https://example.org/a/b/"], "/a/b", "/a/b"),
        (vec!["--web.external-url=https://example.org/out", "--web.route-prefix=/in"], "/in", "/out"),
        (vec!["--web.external-url=https://example.org/out", "--web.route-prefix=/"], "", "/out"),
        (vec!["--web.external-url=https://example.org"], "", ""),
        (vec!["--web.external-url=/path/alone"], "/path/alone", "/path/alone"),
        (vec!["--web.telemetry-path=/a/b.c"], "", ""),
    ] {
        let exporter = exporter(&clerk, &arguments).await;
        exporter_is_ready(&exporter, prefix).await;
        let page = exporter.get(&format!("{prefix}/")).await;
        assert_eq!(page.status, 200, "{arguments:?}");
        let links = links(&page.text());
        assert!(links.len() >= 5);
        for link in links {
            // As a reverse proxy rewrites it.
            let inner = format!("{prefix}{}", link.strip_prefix(shown).unwrap());
            assert_eq!(exporter.get(&inner).await.status, 200, "{arguments:?} {link}");
        }
        let root = exporter.get("/").await;
        assert!(matches!(root.status, 200 | 307), "{arguments:?}: {}", root.status);
        assert_eq!(exporter.get(&format!("{prefix}/nothing")).await.status, 404);
        if !prefix.is_empty() {
            assert_eq!(exporter.get("/metrics").await.status, 404);
        }
    }
}

async fn exporter_is_ready(exporter: &Exporter, prefix: &str) {
    let path = format!("{prefix}/-/ready");
    eventually("it is ready", async || (exporter.get(&path).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn pages_handle_unknown_values_and_unusual_names() {
    let clerk = Clerk::with(clerk_simulator::Options::default().headers(HeaderProfile::None)).await;
    clerk.simulator.set_faults(Fault::Latency { millis: 600_000 }.always().into()).unwrap();
    let folder = Folder::new();
    let name = "<b>\\\"&'ü</b>";
    let config = folder.write(
        "config.yml",
        &format!(
            "instances:\n  - {{ name: '{}', secret_key: {KEY}, api_url: '{}' }}\n",
            name.replace('\'', "''"),
            clerk.url()
        ),
    );
    let exporter = Exporter::with_config(&config, &[]).await;
    let html = exporter.get("/").await.text();
    assert!(html.contains("&lt;b&gt;\\&quot;&amp;'ü&lt;/b&gt;") && !html.contains("<b>"), "{html}");
    assert!(html.contains("not probed yet") && html.contains("unknown of 100"), "{html}");
    let status: serde_json::Value = serde_json::from_slice(&exporter.get("/api/v1/status").await.body).unwrap();
    let instance = &status["instances"][0];
    assert_eq!(instance["name"], name);
    assert!(instance["up"].is_null() && instance["buckets"][0]["remaining"].is_null());
    assert_eq!(exporter.metrics().await.value("clerk_probes_total", &[("clerk_instance", name)]), Some(0.0));
    let ready = exporter.get("/-/ready").await;
    assert_eq!(ready.status, 503, "the first probe is in flight");
    assert_eq!(exporter.get("/-/healthy").await.status, 200);
}

#[tokio::test]
async fn status_is_json_and_config_has_no_secrets() {
    let clerk = Clerk::start().await;
    let exporter = exporter(&clerk, &[]).await;
    exporter.until("clerk_up", &[], |up| up == 1.0).await;
    let page = exporter.get("/api/v1/status").await;
    assert_eq!(page.header("content-type"), ["application/json"]);
    let status: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
    let instance = &status["instances"][0];
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((instance["environment"].as_str(), instance["up"].as_bool()), (Some("development"), Some(true)));
    let bucket = &instance["buckets"][0];
    assert_eq!((bucket["bucket"].as_str(), bucket["basis"].as_str()), (Some("instance"), Some("headers")));
    assert_eq!(bucket["limit"], 100);
    assert!(bucket["remaining"].as_u64().unwrap() < 100);
    let page = exporter.get("/config").await;
    let text = page.text();
    assert!(page.status == 200 && text.contains("default") && text.contains(&clerk.url()), "{text}");
    assert!(!text.contains("sk_test"), "{text}");
}

#[tokio::test]
async fn health_readiness_and_unknown_paths() {
    let clerk = Clerk::start().await;
    let exporter = exporter(&clerk, &[]).await;
    exporter_is_ready(&exporter, "").await;
    for path in ["/-/healthy", "/-/ready", "/metrics", "/config", "/api/v1/status"] {
        let (get, head) = (exporter.get(path).await, exporter.request("HEAD", path, "").await);
        assert_eq!((get.status, head.status), (200, 200), "{path}");
        assert!(!get.body.is_empty() && head.body.is_empty(), "{path}");
        assert_eq!(exporter.request("POST", path, "Content-Length: 0\r\n").await.status, 405, "{path}");
    }
    for path in
        ["/nothing", "/-/", "/-/quit", "/metrics/", "//metrics", "/%2e%2e/etc/passwd", "/api/v1", "/favicon.ico"]
    {
        assert_eq!(exporter.get(path).await.status, 404, "{path}");
    }
    assert_eq!(exporter.get("/metrics?a=b&c").await.status, 200);
}

#[tokio::test]
async fn no_page_calls_clerk() {
    let clerk = Clerk::start().await;
    let exporter = exporter(&clerk, &[]).await;
    exporter_is_ready(&exporter, "").await;
    let before = clerk.requests();
    for _ in 0..20 {
        for path in ["/", "/metrics", "/api/v1/status", "/config", "/-/healthy", "/-/ready", "/-/reload", "/nothing"] {
            exporter.get(path).await;
        }
    }
    // A probe may have been due meanwhile, but not 160.
    assert!(clerk.requests() - before <= 5, "{} requests", clerk.requests() - before);
}

#[tokio::test]
async fn a_scrape_does_not_wait_for_clerk() {
    let clerk = Clerk::start().await;
    clerk.simulator.set_faults(Fault::Latency { millis: 600_000 }.always().into()).unwrap();
    let exporter = exporter(&clerk, &[]).await;
    for _ in 0..50 {
        assert_eq!(within("a scrape", exporter.get("/metrics")).await.status, 200);
    }
    assert_eq!(exporter.metrics().await.value("clerk_probes_total", &[]), Some(0.0), "the probe is still waiting");
}

#[tokio::test]
async fn reserved_telemetry_paths_are_rejected() {
    for path in ["/config", "/api/v1/status", "/-/ready", "/", "metrics", "/{a}", "/a//b", "/*x"] {
        let argument = format!("--web.telemetry-path={path}");
        let mut command = crate::exporter::command(&[&argument, "--web.listen-address=127.0.0.1:0"]);
        command.env("CLERK_SECRET_KEY", KEY).env("CLERK_API_URL", "http://127.0.0.1:1");
        let ended = crate::exporter::run(command).await;
        assert_eq!(ended.status, Some(2), "{path}: {}", ended.stderr);
        assert!(ended.stderr.contains("such as /metrics") && !ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}
