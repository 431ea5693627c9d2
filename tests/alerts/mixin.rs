//! The mixin: without settings it renders the shipped rules and dashboards, and each setting changes what it says.

use std::fs;

use serde_json::{Value, json};

use crate::{labels, read, rule_tests, tools};

/// What jsonnet makes of the expression, in which `mixin` is the mixin.
fn jsonnet(expression: &str) -> Value {
    let (good, text) =
        tools::run("jsonnet", &["-e", &format!("local mixin = import 'mixin/mixin.libsonnet'; {expression}")]);
    assert!(good, "{expression}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{expression}: {error}: {text:.500}"))
}

fn shipped() -> Value {
    serde_saphyr::from_str(&read("alerts/clerk.rules.yml")).unwrap()
}

fn rules(file: &Value) -> Vec<Value> {
    file["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// With all numbers as text of ten digits: jsonnet prints 1.0 as 1 and 0.1 as 0.10000000000000001, which serde_json does not
/// read as the same number.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(format!("{:.9e}", number.as_f64().unwrap())),
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}

#[test]
fn mixin_renders_the_shipped_files() {
    let all = jsonnet(
        "mixin { alerts: mixin.prometheusAlerts, rules: mixin.prometheusRules, boards: mixin.grafanaDashboards }",
    );
    assert!(all["alerts"] == shipped(), "the rules differ");
    assert_eq!(all["rules"], json!({ "groups": [] }));
    let boards = all["boards"].as_object().unwrap();
    assert_eq!(boards.len(), 3);
    for (name, board) in boards {
        let shipped: Value = serde_json::from_str(&read(&format!("dashboards/{name}"))).unwrap();
        assert!(plain(board) == plain(&shipped), "{name} differs");
    }
}

/// The thresholds: key, alert, how the comparison begins, and the shipped number.
const THRESHOLDS: [(&str, &str, &str, &str); 11] = [
    ("blockedSeconds", "ClerkRateLimitBlockedForLong", "> ", "60"),
    ("cacheErrorRatio", "ClerkCacheTierDown", "> ", "0.5"),
    ("clockOffsetSeconds", "ClerkClockOffset", "> ", "5"),
    ("headersMalformedRatio", "ClerkRateLimitHeadersMalformed", "> ", "0.01"),
    ("probeFailureRatio", "ClerkProbeFailing", "> ", "0.5"),
    ("queueWaitRatio", "ClerkGatewayQueueSaturated", "> ", "0.1"),
    ("retryRatio", "ClerkGatewayRetryAmplification", "> ", "0.1"),
    ("shedRatio", "ClerkGatewayShedding", "> ", "0.01"),
    ("spansLateRatio", "ClerkTelemetrySpansLate", "> ", "0.01"),
    ("webhookBadSignatureRatio", "ClerkWebhookSignatureFailures", "> ", "0.1"),
    ("webhookBadSignatures", "ClerkWebhookSignatureFailures", ">= ", "3"),
];

#[test]
fn thresholds_change_their_comparisons_only() {
    let keys = jsonnet("std.objectFields(mixin._config.thresholds)");
    assert_eq!(keys, json!(THRESHOLDS.map(|(key, ..)| key)), "every threshold is checked here");
    // Each key gets a number of its own.
    let values: serde_json::Map<String, Value> = THRESHOLDS
        .iter()
        .enumerate()
        .map(|(index, (key, ..))| ((*key).to_owned(), json!(700.5 + index as f64)))
        .collect();
    let after = rules(&jsonnet(&format!(
        "(mixin {{ _config+:: {{ thresholds: {} }} }}).prometheusAlerts",
        Value::Object(values.clone())
    )));
    let mut expected = rules(&shipped());
    for (key, alert, comparison, number) in THRESHOLDS {
        for rule in expected.iter_mut().filter(|rule| rule["alert"] == alert) {
            let text = rule["expr"].as_str().unwrap();
            let changed = text.replace(&format!("{comparison}{number}\n"), &format!("{comparison}{}\n", values[key]));
            let changed = changed.replace(&format!("< -{number}\n"), &format!("< -{}\n", values[key]));
            assert_ne!(text, changed, "{key}");
            rule["expr"] = json!(changed);
        }
    }
    assert_eq!(after, expected);
}

#[test]
fn other_settings_change_what_they_say() {
    let after = rules(&jsonnet(
        "(mixin { _config+:: {
            runbookURLPattern: 'https://wiki.example.org/%s', grafanaURL: 'https://g.example.org',
            severities+: { critical: 'page' }, alertLabels: { team: 'identity' },
            pendingFor: { ClerkProbeFailing: '7m' }, keepFiringFor: { ClerkProbeFailing: '8m' },
        } }).prometheusAlerts",
    ));
    let mut expected = rules(&shipped());
    for rule in expected.iter_mut().filter(|rule| rule["alert"].is_string()) {
        let alert = rule["alert"].as_str().unwrap().to_owned();
        rule["labels"]["team"] = json!("identity");
        if rule["labels"]["severity"] == "critical" {
            rule["labels"]["severity"] = json!("page");
        }
        rule["annotations"]["runbook_url"] = json!(format!("https://wiki.example.org/{alert}"));
        let link = rule["annotations"]["dashboard_url"].as_str().unwrap();
        rule["annotations"]["dashboard_url"] =
            json!(link.replace("{{ $externalLabels.grafana_url }}", "https://g.example.org"));
        if alert == "ClerkProbeFailing" {
            rule["for"] = json!("7m");
            rule["keep_firing_for"] = json!("8m");
        }
    }
    assert_eq!(after, expected);
    let board =
        jsonnet("(mixin { _config+:: { dashboardTags: ['mine'] } }).grafanaDashboards['clerk-gateway.json'].tags");
    assert_eq!(board.as_array().unwrap().last(), Some(&json!("mine")));
}

