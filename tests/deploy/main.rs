//! The files that deploy the program: the Helm chart, the kustomize overlays, the compose files and the systemd units.
//! They render, fit the schemas of what reads them, and the program starts with the arguments, environment and files
//! that they give it. helm, kubectl and the schemas come from scripts/setup-kubernetes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "../common/exporter.rs"]
mod exporter;
#[path = "../common/exposition.rs"]
mod exposition;

mod chart;
mod compose;
mod documents;
mod identity;
mod options;
mod overlays;
mod pods;
mod refusals;
mod running;
mod schemas;
mod systemd;
mod tools;
mod values;

use std::fs;
use std::path::Path;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn parse(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// The objects of this kind.
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The object of this kind and name.
fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = of_kind(objects, kind).into_iter().find(|object| object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}
