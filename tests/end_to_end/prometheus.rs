//! A real Prometheus and a real Alertmanager, with separate data folders, and queries to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::client;
use clerk_test_support::process::Process;

/// Job of the exporter with Prometheus' default format, OpenMetrics.
pub(crate) const OPENMETRICS_JOB: &str = "clerk-exporter";
/// Job of the exporter in the text format.
pub(crate) const TEXT_JOB: &str = "clerk-exporter-text";
/// Name of the alert.
pub(crate) const ALERT: &str = "ClerkRateLimitLow";

const RULES: &str = r#"
groups:
  - name: clerk
    rules:
      - alert: ClerkRateLimitLow
        expr: increase(clerk_ratelimit_low_windows_total{job="clerk-exporter", bucket="instance"}[15s]) > 0
        labels: { severity: warning }
        annotations:
          summary: "less than 10 % of the rate limit of {{ $labels.clerk_instance }} was left"
"#;

/// Alertmanager, which notifies a webhook.
pub(crate) struct Alertmanager {
    pub(crate) address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Alertmanager {
    /// Starts on a free port; all alerts go to the webhook immediately.
    pub(crate) async fn start(webhook: &str) -> Self {
        Self::with_config(&format!(
            "route: {{ receiver: sink, group_by: [alertname], group_wait: 1s, group_interval: 1s, repeat_interval: 1h }}\n\
             receivers: [{{ name: sink, webhook_configs: [{{ url: \"{webhook}\", send_resolved: true }}] }}]\n"
        ))
        .await
    }

    /// Starts on a free port.
    pub(crate) async fn with_config(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("alertmanager.yml"), config).unwrap();
        let mut process = Process::start(Command::new("prometheus-alertmanager").current_dir(folder.path()).args([
            "--config.file=alertmanager.yml",
            "--storage.path=data",
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",
        ]));
        let address = process.address().await;
        Self { address, _process: process, _folder: folder }
    }

    /// All alerts in its API, including suppressed ones.
    pub(crate) async fn alerts(&self) -> Vec<Value> {
        let response = client().get(format!("http://{}/api/v2/alerts", self.address)).send().await.unwrap();
        serde_json::from_str(&response.error_for_status().unwrap().text().await.unwrap()).unwrap()
    }
}

/// Prometheus.
pub(crate) struct Prometheus {
    url: String,
    client: reqwest::Client,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts on a free port, and scrapes every second.
    pub(crate) async fn start(exporter: SocketAddr, text_format: SocketAddr, alertmanager: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [rules.yml]\n\
             alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: [\"{alertmanager}\"] }}] }}] }}\n\
             scrape_configs:\n\
             - {{ job_name: {OPENMETRICS_JOB}, static_configs: [{{ targets: [\"{exporter}\"] }}] }}\n\
             - {{ job_name: {TEXT_JOB}, static_configs: [{{ targets: [\"{text_format}\"] }}] }}\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        std::fs::write(folder.path().join("rules.yml"), RULES).unwrap();
        Self::in_folder(folder).await
    }

    /// Starts on a free port with the `prometheus.yml` of a folder, which is its working directory.
    pub(crate) async fn in_folder(folder: TempDir) -> Self {
        let mut process = Process::start(Command::new("prometheus").current_dir(folder.path()).args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.listen-address=127.0.0.1:0",
        ]));
        let address = process.address().await;
        Self { url: format!("http://{address}"), client: client(), _process: process, _folder: folder }
    }

    /// The value of an instant query with one result; `None` if there is none.
    pub(crate) async fn value(&self, query: &str) -> Option<f64> {
        let data = self.api("query", &[("query", query)]).await?;
        match data["result"].as_array().unwrap().as_slice() {
            [sample] => Some(sample["value"][1].as_str().unwrap().parse().unwrap()),
            _ => None,
        }
    }

    /// The labels of all series of this job so far, by metric name.
    pub(crate) async fn series(&self, job: &str) -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
        let data = self.api("series", &[("match[]", &format!("{{job=\"{job}\"}}"))]).await.unwrap_or_default();
        let mut series = BTreeMap::<String, Vec<_>>::new();
        for labels in data.as_array().into_iter().flatten().map(labels) {
            series.entry(labels["__name__"].clone()).or_default().push(labels);
        }
        series
    }

    /// The metric families of a job, named as in the exposition: an OpenMetrics counter has no `_total`.
    pub(crate) async fn families(&self, job: &str) -> BTreeSet<String> {
        let target = format!("{{job=\"{job}\"}}");
        let data = self.api("targets/metadata", &[("match_target", &target)]).await.unwrap_or_default();
        data.as_array().into_iter().flatten().map(|family| family["metric"].as_str().unwrap().to_owned()).collect()
    }

    async fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{path}", self.url), parameters).unwrap();
        let response = self.client.get(url).send().await.unwrap();
        // Not ready yet, or nothing scraped yet.
        if matches!(response.status().as_u16(), 503 | 404) {
            return None;
        }
        let mut answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(answer["status"], "success", "{answer}");
        Some(answer["data"].take())
    }
}

fn labels(metric: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(metric.clone()).unwrap()
}
