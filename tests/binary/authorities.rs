//! Certificate authorities that change at runtime: probes and gateway are reloaded together.

use std::path::PathBuf;

use clerk_simulator::Simulator;
use prometheus_web::WebConfigSource;

use crate::exporter::{Exporter, Folder, KEY, Web, eventually, request};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crates/prometheus-web/tests/data/tls").join(name)
}

/// A certificate that did not sign the server's.
fn stranger() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/clerk-client/tests/data/tls/stranger.pem");
    std::fs::read_to_string(path).unwrap()
}

/// A simulated Clerk over TLS.
async fn clerk(folder: &Folder) -> Web {
    let (cert, key) = (data("server.pem"), data("server.key"));
    let web = format!("tls_server_config: {{ cert_file: {}, key_file: {} }}\n", cert.display(), key.display());
    let web = WebConfigSource::open(folder.write("web.yml", &web)).unwrap();
    let simulator = Simulator::new(
        clerk_simulator::Options::default().headers(clerk_simulator::HeaderProfile::XRateLimit).users(10),
    );
    Web::start_with(simulator.router(), web).await
}

fn config(clerk: &Web, ca_file: &str) -> String {
    format!(
        "tls_config: {{ ca_file: {ca_file} }}\nprobe: {{ interval: 1s, when: always }}\n\
         instances: [{{ name: a, secret_key: {KEY}, api_url: 'https://{}' }}]\n\
         gateway: {{ listen_address: 127.0.0.1:0, policies: {{ retry: off }} }}\n",
        clerk.address
    )
}

async fn ask(exporter: &Exporter) -> u16 {
    let authorization = format!("Authorization: Bearer {KEY}\r\n");
    request(exporter.gateway().await, "GET", "/v1/users/count", &authorization).await.status
}

/// Waits until probes and gateway reach Clerk.
async fn until_both_are_right(exporter: &Exporter) {
    exporter.until("clerk_up", &[], |up| up == 1.0).await;
    eventually("the gateway", async || (ask(exporter).await == 200).then_some(())).await;
}

const FAILURES: &str = "clerk_exporter_file_reload_failures_total";
const KIND: [(&str, &str); 1] = [("kind", "ca_file")];

#[tokio::test]
async fn sighup_loads_another_file_of_authorities() {
    let folder = Folder::new();
    let clerk = clerk(&folder).await;
    folder.write("stranger.pem", &stranger());
    let path = folder.write("config.yml", &config(&clerk, "stranger.pem"));
    let exporter = Exporter::with_config(&path, &[]).await;
    exporter.until("clerk_probe_failures_total", &[("reason", "tls")], |failures| failures >= 1.0).await;
    assert_eq!(ask(&exporter).await, 502);
    let right = data("ca.pem");
    folder.write("config.yml", &config(&clerk, right.to_str().unwrap()));
    exporter.signal("HUP").await;
    until_both_are_right(&exporter).await;
    // An invalid file is rejected and logged, and changes nothing.
    folder.write("config.yml", &config(&clerk, "missing.pem"));
    exporter.signal("HUP").await;
    exporter.until("clerk_exporter_config_last_reload_successful", &[], |successful| successful == 0.0).await;
    assert_eq!(ask(&exporter).await, 200);
    let (_, output) = exporter.stopped().await;
    assert!(output.contains("tls_config.ca_file") && output.contains("configuration rejected"), "{output}");
}

#[tokio::test]
async fn changed_authorities_are_reloaded_automatically() {
    let folder = Folder::new();
    let clerk = clerk(&folder).await;
    folder.write("ca.pem", &stranger());
    let exporter = Exporter::with_config(&folder.write("config.yml", &config(&clerk, "ca.pem")), &[]).await;
    exporter.until("clerk_probe_failures_total", &[("reason", "tls")], |failures| failures >= 1.0).await;
    // A partial write: the previous authorities stay in use.
    folder.write("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    exporter.until(FAILURES, &KIND, |failures| failures >= 2.0).await;
    // Replaced atomically, as secret agents do.
    folder.write("new.pem", &std::fs::read_to_string(data("ca.pem")).unwrap());
    std::fs::rename(folder.path("new.pem"), folder.path("ca.pem")).unwrap();
    until_both_are_right(&exporter).await;
    let (_, output) = exporter.stopped().await;
    assert_eq!(output.matches("failed to reload certificate authorities").count(), 1, "{output}");
    assert!(output.contains("loaded certificate authorities"), "{output}");
}
