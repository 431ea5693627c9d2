//! Queries in the documents can be pasted as they are: promtool parses each, and none matches values that only one team
//! has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{root, tools};

/// Labels whose values are closed sets, the same everywhere. Any other matched label is specific to one team.
const CLOSED: [&str; 16] = [
    "basis",
    "bucket",
    "by",
    "code",
    "decision",
    "environment",
    "error",
    "le",
    "method",
    "mode",
    "policy",
    "priority",
    "reason",
    "result",
    "source",
    "tier",
];

fn markdown(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Each query with its location: `promql` blocks, and selectors with matchers in the text.
fn queries() -> Vec<(String, String)> {
    let mut files = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for folder in ["docs", "deploy", "dashboards", "alerts"] {
        markdown(&root().join(folder), &mut files);
    }
    let mut queries = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let place = file.strip_prefix(root()).unwrap().display().to_string();
        let mut prose = String::new();
        for (index, block) in text.split("```").enumerate() {
            match block.strip_prefix("promql\n") {
                Some(query) if index % 2 == 1 => queries.push((place.clone(), query.to_owned())),
                _ if index % 2 == 0 => prose.push_str(block),
                _ => {}
            }
        }
        for code in prose.split('`').skip(1).step_by(2) {
            let is_selector = (code.starts_with("clerk_") || code.starts_with("up{")) && code.contains("=\"");
            if is_selector {
                queries.push((place.clone(), code.to_owned()));
            }
        }
    }
    queries
}

/// The labels of a query's matchers. promtool has parsed the query, so a name before an operator and a quoted text is a
/// label.
fn matched_labels(query: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    let parts: Vec<&str> = query.split('"').collect();
    for before in parts.iter().step_by(2).take(parts.len() / 2) {
        let operator = before.trim_end().strip_suffix(['=', '~']).map(|rest| rest.trim_end_matches(['=', '!', '~']));
        let Some(name) = operator else { continue };
        let name = name.trim_end().rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        labels.insert(name.to_owned());
    }
    labels
}

#[test]
fn documented_queries_parse_and_work_when_pasted() {
    let queries = queries();
    assert!(queries.len() > 40, "{}", queries.len());
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(index, (_, query))| json!({ "record": format!("query:{index}"), "expr": query }))
        .collect();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("queries.yml");
    // JSON is YAML.
    fs::write(&file, json!({ "groups": [{ "name": "queries", "rules": rules }] }).to_string()).unwrap();
    let (good, said) = tools::run("promtool", &["check", "rules", "--lint=none", file.to_str().unwrap()]);
    assert!(good, "{said}\n{queries:#?}");
    for (place, query) in &queries {
        assert!(
            !query.contains('<') || query.contains(" < ") || query.contains("<="),
            "{place}: to be filled in: {query}"
        );
        for label in matched_labels(query) {
            assert!(CLOSED.contains(&label.as_str()), "{place}: only one team has this {label}: {query}");
        }
    }
}

#[test]
fn runbook_queries_distinguish_instances_of_different_jobs() {
    for (place, query) in queries() {
        for list in query.split("by (").skip(1).chain(query.split("on (").skip(1)) {
            let list = list.split(')').next().unwrap();
            let labels: Vec<&str> = list.split(',').map(str::trim).collect();
            if labels.contains(&"clerk_instance") {
                assert!(["job", "namespace", "cluster"].iter().all(|label| labels.contains(label)), "{place}: {query}");
            }
        }
    }
}

#[test]
fn matchers_are_distinguished_from_other_text() {
    let query = r#"label_replace(a{b="x", c=~"y{,=\"}" , d!="z"} / on (e) f{g !~ "h"} == 1, "i", "$1", "j", "k")"#;
    let found = matched_labels(&query.replace("\\\"", ""));
    assert_eq!(found, ["b", "c", "d", "g"].map(str::to_owned).into());
}
