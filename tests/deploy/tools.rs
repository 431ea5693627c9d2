//! helm, kubectl and the validators, from target/kubernetes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{parse, root};

/// The chart, relative to the root of the repository.
pub(crate) const CHART: &str = "deploy/helm/clerk-exporter";

/// Path of an installed tool.
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = root().join("target/kubernetes").join(name);
    assert!(path.exists(), "{} is missing: run scripts/setup", path.display());
    path
}

/// Runs a program in the root of the repository: whether it succeeded, its output, and its errors.
pub(crate) fn run(program: &str, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(tool(program));
    // Nothing of this user's configuration, and nothing written to it.
    let home = root().join("target/kubernetes/home");
    command.args(arguments).current_dir(root()).stdin(Stdio::null()).env_clear().env("HOME", home);
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// The output of a program that has to succeed.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let (succeeded, output, errors) = run(program, arguments);
    assert!(succeeded, "{program} {arguments:?}: {output}{errors}");
    output
}

/// The objects of a stream of YAML documents.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let documents = format!("\n{text}");
    let documents = documents.split("\n---\n").map(parse);
    documents.filter(|object| !object.is_null()).collect()
}

/// The chart with further arguments, as the release `clerk` in the namespace `identity`.
pub(crate) fn template(arguments: &[&str]) -> Vec<Value> {
    objects(&output("helm", &[&["template", "clerk", CHART, "--namespace=identity"], arguments].concat()))
}

/// Why helm refuses to render the chart with these arguments.
pub(crate) fn refusal(arguments: &[&str]) -> String {
    let (succeeded, output, errors) =
        run("helm", &[&["template", "clerk", CHART, "--namespace=identity"], arguments].concat());
    assert!(!succeeded, "{arguments:?} is not refused:\n{output}");
    errors
}

/// The value files of the chart's `ci`, by their names.
pub(crate) fn value_files() -> Vec<(String, String)> {
    let entries = fs::read_dir(root().join(CHART).join("ci")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = names.map(|name| (name.clone(), format!("{CHART}/ci/{name}"))).collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    files
}

/// An overlay of `deploy/kubernetes`.
pub(crate) fn overlay(name: &str) -> Vec<Value> {
    objects(&output("kubectl", &["kustomize", &format!("deploy/kubernetes/overlays/{name}")]))
}

/// The names of the overlays.
pub(crate) const OVERLAYS: [&str; 4] = ["example", "gateway", "plain", "prometheus-operator"];
