//! The alerts for Grafana: the file has what Grafana's provisioning reads, and its queries find what Prometheus' rules
//! find. No Grafana runs here: the keys are those of its source, and promtool evaluates the queries.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Map, Value, json};

use crate::{labels, promql, read, rule_tests, rules, tools};

/// What Grafana 12 reads of a group, a rule and a step (pkg/services/provisioning/alerting: rules_types.go). It ignores
/// other keys, so that a mistyped one would be lost silently.
const GROUP: [&str; 5] = ["orgId", "name", "folder", "interval", "rules"];
const RULE: [&str; 12] = [
    "uid",
    "title",
    "condition",
    "data",
    "noDataState",
    "execErrState",
    "for",
    "keepFiringFor",
    "missing_series_evals_to_resolve",
    "annotations",
    "labels",
    "isPaused",
];
const STEP: [&str; 5] = ["refId", "queryType", "relativeTimeRange", "datasourceUid", "model"];
/// Of the functions that templates of Prometheus and of Grafana have, those in use.
const FUNCTIONS: [&str; 10] = [
    "else",
    "end",
    "externalURL",
    "ge",
    "humanizeDuration",
    "humanizePercentage",
    "if",
    "printf",
    "reReplaceAll",
    "urlquery",
];

/// Metrics that no query has a result from alone, unless it begins with one.
const CONDITIONS: [&str; 5] = [
    "clerk_instance_info",
    "clerk_ratelimit_low_threshold_ratio",
    "clerk_ratelimit_window_seconds",
    "process_start_time_seconds",
    "up",
];

fn groups() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read("alerts/grafana/clerk.rules.yml")).unwrap();
    assert_eq!(file["apiVersion"], 1);
    file["groups"].as_array().unwrap().clone()
}

fn alerts() -> Vec<Value> {
    groups().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn assert_known(value: &Value, known: &[&str]) {
    for key in value.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "Grafana does not read {key}");
    }
}

fn seconds(duration: &Value) -> u64 {
    let text = duration.as_str().unwrap();
    let (number, unit) = text.split_at(text.len() - 1);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("{text}: no duration"),
    };
    number.parse::<u64>().unwrap() * factor
}

#[test]
fn grafana_reads_every_key() {
    let mut uids = BTreeSet::new();
    for group in groups() {
        assert_known(&group, &GROUP);
        let interval = seconds(&group["interval"]);
        assert!(interval > 0 && interval.is_multiple_of(10), "Grafana's scheduler works every 10 s: {}", group["name"]);
        for rule in group["rules"].as_array().unwrap() {
            assert_known(rule, &RULE);
            let uid = rule["uid"].as_str().unwrap();
            assert!(uid.len() <= 40 && uid.chars().all(|next| next.is_ascii_alphanumeric() || next == '-'), "{uid}");
            assert!(uids.insert(uid.to_owned()), "{uid} stands twice");
            assert_eq!(rule["noDataState"], "OK", "{uid}");
            assert_eq!(rule["execErrState"], "Error", "{uid}");
            let pending = seconds(&rule["for"]);
            assert!(pending == 0 || pending >= interval, "{uid}: for is less than an evaluation");
            // If other series remain in the result, the alert lasts as long as without them.
            let missing = rule["missing_series_evals_to_resolve"].as_u64().unwrap();
            match rule.get("keepFiringFor") {
                Some(keep) if pending == 0 => assert_eq!((missing - 1) * interval, seconds(keep), "{uid}"),
                _ => assert_eq!(missing, 1, "{uid}"),
            }
        }
    }
}

#[test]
fn a_series_with_any_value_is_an_alert() {
    for rule in alerts() {
        let steps = rule["data"].as_array().unwrap();
        for step in steps {
            assert_known(step, &STEP);
            assert_eq!(step["model"]["refId"], step["refId"]);
        }
        let [query, number, threshold] = &steps[..] else { panic!("{}: three steps", rule["uid"]) };
        assert_eq!(query["datasourceUid"], "prometheus");
        assert_eq!((&query["model"]["instant"], &query["model"]["range"]), (&json!(true), &json!(false)));
        let name = query["refId"].as_str().unwrap();
        assert_eq!((&number["datasourceUid"], &number["model"]["type"]), (&json!("__expr__"), &json!("math")));
        let is_a_number = format!("is_number(${name}) || is_nan(${name}) || is_inf(${name})");
        assert_eq!(number["model"]["expression"], json!(is_a_number));
        assert_eq!(
            (&threshold["datasourceUid"], &threshold["model"]["type"]),
            (&json!("__expr__"), &json!("threshold"))
        );
        assert_eq!(threshold["model"]["expression"], number["refId"]);
        assert_eq!(threshold["model"]["conditions"], json!([{ "evaluator": { "type": "gt", "params": [0] } }]));
        assert_eq!(rule["condition"], threshold["refId"]);
    }
}

#[test]
fn grafana_has_the_same_alerts() {
    let name = |rule: &Value| (rule["title"].as_str().unwrap().to_owned(), rule["labels"]["severity"].clone());
    let found: Vec<_> = alerts().iter().map(name).collect();
    let shipped = rules().into_iter().filter_map(|rule| Some((rule.alert?, json!(rule.labels["severity"]))));
    assert_eq!(found, shipped.collect::<Vec<_>>());
    for rule in alerts() {
        let query = rule["data"][0]["model"]["expr"].as_str().unwrap();
        let recorded = promql::names(query).selectors.into_iter().find(|(metric, _)| metric.contains(':'));
        assert_eq!(recorded, None, "{}: nothing is recorded for Grafana", rule["uid"]);
    }
}

