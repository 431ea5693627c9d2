//! Several exporters and gateways, from a user's view: which of them probes, and what the others show.

use std::path::PathBuf;

use clerk_test_support::redis::RedisServer;
use serde_json::Value;

use crate::exporter::{Clerk, Exporter, Folder, KEY, eventually, request};

const LEASES: &str = "clerk_exporter_probe_leases";

/// The instance `prod`, probed every second by the one of several exporters that has the lease.
fn write(clerk: &Clerk, folder: &Folder, redis: &RedisServer) -> PathBuf {
    folder.write("key", KEY);
    folder.write("redis", &format!("unix://{}", redis.socket().display()));
    let text = format!(
        "redis_url_file: redis\nprobe: {{ interval: 1s, lease: 5s }}\n\
         instances: [{{ name: prod, secret_key_file: key, api_url: '{}' }}]\n",
        clerk.url()
    );
    folder.write("config.yml", &text)
}

/// What an exporter does by its metrics: `held`, `standby` or `alone`; and whether it has probed and shows the instance.
async fn role(exporter: &Exporter) -> Option<&'static str> {
    let page = exporter.get("/metrics").await.text();
    let scrape = crate::exposition::Scrape::parse(&page);
    let state = ["held", "standby", "alone"];
    let role = state.into_iter().find(|state| scrape.value(LEASES, &[("state", state)]) == Some(1.0))?;
    let shows = page.contains("clerk_instance=\"prod\"");
    let has_probed = scrape.value("clerk_probes_total", &[("clerk_instance", "prod")]) >= Some(1.0);
    // It has taken over, and its first probe has ended; or nothing of the instance is left.
    ((role == "standby") != shows && shows == has_probed).then_some(role)
}

/// Waits until the exporters do this.
async fn until(exporters: &[&Exporter], expected: &[&str]) {
    eventually(&format!("{expected:?}"), async || {
        let mut roles = Vec::new();
        for exporter in exporters {
            roles.push(role(exporter).await?);
        }
        (roles == expected).then_some(())
    })
    .await;
}

/// The prober and the standby, whichever is which.
async fn pair(one: Exporter, other: Exporter) -> (Exporter, Exporter) {
    let is_first = eventually("a prober and a standby", async || match [role(&one).await?, role(&other).await?] {
        ["held", "standby"] => Some(true),
        ["standby", "held"] => Some(false),
        _ => None,
    })
    .await;
    if is_first { (one, other) } else { (other, one) }
}

#[tokio::test]
async fn of_two_exporters_one_probes_and_the_other_takes_over() {
    let (clerk, folder, redis) = (Clerk::start().await, Folder::new(), RedisServer::start(&[]).await);
    let config = write(&clerk, &folder, &redis);
    let first = Exporter::with_config(&config, &[]).await;
    let (first, second) = pair(first, Exporter::with_config(&config, &[]).await).await;
    eventually("ready", async || (second.get("/-/ready").await.status == 200).then_some(())).await;
    let status: Value = serde_json::from_str(&second.get("/api/v1/status").await.text()).unwrap();
    let instance = &status["instances"][0];
    assert_eq!((&instance["name"], &instance["condition"]), (&"prod".into(), &"standby".into()), "{status}");
    assert!(instance["up"].is_null() && instance["buckets"][0]["remaining"].is_null(), "{status}");
    let page = second.get("/").await.text();
    assert!(page.contains("1 standby") && page.contains("another exporter probes it"), "{page}");
    let (page, metrics) = (second.get("/config").await.text(), second.get("/metrics").await.text());
    assert!(page.contains("lease: 5s") && !metrics.contains("clerk_instance="), "{page}\n{metrics}");

    // It dies.
    first.signal("KILL").await;
    first.ended().await;
    until(&[&second], &["held"]).await;
    // Another one comes, and this one stops.
    let (second, third) = pair(second, Exporter::with_config(&config, &[]).await).await;
    let (_, output) = second.stopped().await;
    assert!(output.contains("it has the lease"), "{output}");
    until(&[&third], &["held"]).await;
    assert!(third.output().contains("standby: another process probes"), "{}", third.output());
}

#[tokio::test]
async fn prober_that_leaves_probes_on_while_the_other_takes_over() {
    let (clerk, folder, redis) = (Clerk::start().await, Folder::new(), RedisServer::start(&[]).await);
    let config = write(&clerk, &folder, &redis);
    let delay = ["--web.shutdown-delay=5m"];
    let first = Exporter::with_config(&config, &delay).await;
    let (first, second) = pair(first, Exporter::with_config(&config, &delay).await).await;
    first.signal("TERM").await;
    until(&[&second], &["held"]).await;
    let page = first.get("/-/ready").await;
    assert_eq!((page.status, page.text().as_str()), (503, "Not ready: shutting down\n"));
    // Once its own lease would have ended, it has no series either.
    until(&[&first, &second], &["standby", "held"]).await;
}

