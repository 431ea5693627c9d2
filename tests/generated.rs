//! Files that are made from others are as they would be made now. `UPDATE_GENERATED=1 cargo test --test generated` makes
//! them again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

const RULES: &str = "alerts/clerk.rules.yml";
const PROMETHEUS_RULE: &str = "deploy/kubernetes/overlays/prometheus-operator/prometheusrule.yaml";

const PROMETHEUS_RULE_HEAD: &str = "\
# Made from alerts/clerk.rules.yml, which explains it, by: UPDATE_GENERATED=1 cargo test --test generated
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: clerk-exporter
  labels:
    app.kubernetes.io/name: clerk-exporter
spec:
";

/// The rules file as an object of the Prometheus operator: its groups, one level deeper.
fn prometheus_rule(rules: &str) -> String {
    let (_, groups) = rules.split_once("\ngroups:\n").unwrap();
    let mut text = format!("{PROMETHEUS_RULE_HEAD}  groups:\n");
    for line in groups.lines() {
        if !line.is_empty() {
            text.push_str("  ");
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[test]
fn the_operator_s_rules_are_those_of_prometheus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = prometheus_rule(&fs::read_to_string(root.join(RULES)).unwrap());
    let path = root.join(PROMETHEUS_RULE);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{PROMETHEUS_RULE} is not what {RULES} makes: run UPDATE_GENERATED=1 cargo test --test generated"
    );
}

#[test]
fn the_operator_s_rules_say_the_same_when_they_are_read() {
    let rules = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES)).unwrap();
    let parse = |yaml: &str| serde_saphyr::from_str::<serde_json::Value>(yaml).unwrap();
    assert_eq!(parse(&prometheus_rule(&rules))["spec"]["groups"], parse(&rules)["groups"]);
}
