//! The alert rules as an object of the Prometheus operator.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::rules::RULES;

/// Path of the object, relative to the root of the repository.
pub(crate) const PATH: &str = "deploy/kubernetes/overlays/prometheus-operator/prometheusrule.yaml";

const HEAD: &str = "\
# Generated from alerts/clerk.rules.yml by: cargo xtask generate
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: clerk-exporter
  labels:
    app.kubernetes.io/name: clerk-exporter
spec:
";

/// The rules of the repository at `root` as an object of the operator: its groups, one level deeper.
pub(crate) fn make(root: &Path) -> anyhow::Result<String> {
    let rules = fs::read_to_string(root.join(RULES)).context(RULES)?;
    let (_, groups) = rules.split_once("\ngroups:\n").with_context(|| format!("{RULES} has no groups"))?;
    let mut text = format!("{HEAD}  groups:\n");
    for line in groups.lines() {
        if !line.is_empty() {
            text.push_str("  ");
        }
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operator_rules_parse_to_the_same_groups() {
        let rules = fs::read_to_string(crate::root().join(RULES)).unwrap();
        let parse = |yaml: &str| serde_saphyr::from_str::<serde_json::Value>(yaml).unwrap();
        assert_eq!(parse(&make(crate::root()).unwrap())["spec"]["groups"], parse(&rules)["groups"]);
    }
}
