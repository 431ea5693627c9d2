//! Validates rules and configurations with the tools of Prometheus and Alertmanager.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde::Deserialize;

use crate::{read, root, rule_tests, rules};

const ALERTMANAGER: &str = "deploy/alertmanager/alertmanager.yml";

/// Runs a tool from Debian's packages prometheus and prometheus-alertmanager.
pub(crate) fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).current_dir(root()).stdin(Stdio::null()).output();
    said(&output.unwrap_or_else(|error| panic!("{program}: {error}; run scripts/setup")))
}

fn said(output: &Output) -> (bool, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[derive(Deserialize)]
struct TestFile {
    tests: Vec<TestGroup>,
}

#[derive(Deserialize)]
struct TestGroup {
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
}

#[derive(Deserialize)]
struct AlertTest {
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    exp_labels: BTreeMap<String, String>,
}

#[test]
fn rules_pass_promtool_lint() {
    let (clean, text) = run("promtool", &["check", "rules", "--lint=all", "--lint-fatal", "alerts/clerk.rules.yml"]);
    assert!(clean, "{text}");
}

/// Runs promtool on files of rule tests, and returns what it says about those that fail.
pub(crate) fn test_rules(files: &[PathBuf]) -> String {
    // In parallel: each is one CPU-bound process.
    let running = files.iter().map(|file| {
        let mut command = Command::new("promtool");
        command.args(["test", "rules"]).arg(file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        (file, command.spawn().unwrap_or_else(|error| panic!("promtool: {error}; run scripts/setup")))
    });
    let running: Vec<_> = running.collect();
    let mut failures = String::new();
    for (file, child) in running {
        let (passed, text) = said(&child.wait_with_output().unwrap());
        if !passed {
            failures.push_str(&format!("{}\n{text}\n", file.display()));
        }
    }
    failures
}

#[test]
fn rule_tests_pass() {
    let failures = test_rules(&rule_tests());
    assert!(failures.is_empty(), "{failures}");
}

/// Alert and severity of each rule.
fn alerts() -> impl Iterator<Item = (String, String)> {
    rules().into_iter().filter_map(|rule| Some((rule.alert?, rule.labels["severity"].clone())))
}

#[test]
fn every_alert_has_a_firing_and_a_silent_test() {
    let mut fires = BTreeSet::new();
    let mut silent = BTreeSet::new();
    for file in rule_tests() {
        let file: TestFile = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        for test in file.tests.into_iter().flat_map(|group| group.alert_rule_test) {
            let expected = test.exp_alerts.into_iter().map(|alert| alert.exp_labels["severity"].clone());
            let severities: Vec<_> = expected.collect();
            // A test lists all firing alerts; so rules of the same alert with other severities do not fire.
            for (alert, severity) in alerts().filter(|(alert, _)| *alert == test.alertname) {
                let seen = if severities.contains(&severity) { &mut fires } else { &mut silent };
                seen.insert((alert, severity));
            }
        }
    }
    let shipped: BTreeSet<_> = alerts().collect();
    assert_eq!(fires, shipped, "firing tests per alert and severity");
    assert_eq!(silent, shipped, "silent tests per alert and severity");
}

#[test]
fn prometheus_configurations_are_valid_with_the_rules() {
    let compose = ["deploy/compose/prometheus.yml", "deploy/compose/production/prometheus.yml"];
    for path in compose.into_iter().chain(["deploy/prometheus/prometheus.yml"]) {
        let place = tempfile::tempdir().unwrap();
        let config = place.path().join("prometheus.yml");
        fs::write(&config, read(path)).unwrap();
        fs::create_dir(place.path().join("rules")).unwrap();
        fs::write(place.path().join("rules/clerk.rules.yml"), read("alerts/clerk.rules.yml")).unwrap();
        let (good, text) = run("promtool", &["check", "config", config.to_str().unwrap()]);
        assert!(good && text.contains("1 rule files found"), "{path}: {text}");
    }
}

#[test]
fn alertmanager_routes_each_alert_by_its_severity() {
    let (good, text) = run("amtool", &["check-config", ALERTMANAGER]);
    assert!(good, "{text}");
    let config = format!("--config.file={ALERTMANAGER}");
    let route = |receiver: &str, labels: &[&str]| {
        let verify = format!("--verify.receivers={receiver}");
        let arguments = [&["config", "routes", "test", config.as_str(), verify.as_str()], labels].concat();
        let (good, text) = run("amtool", &arguments);
        assert!(good, "{labels:?} not to {receiver}: {text}");
    };
    for rule in rules() {
        let Some(alert) = &rule.alert else { continue };
        let severity = rule.labels["severity"].as_str();
        let receiver = match severity {
            "critical" => "clerk-page",
            "warning" => "clerk-ticket",
            _ => "clerk-info",
        };
        let (name, severity) = (format!("alertname={alert}"), format!("severity={severity}"));
        route(receiver, &[&name, &severity, "clerk_instance=prod"]);
    }
    route("default", &["alertname=SomebodyElse", "severity=critical"]);
}

#[test]
fn alertmanager_inhibitions_use_existing_alerts_and_labels() {
    #[derive(Deserialize)]
    struct Config {
        inhibit_rules: Vec<Inhibition>,
    }
    #[derive(Deserialize)]
    struct Inhibition {
        source_matchers: Vec<String>,
        target_matchers: Vec<String>,
        equal: Vec<String>,
    }
    let config: Config = serde_saphyr::from_str(&read(ALERTMANAGER)).unwrap();
    let alerts: Vec<_> = rules().into_iter().filter_map(|rule| rule.alert).collect();
    for Inhibition { source_matchers, target_matchers, equal } in config.inhibit_rules {
        assert!(!equal.is_empty(), "{source_matchers:?} would silence everything");
        for matcher in source_matchers.iter().chain(&target_matchers) {
            if let Some(name) = matcher.strip_prefix("alertname=\"") {
                assert!(alerts.iter().any(|alert| alert == name.trim_end_matches('"')), "{matcher}");
            }
        }
        assert_ne!(source_matchers, target_matchers);
    }
}
