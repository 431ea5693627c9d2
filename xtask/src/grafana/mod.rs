//! The alerts as a file for Grafana's alert provisioning: Grafana evaluates them itself, over a Prometheus that needs no
//! rule file.

mod expand;

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::rules::{self, Group, Rule, seconds};

/// Path of the file, relative to the root of the repository.
pub(crate) const PATH: &str = "alerts/grafana/clerk.rules.yml";

const HEAD: &str = "\
# Generated from alerts/clerk.rules.yml by: cargo xtask generate
#
# Alerts that Grafana evaluates, for Grafana 12.0.3 and newer: docs/alerting.md. Put the file into provisioning/alerting
# of Grafana. The data source has the uid prometheus; for another one, replace it in all lines with datasourceUid.
#
# Each rule has three steps, as Grafana makes them of Prometheus' rules: the query, whether it has a result, and a
# threshold on that. So an alert fires for each series of the result, also for one with the value 0.
apiVersion: 1
groups:
";

/// The folder in Grafana.
const FOLDER: &str = "Clerk";
/// Annotations that ask Prometheus further questions, which Grafana's templates cannot.
const WITH_QUERIES: [&str; 4] = ["cause", "free_part_ends", "top_caller", "top_refused"];
/// Grafana's limit.
const UID: usize = 40;

/// The file for the rules of the repository at `root`.
pub(crate) fn make(root: &Path) -> anyhow::Result<String> {
    let groups = rules::read(root)?;
    let mut expressions = expand::alerts(&groups)?.into_iter();
    let mut text = HEAD.to_owned();
    for group in &groups {
        let interval = interval(group);
        text.push_str(&format!(
            "  - orgId: 1\n    name: {}\n    folder: {FOLDER}\n    interval: {interval}\n    rules:\n",
            group.name
        ));
        for rule in group.rules.iter().filter(|rule| rule.alert.is_some()) {
            let expression = expressions.next().context("an alert without an expression")?;
            text.push_str(&alert(rule, &expression, interval)?);
        }
    }
    Ok(text)
}

/// How often Grafana evaluates a group: a multiple of the 10 s of its scheduler. Nothing is recorded there, so that each
/// evaluation computes everything.
fn interval(group: &Group) -> &'static str {
    match group.interval.as_deref() {
        Some("15s") => "30s",
        Some("5m") => "5m",
        _ => "1m",
    }
}

fn alert(rule: &Rule, expression: &str, interval: &str) -> anyhow::Result<String> {
    let name = rule.alert.as_deref().unwrap_or_default();
    let uid = format!("{name}-{}", rule.severity);
    ensure!(uid.len() <= UID, "{uid} has more than {UID} characters");
    let mut text = format!("      - uid: {uid}\n        title: {name}\n        condition: threshold\n        data:\n");
    text.push_str("          - refId: query\n            relativeTimeRange: { from: 600, to: 0 }\n");
    text.push_str("            datasourceUid: prometheus\n            model:\n              refId: query\n");
    text.push_str("              instant: true\n              range: false\n              expr: |-\n");
    for line in expression.lines() {
        text.push_str(&format!("                {line}\n"));
    }
    text.push_str(STEPS);
    // An empty result means that all is well. Alerts on absence have a result when something is absent.
    text.push_str("        noDataState: OK\n        execErrState: Error\n");
    text.push_str(&format!("        for: {}\n", rule.pending.as_deref().unwrap_or("0s")));
    if let Some(keep) = &rule.keep_firing_for {
        text.push_str(&format!("        keepFiringFor: {keep}\n"));
    }
    text.push_str(&format!("        missing_series_evals_to_resolve: {}\n", missing_evaluations(rule, interval)?));
    text.push_str(&format!("        labels: {{ severity: {} }}\n        annotations:\n", rule.severity));
    for (key, template) in rule.annotations.iter().filter(|(key, _)| !WITH_QUERIES.contains(&key.as_str())) {
        let template = annotation(template)?;
        text.push_str(&format!("          {key}: {}\n", serde_json::Value::from(template)));
    }
    text.push_str("        isPaused: false\n");
    Ok(text)
}

/// The second and the third step.
const STEPS: &str = "          - refId: prometheus_math
            queryType: math
            datasourceUid: __expr__
            model:
              refId: prometheus_math
              type: math
              expression: is_number($query) || is_nan($query) || is_inf($query)
          - refId: threshold
            queryType: threshold
            datasourceUid: __expr__
            model:
              refId: threshold
              type: threshold
              expression: prometheus_math
              conditions: [{ evaluator: { type: gt, params: [0] } }]
";

/// After how many evaluations without its series an alert ends. Grafana's keepFiringFor holds while the query has no
/// result at all; if other series remain in the result, only this number counts. For an alert without `for` it can
/// stand for the same time. For others it would also bridge gaps before the alert fires, which `for` must not have.
fn missing_evaluations(rule: &Rule, interval: &str) -> anyhow::Result<u64> {
    match (&rule.pending, &rule.keep_firing_for) {
        (None, Some(keep)) => Ok(seconds(keep)?.div_ceil(seconds(interval)?) + 1),
        _ => Ok(1),
    }
}

/// A template of Prometheus as one of Grafana, without variables: provisioning would read `$` as the environment's.
fn annotation(template: &str) -> anyhow::Result<String> {
    // Grafana has no query, which the time range of the link needs.
    let template = match template.split_once("from={{ query") {
        Some((link, _)) => link.trim_end_matches(['?', '&']),
        None => template,
    };
    let text = template
        // Grafana's own address, with one slash at its end.
        .replace("{{ $externalLabels.grafana_url }}/", "{{ reReplaceAll `/*\\z` \"/\" externalURL }}")
        .replace("$labels.", ".Labels.")
        .replace("$value", ".Values.query.Value");
    ensure!(!text.contains('$'), "a variable that Grafana's templates do not have: {text}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_become_those_of_grafana() {
        let link = "{{ $externalLabels.grafana_url }}/d/a?var-b={{ $labels.b | urlquery }}&from={{ query \"x\" }}";
        assert_eq!(
            annotation(link).unwrap(),
            "{{ reReplaceAll `/*\\z` \"/\" externalURL }}d/a?var-b={{ .Labels.b | urlquery }}"
        );
        assert_eq!(
            annotation("{{ if ge $value 1.0 }}{{ $value | humanizePercentage }}{{ end }}").unwrap(),
            "{{ if ge .Values.query.Value 1.0 }}{{ .Values.query.Value | humanizePercentage }}{{ end }}"
        );
        assert!(annotation("{{ $of := 1 }}").is_err());
    }
}