#[tokio::test]
async fn without_redis_all_probe_and_one_when_it_is_back() {
    let (clerk, folder, mut redis) = (Clerk::start().await, Folder::new(), RedisServer::start(&[]).await);
    let config = write(&clerk, &folder, &redis);
    let first = Exporter::with_config(&config, &[]).await;
    let (first, second) = pair(first, Exporter::with_config(&config, &[]).await).await;
    redis.kill().await;
    until(&[&first, &second], &["alone", "alone"]).await;
    // Also one that starts meanwhile.
    let third = Exporter::with_config(&config, &[]).await;
    until(&[&third], &["alone"]).await;
    assert!(third.output().contains("Redis does not answer for the lease"), "{}", third.output());
    redis.restart().await;
    eventually("one prober", async || {
        let mut roles = Vec::new();
        for exporter in [&first, &second, &third] {
            roles.push(role(exporter).await?);
        }
        roles.sort_unstable();
        (roles == ["held", "standby", "standby"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn lease_comes_and_goes_with_a_reload() {
    let (clerk, folder, redis) = (Clerk::start().await, Folder::new(), RedisServer::start(&[]).await);
    let config = write(&clerk, &folder, &redis);
    let flags = ["--web.enable-lifecycle"];
    let first = Exporter::with_config(&config, &flags).await;
    let (first, second) = pair(first, Exporter::with_config(&config, &flags).await).await;
    let text = std::fs::read_to_string(&config).unwrap();
    folder.write("config.yml", &text.replace("lease: 5s", "lease: off"));
    second.signal("HUP").await;
    second.until("clerk_up", &[("clerk_instance", "prod")], |up| up == 1.0).await;
    eventually("no lease", async || second.metrics().await.value(LEASES, &[("state", "held")]).is_none().then_some(()))
        .await;
    folder.write("config.yml", &text);
    second.signal("HUP").await;
    let (first, _) = pair(first, second).await;
    // Off and on again at once.
    for _ in 0..2 {
        folder.write("config.yml", &text.replace("lease: 5s", "lease: off"));
        assert_eq!(first.request("POST", "/-/reload", "Content-Length: 0\r\n").await.status, 200);
        folder.write("config.yml", &text);
        assert_eq!(first.request("POST", "/-/reload", "Content-Length: 0\r\n").await.status, 200);
    }
    until(&[&first], &["held"]).await;
}

#[tokio::test]
async fn gateway_that_never_probes_is_ready_at_once() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    folder.write("key", KEY);
    let text = format!(
        "probe: {{ when: never, interval: 1s }}\n\
         instances: [{{ name: prod, secret_key_file: key, api_url: '{}' }}]\n\
         gateway: {{ listen_address: 127.0.0.1:0, sole: true }}\n",
        clerk.url()
    );
    let gateway = Exporter::with_config(&folder.write("config.yml", &text), &[]).await;
    assert_eq!(gateway.get("/-/ready").await.status, 200);
    assert_eq!(clerk.requests(), 0);
    let page = gateway.get("/metrics").await.text();
    assert!(!page.contains("clerk_probe") && page.contains("clerk_instance_info{clerk_instance=\"prod\""), "{page}");
    let page = gateway.get("/").await.text();
    assert!(page.contains("no request seen yet"), "{page}");

    let headers = format!("Authorization: Bearer {KEY}\r\n");
    assert_eq!(request(gateway.gateway().await, "GET", "/v1/users/count", &headers).await.status, 200);
    gateway.until("clerk_up", &[("clerk_instance", "prod")], |up| up == 1.0).await;
    assert_eq!(clerk.requests(), 1, "only that one");
}

#[tokio::test]
async fn standby_says_that_it_does_not_probe() {
    let (clerk, folder, redis) = (Clerk::start().await, Folder::new(), RedisServer::start(&[]).await);
    let config = write(&clerk, &folder, &redis);
    let flags = ["--web.enable-probe-debug"];
    let first = Exporter::with_config(&config, &flags).await;
    let (prober, standby) = pair(first, Exporter::with_config(&config, &flags).await).await;
    for (exporter, part) in [(&prober, "Next probe: every 1s"), (&standby, "does not have the lease (standby)")] {
        eventually(part, async || {
            let text = exporter.get("/probe?instance=prod&debug=true").await.text();
            text.contains(part).then_some(())
        })
        .await;
    }
}
