//! The files in `deploy/` match each other, the rules and the program.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use clerk_exporter::config::Config;
use serde_json::Value;

use crate::{read, root};

fn parse(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// Runs a tool that may not be installed; `None` if it is missing.
#[expect(clippy::print_stderr, reason = "a skipped test reports it")]
fn optional(program: &str, arguments: &[&str], directory: &Path) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(directory).stdin(Stdio::null()).output();
    let output = output.inspect_err(|error| eprintln!("not tested: {program}: {error}")).ok()?;
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    Some((output.status.success(), String::from_utf8(said).unwrap()))
}

fn render(overlay: &str) -> Option<Vec<Value>> {
    let (rendered, text) =
        optional("kubectl", &["kustomize", &format!("deploy/kubernetes/overlays/{overlay}")], root())?;
    assert!(rendered, "{overlay}: {text}");
    Some(text.split("\n---\n").map(parse).collect())
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn overlays_render_a_hardened_deployment_for_prometheus_only() {
    for overlay in ["plain", "prometheus-operator"] {
        let Some(objects) = render(overlay) else { return };
        let deployment = of_kind(&objects, "Deployment")[0];
        assert_eq!(deployment["spec"]["replicas"], 1, "each replica spends quota");
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(container["securityContext"]["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/-/healthy");
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/-/ready");
        assert!(container["env"].is_null(), "keys are files");

        let name = &deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"];
        assert_eq!(name, "clerk-exporter");
        assert_eq!(&of_kind(&objects, "Service")[0]["spec"]["selector"]["app.kubernetes.io/name"], name);
        let policy = &of_kind(&objects, "NetworkPolicy")[0]["spec"];
        assert_eq!(&policy["podSelector"]["matchLabels"]["app.kubernetes.io/name"], name);
        let peer = &policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"];
        assert_eq!(*peer, serde_json::json!({ "app.kubernetes.io/name": "prometheus" }));

        // The volume's ConfigMap is the one with the configuration.
        let volume = &pod["volumes"][0]["configMap"]["name"];
        let config = of_kind(&objects, "ConfigMap").into_iter().find(|map| &map["metadata"]["name"] == volume).unwrap();
        assert_eq!(config["data"]["clerk-exporter.yml"], read("deploy/kubernetes/base/clerk-exporter.yml").as_str());
        let dashboards = of_kind(&objects, "ConfigMap").into_iter();
        let dashboards = dashboards.filter(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1");
        assert_eq!(dashboards.count(), 3);
    }
}

#[test]
fn overlays_contain_the_rules_unchanged() {
    let rules = read("alerts/clerk.rules.yml");
    let Some(objects) = render("plain") else { return };
    let mut maps = of_kind(&objects, "ConfigMap").into_iter();
    assert!(maps.any(|map| map["data"]["clerk.rules.yml"] == rules.as_str()));
    let Some(objects) = render("prometheus-operator") else { return };
    let rule = of_kind(&objects, "PrometheusRule")[0];
    assert_eq!(rule["spec"]["groups"], parse(&rules)["groups"]);
    let monitor = &of_kind(&objects, "ServiceMonitor")[0]["spec"];
    let service = of_kind(&objects, "Service")[0];
    assert_eq!(monitor["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    let label = &monitor["selector"]["matchLabels"]["app.kubernetes.io/name"];
    assert_eq!(&service["metadata"]["labels"]["app.kubernetes.io/name"], label);
}

#[test]
fn exporter_accepts_the_kubernetes_configuration() {
    let place = tempfile::tempdir().unwrap();
    let key = place.path().join("prod");
    fs::write(&key, "sk_live_4bMbJyWZ2vnLx0aQCANARY\n").unwrap();
    let text = read("deploy/kubernetes/base/clerk-exporter.yml");
    let text = text.replace("/run/secrets/clerk/prod", key.to_str().unwrap());
    let config = Config::parse(&text, Path::new("clerk-exporter.yml"), &|_| None).unwrap();
    assert_eq!(config.instances.len(), 1);
    assert!(text.contains(key.to_str().unwrap()));
}

#[test]
fn compose_mounts_exist() {
    let compose = parse(&read("deploy/compose/compose.yml"));
    let directory = root().join("deploy/compose");
    let mut mounts = 0;
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(directory.join(source).exists(), "{name}: {source}");
                mounts += 1;
            } else {
                assert!(compose["volumes"].as_object().unwrap().contains_key(source), "{name}: {source}");
            }
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: reachable from other hosts");
        }
    }
    assert_eq!(mounts, 6);
    for path in ["datasources/prometheus.yaml", "dashboards/clerk.yaml"] {
        assert_eq!(parse(&read(&format!("deploy/compose/grafana/provisioning/{path}")))["apiVersion"], 1);
    }
}

#[test]
fn systemd_units_are_valid_and_hardened() {
    let place = tempfile::tempdir().unwrap();
    let unit = read("deploy/systemd/clerk-exporter.service");
    let unit = unit.replace("/usr/bin/clerk-exporter", env!("CARGO_BIN_EXE_clerk-exporter"));
    fs::write(place.path().join("clerk-exporter.service"), unit).unwrap();
    fs::write(place.path().join("clerk-exporter.socket"), read("deploy/systemd/clerk-exporter.socket")).unwrap();
    let units = ["verify", "--man=no", "./clerk-exporter.service", "./clerk-exporter.socket"];
    let Some((valid, text)) = optional("systemd-analyze", &units, place.path()) else { return };
    assert!(valid && !text.contains("clerk-exporter"), "{text}");
    // Exposure times ten, from 0 to 100. A plain service has 96.
    let security = ["security", "--offline=yes", "--threshold=20", "./clerk-exporter.service"];
    let Some((safe, text)) = optional("systemd-analyze", &security, place.path()) else { return };
    assert!(safe, "{text}");
}
