//! The files that docs/deploy.md shows work as written.

use std::fs;
use std::process::Command;

use crate::tools::{objects, output};
use crate::{of_kind, read};

/// The YAML blocks of docs/deploy.md with this first line, without the indentation of a list.
pub(crate) fn blocks(title: &str) -> Vec<String> {
    let page = read("docs/deploy.md");
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let blocks = blocks.map(|block| {
        let indent = block.len() - block.trim_start().len();
        let lines = block.lines().map(|line| line.get(indent..).unwrap_or_default());
        lines.map(|line| format!("{line}\n")).collect::<String>()
    });
    blocks.filter(|block| block.starts_with(&format!("# {title}\n"))).collect()
}

#[test]
fn documented_values_render() {
    let blocks = blocks("values.yaml");
    assert_eq!(blocks.len(), 2);
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let path = folder.path().join(format!("{index}.yaml"));
        fs::write(&path, block).unwrap();
        files.push(format!("--values={}", path.display()));
    }
    let render = |files: &[String]| {
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        objects(&output(
            "helm",
            &[&["template", "clerk-exporter", crate::tools::CHART, "--namespace=clerk"], files.as_slice()].concat(),
        ))
    };
    let plain = render(&files[..1]);
    assert_eq!(of_kind(&plain, "Deployment").len(), 2);
    // The second goes on top of the first.
    let secured = render(&files);
    let endpoint = &of_kind(&secured, "ServiceMonitor")[0]["spec"]["endpoints"][0];
    assert_eq!(endpoint["scheme"], "https");
    assert_eq!(endpoint["tlsConfig"]["serverName"], "clerk-exporter.clerk.svc");
    let authority = &endpoint["tlsConfig"]["ca"]["secret"];
    let (secret, entry) = (authority["name"].as_str().unwrap(), authority["key"].as_str().unwrap());
    let page = read("docs/deploy.md");
    let mut created = page.lines().filter(|line| line.contains(&format!("create secret generic {secret} ")));
    assert!(created.any(|line| line.contains(&format!("--from-file={entry}"))), "{secret} {entry}");
    assert_eq!(endpoint["basicAuth"]["username"]["name"], "clerk-metrics-scrape");
    assert_eq!(
        of_kind(&secured, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0]["tlsConfig"],
        endpoint["tlsConfig"]
    );
    let probe = &of_kind(&secured, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["readinessProbe"];
    assert_eq!(probe["httpGet"]["scheme"], "HTTPS");
}

#[test]
fn documented_scrape_configuration_is_valid() {
    let blocks = blocks("prometheus.yml");
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    for file in ["ca.crt", "password"] {
        fs::write(folder.path().join(file), read("crates/prometheus-web/tests/data/tls/ca.pem")).unwrap();
    }
    let config = folder.path().join("prometheus.yml");
    // Debian's Prometheus cannot discover targets in Kubernetes: the rest is checked with a target in place of that.
    let text = blocks[0].replace("/etc/prometheus/clerk", place);
    let (start, rest) = text.split_once("    kubernetes_sd_configs:\n").unwrap();
    let (_, relabel) = rest.split_once("    relabel_configs:\n").unwrap();
    let target = "    static_configs: [{ targets: [localhost:10429] }]\n    relabel_configs:\n";
    fs::write(&config, [start, target, relabel].concat()).unwrap();
    let checked = Command::new("promtool").args(["check", "config"]).arg(&config).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
