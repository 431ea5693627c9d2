//! A real Prometheus over generated series that were never scraped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::patterns::{Pattern, SCRAPES};
use clerk_test_support::process::Process;

/// The evaluations with a result, by pattern and scrape interval.
pub(crate) struct Evaluated {
    pub(crate) firing: BTreeMap<(usize, u64), BTreeSet<u64>>,
}

/// Prometheus with the patterns' series in its storage.
pub(crate) struct Prometheus {
    base: String,
    client: reqwest::Client,
    _process: Process,
    _directory: TempDir,
}

/// The expression of a shipped alert, with its recording rules inlined. Both are evaluated at the same times, so that
/// the result is the same.
pub(crate) fn shipped(alert: &str) -> String {
    let text = std::fs::read_to_string("alerts/clerk.rules.yml").unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    let rules: Vec<&Value> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
    let rule = rules.iter().find(|rule| rule["alert"] == alert).unwrap_or_else(|| panic!("no alert {alert}"));
    assert!(rule.get("for").is_none_or(|wait| wait == "0m" || wait == "0s"), "waits before it fires");
    let mut expression = rule["expr"].as_str().unwrap().to_owned();
    // Recording rules may use the rules above them.
    for recording in rules.iter().rev().filter(|rule| rule.get("record").is_some()) {
        let name = recording["record"].as_str().unwrap();
        // No pattern has traces. An expression takes no label matchers.
        expression = expression.replace(&format!("{name}{{source=\"telemetry\"}}"), "(vector(1) < 0)");
        expression = expression.replace(&format!("{name}{{source!=\"telemetry\"}}"), name);
        expression = expression.replace(name, &format!("({})", recording["expr"].as_str().unwrap()));
    }
    assert!(!expression.contains("clerk_instance_bucket:"), "a recording rule is left: {expression}");
    expression
}

impl Prometheus {
    pub(crate) async fn over(patterns: &[Pattern]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let samples = directory.path().join("samples.txt");
        std::fs::write(&samples, open_metrics(patterns)).unwrap();
        let data = directory.path().join("data");
        let made = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics", "-q"])
            .args([&samples, &data])
            .output()
            .unwrap_or_else(|error| panic!("promtool: {error}; run scripts/setup"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let config = directory.path().join("prometheus.yml");
        std::fs::write(&config, "global: {}\n").unwrap();
        let mut process = Process::start(
            tokio::process::Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", data.display()))
                .args(["--storage.tsdb.retention.time=100y", "--web.listen-address=127.0.0.1:0", "--log.level=info"]),
        );
        let base = format!("http://{}", process.address().await);
        let ready = |line: &str| line.contains("Server is ready").then_some(());
        process.line(ready).await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { base, client, _process: process, _directory: directory }
    }

    /// Evaluates an expression over the whole time of all patterns.
    pub(crate) async fn evaluate(&self, expression: &str, patterns: &[Pattern], step: f64) -> Evaluated {
        let first = patterns.iter().flat_map(|it| &it.scraped[0]).map(|sample| sample.at).fold(f64::MAX, f64::min);
        let last = patterns.iter().map(|pattern| pattern.end).fold(0.0, f64::max);
        let form = [
            ("query", expression.to_owned()),
            ("start", first.floor().to_string()),
            ("end", last.ceil().to_string()),
            ("step", step.to_string()),
        ];
        let query: Vec<_> = form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let request = self.client.post(format!("{}/api/v1/query_range", self.base));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(query.join("&"));
        let answer: Value = serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap();
        assert_eq!(answer["status"], "success", "{answer}");
        let mut firing: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
        for series in answer["data"]["result"].as_array().unwrap() {
            let number = |label: &str| -> u64 { series["metric"][label].as_str().unwrap()[1..].parse().unwrap() };
            let key = (usize::try_from(number("clerk_instance")).unwrap(), number("job"));
            for value in series["values"].as_array().unwrap() {
                firing.entry(key).or_default().insert(value[0].as_u64().unwrap());
            }
        }
        Evaluated { firing }
    }
}

/// All series. `clerk_instance` is the pattern, `job` the scrape interval.
fn open_metrics(patterns: &[Pattern]) -> String {
    let mut text = String::new();
    for (name, kind) in [
        ("clerk_ratelimit_low_windows", "counter"),
        ("clerk_ratelimit_remaining", "gauge"),
        ("clerk_ratelimit_limit", "gauge"),
        ("clerk_ratelimit_window_seconds", "gauge"),
        ("clerk_ratelimit_low_threshold_ratio", "gauge"),
    ] {
        writeln!(text, "# TYPE {name} {kind}").unwrap();
        for (number, pattern) in patterns.iter().enumerate() {
            for (scrape, samples) in SCRAPES.iter().zip(&pattern.scraped) {
                let target = format!("job=\"s{scrape}\",instance=\"exporter\"");
                let labels = format!("{target},clerk_instance=\"p{number}\",bucket=\"instance\"");
                for sample in samples {
                    let at = sample.at;
                    match name {
                        "clerk_ratelimit_low_windows" => {
                            writeln!(text, "{name}_total{{{labels}}} {} {at}", sample.low_windows)
                        }
                        "clerk_ratelimit_limit" => writeln!(text, "{name}{{{labels}}} {} {at}", sample.limit),
                        "clerk_ratelimit_window_seconds" => writeln!(text, "{name}{{{labels}}} 10 {at}"),
                        // One series for all instances: it belongs to the exporter.
                        "clerk_ratelimit_low_threshold_ratio" if number == 0 => {
                            writeln!(text, "{name}{{{target}}} 0.1 {at}")
                        }
                        "clerk_ratelimit_remaining" => match sample.remaining {
                            Some(remaining) => writeln!(text, "{name}{{{labels}}} {remaining} {at}"),
                            None => Ok(()),
                        },
                        _ => Ok(()),
                    }
                    .unwrap();
                }
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

/// Form encoding: escapes everything but letters and digits.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
    }
    encoded
}
