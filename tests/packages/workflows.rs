//! The workflows: what they run is pinned, and what they may do is little.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::{output, read, root};

/// The workflows by name.
fn workflows() -> Vec<(String, Value)> {
    let entries = fs::read_dir(root().join(".github/workflows")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let parse = |name: String| {
        let text = read(&format!(".github/workflows/{name}"));
        let value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, value)
    };
    let found: Vec<_> = names.map(parse).collect();
    assert!(found.len() >= 2, "{found:?}");
    found
}

fn jobs(workflow: &Value) -> impl Iterator<Item = (&String, &Value)> {
    workflow["jobs"].as_object().unwrap().iter()
}

#[test]
fn actions_are_pinned_by_commit() {
    for (name, workflow) in workflows() {
        for (job, value) in jobs(&workflow) {
            for action in value["steps"].as_array().unwrap().iter().filter_map(|step| step["uses"].as_str()) {
                let commit = action.split_once('@').unwrap().1;
                let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
                assert!(is_commit, "{name}: {job}: {action}");
            }
        }
    }
}

#[test]
fn rights_are_given_to_single_jobs() {
    for (name, workflow) in workflows() {
        assert_eq!(workflow["permissions"], serde_json::json!({}), "{name}");
        for (job, value) in jobs(&workflow) {
            assert!(value["permissions"].is_object() && value["timeout-minutes"].is_u64(), "{name}: {job}");
        }
    }
}

/// A manual run publishes nothing: the jobs that may write run for tags only.
#[test]
fn only_a_tag_publishes() {
    let found = workflows();
    let (_, release) = found.iter().find(|(name, _)| name == "release.yml").unwrap();
    let mut publishing = Vec::new();
    for (job, value) in jobs(release) {
        let mut rights = value["permissions"].as_object().unwrap().values();
        if rights.any(|right| right == "write") {
            assert_eq!(value["if"], "github.ref_type == 'tag'", "{job}");
            publishing.push(job.as_str());
        } else {
            let text = value.to_string();
            for command in ["cargo publish --", "helm push", "gh release", "docker push", "imagetools create"] {
                assert!(!text.contains(command) || text.contains("--dry-run"), "{job}: {command}");
            }
        }
    }
    publishing.sort_unstable();
    assert_eq!(publishing, ["chart", "crates", "image", "image-index", "release"]);
}

#[test]
fn zizmor_finds_nothing() {
    let zizmor = root().join("target/package-tools/bin/zizmor");
    assert!(zizmor.exists(), "{} is missing: run scripts/setup", zizmor.display());
    output(
        Command::new(zizmor).args(["--offline", "--no-progress", "--persona=pedantic", ".github"]).current_dir(root()),
    );
}
