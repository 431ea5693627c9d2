//! The alert rules, their tests, and the files that deploy them to Prometheus, Alertmanager and Grafana.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests are outside of test functions")]

mod documents;
mod durations;
mod grafana;
mod labels;
mod mixin;
mod notifications;
mod promql;
mod rules;
mod tools;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: Option<String>,
    record: Option<String>,
    expr: String,
    #[serde(rename = "for")]
    for_: Option<String>,
    keep_firing_for: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Rule {
    fn title(&self) -> &str {
        self.alert.as_deref().or(self.record.as_deref()).unwrap_or("a rule without a name")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// All rules in file order.
fn rules() -> Vec<Rule> {
    let file: File = serde_saphyr::from_str(&read("alerts/clerk.rules.yml")).unwrap();
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// The files of rule tests.
fn rule_tests() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("alerts/tests")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.iter().all(|file| file.to_str().unwrap().ends_with(".test.yml")), "{files:?}");
    files
}
