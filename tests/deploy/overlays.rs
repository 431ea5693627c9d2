//! The kustomize overlays.

use serde_json::{Value, json};

use crate::tools::{OVERLAYS, output, overlay};
use crate::{named, of_kind, parse, read};

fn config(objects: &[Value], deployment: &str, file: &str) -> Value {
    let volumes = &named(objects, "Deployment", deployment)["spec"]["template"]["spec"]["volumes"];
    let name = volumes.as_array().unwrap().iter().find_map(|volume| volume["configMap"]["name"].as_str()).unwrap();
    named(objects, "ConfigMap", name)["data"][file].clone()
}

#[test]
fn overlays_render_hardened_deployments() {
    for name in OVERLAYS {
        let objects = overlay(name);
        let exporter = named(&objects, "Deployment", "clerk-exporter");
        assert_eq!(exporter["spec"]["replicas"], 1, "each replica spends quota");
        for deployment in of_kind(&objects, "Deployment") {
            let template = &deployment["spec"]["template"];
            let pod = &template["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false);
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            let container = &pod["containers"][0];
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
            assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
            assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/-/healthy");
            assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/-/ready");
            assert!(container["env"].is_null(), "keys are files");

            let labels = json!({ "app.kubernetes.io/name": template["metadata"]["labels"]["app.kubernetes.io/name"] });
            assert_eq!(deployment["spec"]["selector"]["matchLabels"], labels);
            let workload = deployment["metadata"]["name"].as_str().unwrap();
            assert_eq!(named(&objects, "Service", workload)["spec"]["selector"], labels);
            let policy = &named(&objects, "NetworkPolicy", workload)["spec"];
            assert_eq!(policy["podSelector"]["matchLabels"], labels);
            let peer = &policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"];
            assert_eq!(*peer, json!({ "app.kubernetes.io/name": "prometheus" }));
        }
        let dashboards = of_kind(&objects, "ConfigMap").into_iter();
        let dashboards = dashboards.filter(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1");
        assert_eq!(dashboards.count(), 3);
    }
}

#[test]
fn overlays_contain_the_rules_unchanged() {
    let rules = read("alerts/clerk.rules.yml");
    let objects = overlay("plain");
    let mut maps = of_kind(&objects, "ConfigMap").into_iter();
    assert!(maps.any(|map| map["data"]["clerk.rules.yml"] == rules.as_str()));
    let objects = overlay("prometheus-operator");
    let rule = of_kind(&objects, "PrometheusRule")[0];
    assert_eq!(rule["spec"]["groups"], parse(&rules)["groups"]);
    let monitor = &of_kind(&objects, "ServiceMonitor")[0]["spec"];
    let service = of_kind(&objects, "Service")[0];
    assert_eq!(monitor["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    let label = &monitor["selector"]["matchLabels"]["app.kubernetes.io/name"];
    assert_eq!(&service["metadata"]["labels"]["app.kubernetes.io/name"], label);
}

#[test]
fn gateway_overlay_gives_exporter_and_gateway_one_job() {
    let objects = overlay("gateway");
    let monitor = &of_kind(&objects, "ServiceMonitor")[0]["spec"];
    let pods = &of_kind(&objects, "PodMonitor")[0]["spec"];
    let exporter = &named(&objects, "Service", "clerk-exporter")["metadata"]["labels"];
    let gateway = &named(&objects, "Deployment", "clerk-gateway")["spec"]["template"]["metadata"]["labels"];
    let job = &exporter[monitor["jobLabel"].as_str().unwrap()];
    assert_eq!((job, job), (&json!("clerk-exporter"), &gateway[pods["jobLabel"].as_str().unwrap()]));
    // And each target once.
    let selected = &monitor["selector"]["matchLabels"]["app.kubernetes.io/name"];
    let service = &named(&objects, "Service", "clerk-gateway")["metadata"]["labels"]["app.kubernetes.io/name"];
    assert_ne!(selected, service);
    assert_eq!(pods["selector"]["matchLabels"]["app.kubernetes.io/name"], *service);
}

#[test]
fn gateway_pods_leave_time_for_requests() {
    let objects = overlay("gateway");
    let deployment = &named(&objects, "Deployment", "clerk-gateway")["spec"];
    let pod = &deployment["template"]["spec"];
    assert!(pod["containers"][0]["args"].as_array().unwrap().contains(&json!("--web.shutdown-delay=15s")));
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > 15 + 10);
    assert_eq!(
        (&deployment["replicas"], &deployment["strategy"]["rollingUpdate"]["maxUnavailable"]),
        (&json!(2), &json!(0))
    );
    let budget = &named(&objects, "PodDisruptionBudget", "clerk-gateway")["spec"];
    assert_eq!(budget["selector"], deployment["selector"]);
    let spread = pod["topologySpreadConstraints"].as_array().unwrap();
    assert!(spread.len() == 2 && spread.iter().all(|constraint| constraint["labelSelector"] == deployment["selector"]));
}

/// In the shipped files, and in the example of an overlay.
#[test]
fn exporter_and_gateway_have_the_same_instances() {
    for name in ["gateway", "example"] {
        let objects = overlay(name);
        let read = |deployment: &str, file: &str| {
            let config = parse(config(&objects, deployment, file).as_str().unwrap());
            let instances = config["instances"].as_array().unwrap().clone();
            instances.into_iter().map(|it| (it["name"].clone(), it["secret_key_file"].clone())).collect::<Vec<_>>()
        };
        let exporter = read("clerk-exporter", "clerk-exporter.yml");
        assert_eq!(exporter, read("clerk-gateway", "clerk-gateway.yml"), "{name}");
        assert_eq!(exporter.len(), if name == "example" { 2 } else { 1 });
    }
}

#[test]
fn example_changes_what_it_says() {
    let objects = overlay("example");
    assert!(objects.iter().all(|object| object["metadata"]["namespace"] == "clerk"));
    for deployment in of_kind(&objects, "Deployment") {
        let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(image, &format!("registry.example.com/platform/clerk-exporter:{version}"));
    }
    assert_eq!(named(&objects, "Deployment", "clerk-gateway")["spec"]["replicas"], 3);
    let own = read("deploy/kubernetes/overlays/example/clerk-gateway.yml");
    assert_eq!(config(&objects, "clerk-gateway", "clerk-gateway.yml"), own);
    // Kept from the gateway's own files.
    let web = read("deploy/kubernetes/gateway/gateway-web.yml");
    assert_eq!(config(&objects, "clerk-gateway", "gateway-web.yml"), web);
    let egress = &named(&objects, "NetworkPolicy", "clerk-gateway")["spec"]["egress"];
    let ports = egress.as_array().unwrap().iter().flat_map(|rule| rule["ports"].as_array().unwrap());
    assert_eq!(ports.map(|port| port["port"].as_u64().unwrap()).collect::<Vec<_>>(), [53, 53, 443, 6380]);
}

/// Copied elsewhere, an overlay changes one line: the path of what it is based on.
#[test]
fn example_works_in_a_folder_of_its_own() {
    let folder = tempfile::tempdir_in(crate::root().join("target")).unwrap();
    for file in ["kustomization.yaml", "clerk-exporter.yml", "clerk-gateway.yml"] {
        let text = read(&format!("deploy/kubernetes/overlays/example/{file}"));
        let text = text.replace("  - ../gateway\n", "  - ../../deploy/kubernetes/overlays/gateway\n");
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let rendered = output("kubectl", &["kustomize", folder.path().to_str().unwrap()]);
    assert_eq!(crate::tools::objects(&rendered), overlay("example"));
}

/// Each entry of a Secret that the example's files name is created by the commands beside it.
#[test]
fn page_creates_the_secrets_of_the_example() {
    let page = read("deploy/kubernetes/README.md");
    let (_, own) = page.split_once("## An overlay of your own").unwrap();
    let mut found = 0;
    for file in ["clerk-exporter.yml", "clerk-gateway.yml"] {
        let text = read(&format!("deploy/kubernetes/overlays/example/{file}"));
        for path in text.split("/run/secrets/").skip(1) {
            let path = path.split(|c: char| c.is_whitespace() || c == ',').next().unwrap();
            let (_, entry) = path.split_once('/').unwrap();
            assert!(own.contains(&format!(" --from-file={entry}=")), "{path}");
            found += 1;
        }
    }
    assert_eq!(found, 7);
    for deployment in of_kind(&overlay("example"), "Deployment") {
        let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        for name in volumes.iter().filter_map(|volume| volume["secret"]["secretName"].as_str()) {
            assert!(own.contains(&format!(" {name} ")), "{name}");
        }
    }
    assert!(own.contains("kubectl create namespace clerk\n"));
}
