//! The rules ignore labels that are not the exporter's: every alert fires regardless of relabelling, and two replicas
//! are one.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{root, rule_tests};

/// Labels of a target, from `relabel_configs` or external labels, on every series including `up`. `environment` is also
/// a label of the exporter; Prometheus then renames that one to `exported_environment`.
const TARGET: [(&str, &str); 4] =
    [("namespace", "auth"), ("cluster", "eu-1"), ("region", "eu"), ("environment", "staging")];
/// A label that `metric_relabel_configs` add only to the series of instances.
const TEAM: (&str, &str) = ("team", "payments");
/// An alert on absent series has no target labels.
const ABSENT: &str = "ClerkExporterAbsent";

/// A series such as `name{a="b"}` as another Prometheus would scrape it.
fn relabelled(series: &str) -> String {
    let (name, labels) = series.trim().trim_end_matches('}').split_once('{').unwrap_or((series.trim(), ""));
    let mut labels = labels.replace("environment=", "exported_environment=");
    if labels.contains("clerk_instance=") {
        labels.push_str(&format!(", {}=\"{}\"", TEAM.0, TEAM.1));
    }
    let instance = [("instance", "10.0.0.7:10429"), ("pod", "clerk-exporter-5d4c-x2x")];
    for (label, value) in instance.into_iter().chain(TARGET) {
        let has_it = labels.starts_with(&format!("{label}=")) || labels.contains(&format!(" {label}="));
        if !has_it {
            labels.push_str(&format!(", {label}=\"{value}\""));
        }
    }
    format!("{name}{{{}}}", labels.trim_start_matches([',', ' ']))
}

/// Values such as 0x240 are strings: 0 repeated 240 times.
pub(crate) fn quoted(file: &str) -> String {
    let quote = |line: &str| match line.split_once("values: ") {
        Some((before, after)) if !after.starts_with('"') => {
            let (values, end) = after.strip_suffix(" }").map_or((after, ""), |values| (values, " }"));
            format!("{before}values: \"{values}\"{end}\n")
        }
        _ => format!("{line}\n"),
    };
    file.lines().map(quote).collect()
}

/// The tests of a file in which alerts fire, with these labels.
pub(crate) fn relabelled_tests(file: &Value) -> Value {
    let mut groups = Vec::new();
    for group in file["tests"].as_array().unwrap() {
        let fires = |test: &&Value| {
            test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()) && test["alertname"] != ABSENT
        };
        let mut tests: Vec<Value> =
            group["alert_rule_test"].as_array().into_iter().flatten().filter(fires).cloned().collect();
        if tests.is_empty() {
            continue;
        }
        for alert in tests.iter_mut().flat_map(|test| test["exp_alerts"].as_array_mut().unwrap()) {
            let labels = alert["exp_labels"].as_object_mut().unwrap();
            if labels.contains_key("clerk_instance") {
                labels.insert(TEAM.0.to_owned(), json!(TEAM.1));
            }
            for (label, value) in TARGET {
                labels.entry(label).or_insert(json!(value));
            }
        }
        let mut group = group.clone();
        group["alert_rule_test"] = Value::Array(tests);
        group["promql_expr_test"] = json!([]);
        for series in group["input_series"].as_array_mut().unwrap() {
            series["series"] = json!(relabelled(series["series"].as_str().unwrap()));
        }
        groups.push(group);
    }
    json!({
        "rule_files": [root().join("alerts/clerk.rules.yml")],
        "evaluation_interval": file["evaluation_interval"],
        "tests": groups,
    })
}

#[test]
fn alerts_fire_regardless_of_relabelling() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Vec::new();
    let mut count = 0;
    for file in rule_tests() {
        let tests: Value = serde_saphyr::from_str(&quoted(&fs::read_to_string(&file).unwrap())).unwrap();
        let tests = relabelled_tests(&tests);
        let fired = tests["tests"].as_array().unwrap();
        if fired.is_empty() {
            continue;
        }
        count += fired.len();
        let place = folder.path().join(file.file_name().unwrap());
        // JSON is YAML.
        fs::write(&place, tests.to_string()).unwrap();
        let mut command = Command::new("promtool");
        command.args(["test", "rules"]).arg(&place).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        running.push((file, command.spawn().unwrap_or_else(|error| panic!("promtool: {error}; run scripts/setup"))));
    }
    assert!(count > 20, "{count}");
    for (file, child) in running {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{}: {said}", file.display());
    }
}

#[test]
fn relabelled_series_keep_their_own_labels() {
    assert_eq!(
        relabelled(r#"clerk_instance_info{job="a", clerk_instance="prod", environment="development"}"#),
        concat!(
            r#"clerk_instance_info{job="a", clerk_instance="prod", exported_environment="development", team="payments", "#,
            r#"instance="10.0.0.7:10429", pod="clerk-exporter-5d4c-x2x", namespace="auth", cluster="eu-1", "#,
            r#"region="eu", environment="staging"}"#
        )
    );
    assert!(relabelled("up").starts_with(r#"up{instance="10.0.0.7:10429", pod="#));
}
