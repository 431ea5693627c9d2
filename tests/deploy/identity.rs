//! Exporter and gateways of a release are one to the alerts: what both see alerts once.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::chart::PRODUCTION;
use crate::tools::{overlay, template};
use crate::{of_kind, root};

/// What the Prometheus operator adds to a target's series; the relabelings come after that.
fn operator_labels(is_service: bool, name: &str, job: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("job".to_owned(), job.to_owned()),
        ("namespace".to_owned(), "identity".to_owned()),
        ("pod".to_owned(), format!("{name}-5d8f")),
        ("instance".to_owned(), format!("{name}:10429")),
        ("container".to_owned(), name.to_owned()),
        ("endpoint".to_owned(), "http-metrics".to_owned()),
    ]);
    if is_service {
        labels.insert("service".to_owned(), name.to_owned());
    }
    labels
}

/// The labels that an endpoint's relabelings leave.
fn relabelled(mut labels: BTreeMap<String, String>, endpoint: &Value) -> BTreeMap<String, String> {
    for step in endpoint["relabelings"].as_array().into_iter().flatten() {
        assert_eq!(step["action"], "labeldrop", "not played here: {step}");
        let dropped: Vec<_> = step["regex"].as_str().unwrap().split('|').collect();
        labels.retain(|label, _| !dropped.contains(&label.as_str()));
    }
    labels
}

/// How many alerts fire if exporter and gateway both report a 429 of an instance.
fn alerts(targets: &[BTreeMap<String, String>]) -> u64 {
    let series = targets.iter().flat_map(|labels| {
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = labels.join(", ");
        let of = |name: &str, more: &str, values: &str| json!({ "series": format!("{name}{{{labels}, {more}}}"), "values": values });
        let instance = r#"clerk_instance="prod""#;
        [
            of("clerk_ratelimit_throttled_responses_total", &format!(r#"{instance}, bucket="instance", source="gateway""#), "0x20 3x20"),
            of("clerk_instance_info", &format!(r#"{instance}, environment="production", api_host="api.clerk.com""#), "1x40"),
        ]
    });
    let count = |expected: u64| {
        let query = r#"count(ALERTS{alertname="ClerkRateLimitThrottled", alertstate="firing"})"#;
        let samples = [json!({ "labels": "{}", "value": expected })];
        let test = json!({ "expr": query, "eval_time": "10m30s", "exp_samples": samples });
        let group = json!({ "interval": "30s", "input_series": series.clone().collect::<Vec<_>>(), "promql_expr_test": [test] });
        let rules = root().join("alerts/clerk.rules.yml");
        let file = json!({ "rule_files": [rules], "evaluation_interval": "30s", "tests": [group] });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.test.yml");
        fs::write(&path, file.to_string()).unwrap();
        Command::new("promtool").args(["test", "rules"]).arg(path).output().unwrap().status.success()
    };
    (1..=targets.len() as u64).find(|expected| count(*expected)).expect("as many alerts as targets, at most")
}

#[test]
fn what_exporter_and_gateway_see_alerts_once() {
    for (name, objects) in [("chart", template(&[PRODUCTION])), ("overlay", overlay("gateway"))] {
        let service = &of_kind(&objects, "ServiceMonitor")[0]["spec"]["endpoints"][0];
        let pod = &of_kind(&objects, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0];
        let raw = [operator_labels(true, "exporter", "clerk"), operator_labels(false, "gateway", "clerk")];
        let targets = [relabelled(raw[0].clone(), service), relabelled(raw[1].clone(), pod)];
        assert_eq!(alerts(&targets), 1, "{name}");
        assert_eq!(alerts(&raw), 2, "without the relabelings");
    }
}
