//! What is rendered fits the schemas of Kubernetes and of the Prometheus operator.

use std::fs;

use serde_json::{Value, json};

use crate::read;
use crate::tools::{CHART, OVERLAYS, output, overlay, run, template, tool, value_files};

/// The newest version with a schema.
const NEWEST: &str = "1.37";

/// Everything that is rendered in these tests, by its origin.
fn everything() -> Vec<(String, Vec<Value>)> {
    let charts = value_files().into_iter().map(|(name, file)| (name, template(&["--values", &file])));
    let overlays = OVERLAYS.iter().map(|name| ((*name).to_owned(), overlay(name)));
    charts.chain(overlays).collect()
}

fn is_of_operator(object: &Value) -> bool {
    object["apiVersion"] == "monitoring.coreos.com/v1"
}

/// Writes each group of objects to a file of its own.
fn write(folder: &std::path::Path, groups: &[(String, Vec<Value>)]) -> Vec<String> {
    let paths = groups.iter().map(|(name, objects)| {
        let path = folder.join(format!("{name}.yaml"));
        // JSON is YAML.
        let documents: Vec<_> = objects.iter().map(Value::to_string).collect();
        fs::write(&path, documents.join("\n---\n")).unwrap();
        path.to_str().unwrap().to_owned()
    });
    paths.collect()
}

/// Validates objects of Kubernetes itself, of this version: whether all are valid, and what is said.
fn kubernetes(version: &str, groups: &[(String, Vec<Value>)]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), groups);
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    let (valid, output, errors) = run(
        "python/bin/python",
        // The script contains the path of its Python, and a checkout may be copied.
        &[&["-m", "kubernetes_validate", "--strict", "--kubernetes-version", version], files.as_slice()].concat(),
    );
    (valid, output + &errors)
}

/// Validates objects of the operator.
fn operator(objects: &[Value]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.json");
    fs::write(&file, json!(objects).to_string()).unwrap();
    let script = format!(
        "import('{}/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/index.js').then((types) => {{
            for (const object of JSON.parse(require('fs').readFileSync(process.argv[1])))
                new types[object.kind](object).validate();
        }}).catch((error) => {{ console.error(String(error)); process.exit(1); }});",
        tool("types/node_modules").display()
    );
    let (valid, output, errors) = run("node", &["-e", &script, file.to_str().unwrap()]);
    (valid, output + &errors)
}

#[test]
fn rendered_objects_fit_the_schemas() {
    let all = everything();
    let own = |objects: &[Value]| objects.iter().filter(|object| !is_of_operator(object)).cloned().collect::<Vec<_>>();
    let of_kubernetes: Vec<_> = all.iter().map(|(name, objects)| (name.clone(), own(objects))).collect();
    let chart = read(&format!("{CHART}/Chart.yaml"));
    let oldest = chart.split_once("kubeVersion: \">=").unwrap().1.split_once(".0-0\"").unwrap().0;
    for version in [oldest, NEWEST] {
        let (valid, said) = kubernetes(version, &of_kubernetes);
        // Also no warning of a kind without a schema.
        assert!(valid && !said.contains("WARN"), "{version}: {said}");
    }
    let of_operator: Vec<_> = all.into_iter().flat_map(|(_, objects)| objects).filter(is_of_operator).collect();
    for kind in ["ServiceMonitor", "PodMonitor", "PrometheusRule"] {
        assert!(of_operator.iter().any(|object| object["kind"] == kind), "no {kind}");
    }
    let (valid, said) = operator(&of_operator);
    assert!(valid, "{said}");
}

/// The validators above would find a mistake.
#[test]
fn schemas_refuse_mistakes() {
    let objects = template(&["--set=serviceMonitor.enabled=true"]);
    let change = |kind: &str, pointer: &str, value: Value| {
        let mut object = objects.iter().find(|object| object["kind"] == kind).unwrap().clone();
        *object.pointer_mut(pointer).unwrap() = value;
        object
    };
    for (pointer, value) in [("/spec/replicas", json!("x")), ("/spec/template/spec/containers/0", json!({ "nam": 1 }))]
    {
        let (valid, said) = kubernetes(NEWEST, &[("changed".to_owned(), vec![change("Deployment", pointer, value)])]);
        assert!(!valid, "{pointer}: {said}");
    }
    let (valid, said) = operator(&[change("ServiceMonitor", "/spec/endpoints", json!({ "port": 1 }))]);
    assert!(!valid, "{said}");
}

#[test]
fn packaged_chart_renders_as_the_folder_does() {
    let folder = tempfile::tempdir().unwrap();
    output("helm", &["package", CHART, "--destination", folder.path().to_str().unwrap()]);
    let package = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let packaged = output("helm", &["template", "clerk", package.to_str().unwrap(), "--namespace=identity"]);
    assert_eq!(crate::tools::objects(&packaged), template(&[]));
    // Helm keeps the chart and its values in one Secret of at most 1 MiB.
    assert!(fs::metadata(&package).unwrap().len() < 512 * 1024);
}
