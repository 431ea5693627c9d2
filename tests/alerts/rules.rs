//! The rules only use existing names, and contain what an on-call engineer needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use clerk_exporter::metrics::catalogue;

use crate::promql::{self, Names};
use crate::{Rule, read, root, rules};

const RUNBOOKS: &str = "https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/runbooks/";
const DASHBOARDS: [&str; 3] = ["clerk-overview", "clerk-instance", "clerk-gateway"];
/// Labels that Prometheus adds to scraped series, including on Kubernetes.
const TARGET_LABELS: [&str; 5] = ["cluster", "instance", "job", "namespace", "pod"];
/// How Prometheus renames a label of the exporter that a target also has.
const RENAMED: &str = "exported_environment";
/// Annotations of every alert. Alerts on usage also have `top_caller`.
const ANNOTATIONS: [&str; 4] = ["dashboard_url", "description", "runbook_url", "summary"];

/// The labels of each metric that rules may use, without those that Prometheus adds.
fn known_metrics() -> BTreeMap<String, BTreeSet<String>> {
    let owned = |labels: &[&str]| {
        let renamed = labels.contains(&"environment").then_some(&RENAMED);
        labels.iter().chain(renamed).map(|label| (*label).to_owned()).collect::<BTreeSet<_>>()
    };
    let mut known = BTreeMap::from([("up".to_owned(), BTreeSet::new())]);
    for family in catalogue::ALL {
        match family.kind {
            catalogue::Kind::Histogram => {
                let mut buckets = owned(family.labels);
                buckets.insert("le".to_owned());
                known.insert(format!("{}_bucket", family.name), buckets);
                known.insert(format!("{}_sum", family.name), owned(family.labels));
                known.insert(format!("{}_count", family.name), owned(family.labels));
            }
            catalogue::Kind::Counter | catalogue::Kind::Gauge => {
                known.insert(family.name.to_owned(), owned(family.labels));
            }
        }
    }
    known
}

/// All labels that the result of an expression can have.
fn labels(names: &Names, known: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let own = names.selectors.iter().filter_map(|(metric, _)| known.get(metric)).flatten().cloned();
    own.chain(TARGET_LABELS.map(str::to_owned)).collect()
}

fn alerts() -> Vec<(String, Rule)> {
    let alerts = rules().into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule)));
    alerts.collect()
}

#[test]
fn every_metric_and_label_exists() {
    let mut known = known_metrics();
    for rule in rules() {
        let title = rule.title();
        let names = promql::names(&rule.expr);
        if let Some(record) = &rule.record {
            // In file order, as Prometheus evaluates a group. A rule may use its own last result.
            let labels = labels(&names, &known);
            known.insert(record.clone(), labels);
        }
        for (metric, matchers) in &names.selectors {
            let Some(labels) = known.get(metric) else { panic!("{title}: there is no metric {metric}") };
            for label in matchers.iter().filter(|label| !TARGET_LABELS.contains(&label.as_str())) {
                assert!(labels.contains(label), "{title}: {metric} has no label {label}");
            }
        }
        let labels = labels(&names, &known);
        for label in &names.grouping {
            assert!(labels.contains(label), "{title}: no metric of the expression has a label {label}");
        }
    }
}

#[test]
fn annotation_labels_can_exist() {
    let mut known = known_metrics();
    for rule in rules() {
        let labels = labels(&promql::names(&rule.expr), &known);
        for (annotation, text) in &rule.annotations {
            for after in text.split("$labels.").skip(1) {
                let end = after.find(|next: char| !next.is_ascii_alphanumeric() && next != '_').unwrap_or(after.len());
                let label = &after[..end];
                // For an alert without a bucket, top_caller names the caller across all buckets.
                if (annotation.as_str(), label) == ("top_caller", "bucket") {
                    continue;
                }
                assert!(labels.contains(label), "{}: nothing has a label {label}", rule.title());
            }
        }
        if let Some(record) = rule.record {
            known.insert(record, labels);
        }
    }
}

#[test]
fn alerts_have_the_required_annotations() {
    for (name, rule) in alerts() {
        let annotation = |key: &str| {
            let text = rule.annotations.get(key);
            text.unwrap_or_else(|| panic!("{name} has no {key}")).as_str()
        };
        assert!(name.starts_with("Clerk"), "{name}");
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: severity {severity:?}");
        assert_eq!(rule.labels.len(), 1, "{name}: labels");
        assert!(rule.for_.is_some() || rule.keep_firing_for.is_some(), "{name} has neither for nor keep_firing_for");
        let summary = annotation("summary");
        assert!(
            summary.ends_with('.') && !summary.contains("{{"),
            "{name}: the summary is a sentence, always the same"
        );
        assert!(name == "ClerkExporterAbsent" || annotation("description").contains("{{ $labels."), "{name}: who?");
        assert_eq!(annotation("runbook_url"), format!("{RUNBOOKS}{name}.md"), "{name}");
        let link = annotation("dashboard_url").strip_prefix("{{ $externalLabels.grafana_url }}/d/");
        let (uid, query) = link.and_then(|link| link.split_once('?')).unwrap_or_else(|| panic!("{name}: {link:?}"));
        assert!(DASHBOARDS.contains(&uid), "{name}: dashboard_url");
        for end in ["from={{ query \"1000 * (time() - 1800)\"", "to={{ query \"1000 * (time() + 1800)\""] {
            assert!(query.contains(end), "{name}: the time range of dashboard_url");
        }
        let others = rule.annotations.keys().filter(|key| !ANNOTATIONS.contains(&key.as_str()));
        let of_use = ["Low", "Exhausted", "ExhaustionForecast", "Throttled", "BlockedForLong"];
        let of_use =
            of_use.map(|end| format!("ClerkRateLimit{end}")).contains(&name) || name.starts_with("ClerkGateway");
        let expected: &[&str] = match name.as_str() {
            // Whether Clerk or the local side is the cause.
            "ClerkProbeFailing" | "ClerkProbeStale" => &["cause"],
            "ClerkGatewayShedding" => &["top_caller", "top_refused"],
            "ClerkMeteredUsageNearFreeTier" => &["free_part_ends", "top_caller"],
            _ if of_use => &["top_caller"],
            _ => &[],
        };
        assert_eq!(others.collect::<Vec<_>>(), expected, "{name}: further annotations");
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let alerts: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    let mut runbooks = BTreeSet::new();
    for entry in fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "README" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("# {name}\n")), "{name}: title");
        for section in ["Meaning", "Impact", "Diagnosis", "Now", "For good"] {
            assert!(text.contains(&format!("\n## {section}\n")), "{name}: no section {section}");
        }
        runbooks.insert(name);
    }
    assert_eq!(alerts, runbooks);
}