#[test]
fn templates_use_what_grafana_has() {
    for rule in alerts() {
        for (key, text) in rule["annotations"].as_object().unwrap() {
            let text = text.as_str().unwrap();
            assert!(!text.contains('$'), "{key}: provisioning reads a variable of the environment: {text}");
            for action in text.split("{{ ").skip(1).map(|rest| rest.split(" }}").next().unwrap()) {
                for word in action.split([' ', '|']).filter(|word| word.starts_with(|next: char| next.is_alphabetic()))
                {
                    assert!(FUNCTIONS.contains(&word), "{key}: {word}");
                }
                for field in action.split(' ').filter(|word| word.starts_with('.')) {
                    assert!(field == ".Values.query.Value" || field.starts_with(".Labels."), "{key}: {field}");
                }
            }
        }
    }
}

/// Grafana's rules as Prometheus would have them: a result is an alert. Without those that have no result for the series
/// of the test, and without those that look back for days, which takes minutes, if the test does not name them.
fn as_prometheus_rules(test: &str) -> Value {
    let has_result = |rule: &&Value| {
        let query = rule["data"][0]["model"]["expr"].as_str().unwrap();
        let selectors = promql::names(query).selectors;
        let metrics = || selectors.iter().map(|(metric, _)| metric.as_str());
        let of_test = metrics().next().is_some_and(|first| CONDITIONS.contains(&first))
            || metrics().any(|metric| !CONDITIONS.contains(&metric) && test.contains(metric));
        let looks_back = query.contains("d:5m]");
        of_test && (!looks_back || test.contains(rule["title"].as_str().unwrap()))
    };
    let intervals: Value = serde_saphyr::from_str(&read("alerts/clerk.rules.yml")).unwrap();
    let group = |(group, shipped): (Value, &Value)| {
        let rules = group["rules"].as_array().unwrap().iter().filter(has_result);
        let mut made = json!({ "name": group["name"], "rules": rules.map(as_prometheus_rule).collect::<Vec<_>>() });
        if let Some(interval) = shipped.get("interval") {
            made["interval"] = interval.clone();
        }
        made
    };
    let all: Vec<Value> = groups().into_iter().zip(intervals["groups"].as_array().unwrap()).map(group).collect();
    json!({ "groups": all })
}

fn as_prometheus_rule(rule: &Value) -> Value {
    let annotations: Map<String, Value> = rule["annotations"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, text)| (key.clone(), json!(as_prometheus_template(text.as_str().unwrap()))))
        .collect();
    let mut made = json!({
        "alert": rule["title"], "expr": rule["data"][0]["model"]["expr"], "for": rule["for"],
        "labels": rule["labels"], "annotations": annotations,
    });
    if let Some(keep) = rule.get("keepFiringFor") {
        made["keep_firing_for"] = keep.clone();
    }
    made
}

/// The template with the value of Prometheus, and with an address of Grafana, which promtool does not have.
fn as_prometheus_template(template: &str) -> String {
    template.replace(".Values.query.Value", ".Value").replace("externalURL", "\"https://grafana.example.org/sub\"")
}

/// What is expected of an alert, in Grafana: no annotations that ask Prometheus, and links to Grafana itself.
fn as_in_grafana(annotations: &mut Map<String, Value>) {
    annotations.retain(|key, _| !["cause", "free_part_ends", "top_caller", "top_refused"].contains(&key.as_str()));
    if let Some(link) = annotations.get_mut("dashboard_url") {
        let (_, path) = link.as_str().unwrap().split_once("/d/").unwrap();
        let path = path.split("from=").next().unwrap().trim_end_matches(['?', '&']);
        *link = json!(format!("https://grafana.example.org/sub/d/{path}"));
    }
}

/// Whether a group of tests expects an alert.
fn fires(group: &Value) -> bool {
    let tests = group["alert_rule_test"].as_array().into_iter().flatten();
    tests.filter_map(|test| test["exp_alerts"].as_array()).any(|alerts| !alerts.is_empty())
}

#[test]
fn queries_for_grafana_find_what_the_rules_find() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let mut fired = 0;
    for file in rule_tests() {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let rules = folder.path().join(format!("rules-{name}"));
        fs::write(&rules, as_prometheus_rules(&text).to_string()).unwrap();
        let mut tests: Value = serde_saphyr::from_str(&labels::quoted(&text)).unwrap();
        tests["rule_files"] = json!([rules]);
        // Those in which an alert fires: that it stays silent elsewhere is tested with the rules, and each query takes long.
        tests["tests"].as_array_mut().unwrap().retain(fires);
        for group in tests["tests"].as_array_mut().unwrap() {
            for test in group["alert_rule_test"].as_array_mut().into_iter().flatten() {
                for alert in test["exp_alerts"].as_array_mut().into_iter().flatten() {
                    fired += 1;
                    as_in_grafana(alert["exp_annotations"].as_object_mut().unwrap());
                }
            }
            // Nothing is recorded, but for the alerts themselves.
            if let Some(queries) = group["promql_expr_test"].as_array_mut() {
                queries.retain(|query| query["expr"].as_str().unwrap().contains("ALERTS"));
            }
        }
        let place = folder.path().join(name);
        fs::write(&place, tests.to_string()).unwrap();
        files.push(place);
    }
    assert!(fired > 50, "{fired}");
    let failures = tools::test_rules(&files);
    assert!(failures.is_empty(), "{failures}");
}