#[test]
fn wrong_names_of_alerts_are_errors() {
    for (alert, message) in [
        ("ClerkMistyped", "no such alert: ClerkMistyped"),
        ("ClerkRedisRefused", "the description states the duration"),
    ] {
        let render = format!(
            "((import 'mixin/mixin.libsonnet') {{ _config+:: {{ pendingFor: {{ {alert}: '1m' }} }} }}).prometheusAlerts"
        );
        let (good, text) = tools::run("jsonnet", &["-e", &render]);
        assert!(!good && text.contains(message), "{text}");
    }
}

#[test]
fn rule_tests_pass_with_a_selector() {
    let folder = tempfile::tempdir().unwrap();
    let rules_file = folder.path().join("rules.json");
    // One of the labels of relabelled targets, and no other target.
    let config = "selector: 'cluster=\"eu-1\"', alertLabels: { owner: 'identity' }";
    let made = jsonnet(&format!("(mixin {{ _config+:: {{ {config} }} }}).prometheusAlerts"));
    fs::write(&rules_file, made.to_string()).unwrap();
    let (good, text) =
        tools::run("promtool", &["check", "rules", "--lint=all", "--lint-fatal", rules_file.to_str().unwrap()]);
    assert!(good, "{text}");
    for rule in rules(&made) {
        let expression = rule["expr"].as_str().unwrap();
        for (metric, matchers) in crate::promql::names(expression).selectors {
            assert_eq!(matchers.contains("cluster"), !metric.contains(':'), "{metric}: {expression}");
        }
    }
    let mut files = Vec::new();
    for file in rule_tests() {
        let tests: Value = serde_saphyr::from_str(&labels::quoted(&fs::read_to_string(&file).unwrap())).unwrap();
        let mut tests = labels::relabelled_tests(&tests);
        tests["rule_files"] = json!([rules_file]);
        let groups = tests["tests"].as_array_mut().unwrap();
        for test in groups.iter_mut().flat_map(|group| group["alert_rule_test"].as_array_mut().unwrap()) {
            for alert in test["exp_alerts"].as_array_mut().unwrap() {
                alert["exp_labels"]["owner"] = json!("identity");
            }
        }
        if !groups.is_empty() {
            let place = folder.path().join(file.file_name().unwrap());
            fs::write(&place, tests.to_string()).unwrap();
            files.push(place);
        }
    }
    let failures = tools::test_rules(&files);
    assert!(failures.is_empty(), "{failures}");
}