#[test]
fn runbook_queries_use_existing_metrics() {
    let mut known = known_metrics();
    for rule in rules() {
        if let Some(record) = &rule.record {
            let labels = labels(&promql::names(&rule.expr), &known);
            known.insert(record.clone(), labels);
        }
    }
    for entry in fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for (index, block) in text.split("```promql\n").enumerate().skip(1) {
            let query = block.split("```").next().unwrap();
            for (metric, matchers) in promql::names(query).selectors {
                let place = format!("{}, query {index}", path.display());
                let Some(labels) = known.get(&metric) else { panic!("{place}: there is no metric {metric}") };
                for label in matchers.iter().filter(|label| !TARGET_LABELS.contains(&label.as_str())) {
                    assert!(labels.contains(label), "{place}: {metric} has no label {label}");
                }
            }
        }
    }
}

#[test]
fn every_alert_is_in_the_documentation_with_its_severities() {
    let documentation = read("docs/alerting.md");
    let mut severities = BTreeMap::<String, Vec<String>>::new();
    for (name, rule) in alerts() {
        severities.entry(name).or_default().push(rule.labels["severity"].clone());
    }
    for (name, severities) in severities {
        let row = format!("| [{name}](runbooks/{name}.md) | {} |", severities.join(", "));
        assert!(documentation.contains(&row), "docs/alerting.md has no row that begins with {row}");
    }
}

/// Labels after each `by`, `without`, `on` and `ignoring` of an expression.
fn label_lists<'a>(expression: &'a str, word: &str) -> Vec<Vec<&'a str>> {
    let begin = format!(" {word} (");
    let lists = expression.split(begin.as_str()).skip(1);
    lists
        .map(|rest| rest.split(')').next().unwrap().split(',').map(str::trim).filter(|it| !it.is_empty()).collect())
        .collect()
}

#[test]
fn joins_use_no_labels_from_relabelling() {
    let identity = ["job", "namespace", "cluster", "clerk_instance"];
    let target = ["job", "instance", "namespace", "cluster"];
    let own: BTreeSet<&str> = catalogue::ALL.iter().flat_map(|family| family.labels).copied().collect();
    for rule in rules() {
        let expression = format!(" {}", rule.expr.replace('\n', " "));
        let title = rule.title();
        assert!(label_lists(&expression, "ignoring").is_empty(), "{title}: joins on arbitrary labels");
        for list in label_lists(&expression, "on") {
            // Prometheus has no `up` with labels from metric_relabel_configs.
            let is_known = list.is_empty()
                || list == ["job", "instance"]
                || list.starts_with(&identity)
                || list.starts_with(&target)
                || list == ["job", "namespace", "cluster"];
            let others = list.iter().filter(|label| !identity.contains(label) && !target.contains(label));
            assert!(is_known && others.clone().all(|label| own.contains(label)), "{title}: on {list:?}");
        }
        // One to many: the right side must be aggregated to one series, or the rule fails where two clusters meet.
        for part in expression.split("group_left ()").skip(1) {
            let part = part.trim_start().trim_start_matches('(').trim_start();
            let part = part.trim_start_matches("1 - ");
            assert!(["max by (", "sum by ("].iter().any(|begin| part.starts_with(begin)), "{title}: {part:.60}");
        }
    }
}

#[test]
fn alerts_have_no_instance_or_pod_label() {
    // The target labels that a recording rule keeps.
    let mut of_identity = BTreeSet::new();
    for rule in rules() {
        let begin = rule.expr.trim_start_matches(|c: char| c == '(' || c.is_whitespace());
        let is_recorded = of_identity.iter().any(|record: &String| begin.starts_with(record.as_str()));
        let aggregates = ["sum", "min", "max"].iter().any(|function| {
            let rest = begin.strip_prefix(function).unwrap_or_default();
            rest.starts_with(" without (instance, pod") || rest.starts_with(" by (job, namespace, cluster")
        });
        let title = rule.title().to_owned();
        match &rule.record {
            Some(record) if is_recorded || aggregates => {
                of_identity.insert(record.clone());
            }
            Some(record) => assert!(record.starts_with("job_instance"), "{record}: does not name its labels"),
            None => assert!(is_recorded || aggregates, "{title} is of an instance: {begin:.80}"),
        }
    }
}
