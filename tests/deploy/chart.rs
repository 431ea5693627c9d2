//! The Helm chart: what it renders.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::tools::{CHART, output, template, value_files};
use crate::{named, of_kind, parse, read};

/// Value files of a production set-up: two of each, Redis, TLS.
pub(crate) const PRODUCTION: &str = "--values=deploy/helm/clerk-exporter/ci/production-values.yaml";

pub(crate) const EXPORTER: &str = "clerk-clerk-exporter";
pub(crate) const GATEWAY: &str = "clerk-clerk-exporter-gateway";

#[test]
fn chart_passes_lint_with_every_value_file() {
    for (name, file) in value_files() {
        let said = output("helm", &["lint", "--strict", CHART, "--values", &file]);
        assert!(said.contains("0 chart(s) failed"), "{name}: {said}");
    }
}

#[test]
fn rendered_names_are_unique() {
    for (name, file) in value_files() {
        let mut seen = BTreeSet::new();
        for object in template(&["--values", &file]) {
            let key = format!("{} {} {}", object["apiVersion"], object["kind"], object["metadata"]["name"]);
            assert!(seen.insert(key.clone()), "{name}: {key} twice");
        }
    }
}

/// The pod of a Deployment.
pub(crate) fn pod<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    &named(objects, "Deployment", name)["spec"]["template"]["spec"]
}

/// The files that the pod of a Deployment reads.
pub(crate) fn files<'a>(objects: &'a [Value], deployment: &str) -> &'a Value {
    let volumes = pod(objects, deployment)["volumes"].as_array().unwrap();
    let name = volumes.iter().find_map(|volume| volume["configMap"]["name"].as_str()).unwrap();
    &named(objects, "ConfigMap", name)["data"]
}

/// The configuration file of a Deployment.
pub(crate) fn config(objects: &[Value], deployment: &str) -> Value {
    parse(files(objects, deployment)["clerk-exporter.yml"].as_str().unwrap())
}

fn argument<'a>(pod: &'a Value, flag: &str) -> &'a str {
    let arguments = pod["containers"][0]["args"].as_array().unwrap();
    let found = arguments.iter().filter_map(|argument| argument.as_str().unwrap().strip_prefix(flag)).next();
    found.and_then(|rest| rest.strip_prefix('=')).unwrap_or_else(|| panic!("no {flag}: {arguments:?}"))
}

#[test]
fn pods_are_hardened_in_every_value_file() {
    for (name, file) in value_files() {
        let objects = template(&["--values", &file]);
        for deployment in of_kind(&objects, "Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            assert_eq!(pod["enableServiceLinks"], false, "{name}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            let container = &pod["containers"][0]["securityContext"];
            assert_eq!(container["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(container["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(container["capabilities"]["drop"], json!(["ALL"]), "{name}");
        }
    }
}

/// Also where a release that is upgraded with `--reuse-values` has no such section.
#[test]
fn pods_are_hardened_without_the_section_in_the_values() {
    let objects = template(&["--set=exporter=null"]);
    let pod = pod(&objects, EXPORTER);
    assert_eq!(pod["securityContext"], self::pod(&template(&[]), EXPORTER)["securityContext"]);
    assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
}

#[test]
fn rollouts_and_drains_leave_time_for_requests() {
    let objects = template(&[PRODUCTION]);
    for name in [EXPORTER, GATEWAY] {
        let deployment = &named(&objects, "Deployment", name)["spec"];
        assert_eq!(deployment["replicas"], 2);
        assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
        let delay = argument(pod(&objects, name), "--web.shutdown-delay");
        let delay: u64 = delay.strip_suffix('s').unwrap().parse().unwrap();
        let grace = pod(&objects, name)["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(delay > 0 && grace > delay + 10, "{name}: {delay} {grace}");
        let budget = &named(&objects, "PodDisruptionBudget", name)["spec"];
        assert_eq!(budget["maxUnavailable"], 1);
        assert_eq!(budget["selector"], deployment["selector"]);
        let spread = pod(&objects, name)["topologySpreadConstraints"].as_array().unwrap();
        let keys: Vec<_> = spread.iter().map(|constraint| constraint["topologyKey"].as_str().unwrap()).collect();
        assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
        assert!(spread.iter().all(|constraint| constraint["labelSelector"] == deployment["selector"]));
    }
    assert_eq!(config(&objects, EXPORTER)["probe"], json!({ "lease": "15s" }));
}

#[test]
fn single_exporter_is_replaced_before_the_next_starts() {
    let objects = template(&[]);
    let deployment = &named(&objects, "Deployment", EXPORTER)["spec"];
    assert_eq!((&deployment["replicas"], &deployment["strategy"]["type"]), (&json!(1), &json!("Recreate")));
    assert!(of_kind(&objects, "PodDisruptionBudget").is_empty(), "it would hold up each drain");
    assert_eq!(config(&objects, EXPORTER)["probe"], Value::Null);
}

#[test]
fn gateway_never_probes_and_has_the_exporters_instances() {
    let objects = template(&[PRODUCTION, "--set-json=config.probe={\"when\": \"always\"}"]);
    let (exporter, gateway) = (config(&objects, EXPORTER), config(&objects, GATEWAY));
    assert_eq!(exporter["probe"], json!({ "when": "always", "lease": "15s" }));
    assert_eq!(gateway["probe"], json!({ "when": "never" }));
    // Users would be counted once by each replica.
    assert_eq!(exporter["users"], json!({ "schedule": "0 0 * * * *" }));
    assert_eq!(gateway["users"], Value::Null);
    let instances = |config: &Value| {
        let all = config["instances"].as_array().unwrap().iter();
        all.map(|instance| (instance["name"].clone(), instance["secret_key_file"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(instances(&exporter), instances(&gateway));
    assert_eq!(exporter["low_threshold"], gateway["low_threshold"]);
    assert_eq!(exporter["redis_url_file"], gateway["redis_url_file"]);
    assert!(exporter["gateway"].is_null());
}

/// Exactly the entries of Secrets that the configuration names, for each workload.
#[test]
fn pods_see_only_the_secrets_they_use() {
    let objects = template(&[PRODUCTION]);
    let entries = |name| {
        let volumes = pod(&objects, name)["volumes"].as_array().unwrap().iter();
        let sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
        let paths = sources.map(|source| source["secret"]["items"][0]["path"].as_str().unwrap().to_owned());
        paths.collect::<Vec<_>>()
    };
    let keys = ["clerk-keys/dev", "clerk-keys/prod", "clerk-keys/prod-billing", "clerk-redis/password"];
    assert_eq!(entries(EXPORTER), keys);
    let gateway = ["clerk-cache/key", "clerk-callers/web", "clerk-gateway-tls/tls.crt", "clerk-gateway-tls/tls.key"];
    let gateway = [gateway.as_slice(), &keys, &["clerk-webhooks/prod"]].concat();
    assert_eq!(entries(GATEWAY), gateway);
}

/// An alert belongs to (job, namespace, cluster, `clerk_instance`): one for exporter and gateways of a release.
#[test]
fn monitors_give_exporter_and_gateway_one_job() {
    let objects = template(&[PRODUCTION]);
    let service_monitor = &of_kind(&objects, "ServiceMonitor")[0]["spec"];
    let pod_monitor = &of_kind(&objects, "PodMonitor")[0]["spec"];
    let label = |monitor: &Value, labels: &Value| labels[monitor["jobLabel"].as_str().unwrap()].clone();
    let selects = |monitor: &Value, labels: &Value| {
        let wanted = monitor["selector"]["matchLabels"].as_object().unwrap();
        wanted.iter().all(|(name, value)| labels[name] == *value)
    };
    let services = of_kind(&objects, "Service").into_iter().map(|service| &service["metadata"]["labels"]);
    let selected: Vec<_> = services.filter(|labels| selects(service_monitor, labels)).collect();
    let pods = of_kind(&objects, "Deployment").into_iter();
    let pods = pods.map(|deployment| &deployment["spec"]["template"]["metadata"]["labels"]);
    let selected_pods: Vec<_> = pods.filter(|labels| selects(pod_monitor, labels)).collect();
    // Each target once.
    assert_eq!((selected.len(), selected_pods.len()), (1, 1));
    assert_eq!(selected[0]["app.kubernetes.io/component"], "exporter");
    assert_eq!(selected_pods[0]["app.kubernetes.io/component"], "gateway");
    let job = label(service_monitor, selected[0]);
    assert_eq!(label(pod_monitor, selected_pods[0]), job);
    // ClerkExporterDown goes by it.
    assert!(job.as_str().unwrap().contains("clerk"), "{job}");
    assert_eq!(service_monitor["endpoints"][0]["port"], "http-metrics");
    assert_eq!(pod_monitor["podMetricsEndpoints"][0]["port"], "http-metrics");
}

#[test]
fn chart_contains_the_rules_and_dashboards_unchanged() {
    let objects = template(&[PRODUCTION]);
    let rules = parse(&read("alerts/clerk.rules.yml"));
    assert_eq!(of_kind(&objects, "PrometheusRule")[0]["spec"]["groups"], rules["groups"]);
    for board in ["overview", "instance", "gateway"] {
        let map = named(&objects, "ConfigMap", &format!("clerk-clerk-exporter-dashboard-{board}"));
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        let file = format!("clerk-{board}.json");
        assert_eq!(map["data"][&file], read(&format!("dashboards/{file}")), "{board}");
    }
}

#[test]
fn ingress_has_the_webhook_path_only() {
    let objects = template(&[PRODUCTION, "--set=gateway.config.webhooks.path=/hooks/of-clerk"]);
    let rules = &named(&objects, "Ingress", GATEWAY)["spec"]["rules"];
    assert_eq!(rules.as_array().unwrap().len(), 1);
    let backend = json!({ "service": { "name": GATEWAY, "port": { "name": "gateway" } } });
    let path = json!({ "path": "/hooks/of-clerk", "pathType": "Exact", "backend": backend });
    assert_eq!(rules[0]["http"]["paths"], json!([path]));
}

/// Where DNS is: labels, port and addresses differ between distributions.
#[test]
fn network_policies_admit_the_chosen_dns_only() {
    let egress = |presets: &str| {
        let presets = format!("--set-json=networkPolicy.dns.presets={presets}");
        let objects = template(&["--set=networkPolicy.enabled=true", &presets]);
        let rules = named(&objects, "NetworkPolicy", EXPORTER)["spec"]["egress"].as_array().unwrap().clone();
        let dns = rules.into_iter().filter(|rule| rule["ports"][0]["protocol"] == "UDP");
        dns.map(|rule| (rule["to"].clone(), rule["ports"].clone())).collect::<Vec<_>>()
    };
    let pods = |labels: Value| json!([{ "namespaceSelector": {}, "podSelector": { "matchLabels": labels } }]);
    let ports = |port: u16| json!([{ "port": port, "protocol": "UDP" }, { "port": port, "protocol": "TCP" }]);
    assert_eq!(egress(r#"["kube-dns"]"#), [(pods(json!({ "k8s-app": "kube-dns" })), ports(53))]);
    assert_eq!(egress(r#"["coredns"]"#), [(pods(json!({ "app.kubernetes.io/name": "coredns" })), ports(53))]);
    let openshift = json!([{
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "openshift-dns" } },
        "podSelector": { "matchLabels": { "dns.operator.openshift.io/daemonset-dns": "default" } },
    }]);
    assert_eq!(egress(r#"["openshift"]"#), [(openshift, ports(5353))]);
    let local = json!([{ "ipBlock": { "cidr": "169.254.20.10/32" } }]);
    assert_eq!(egress(r#"["node-local"]"#), [(local, ports(53))]);
    assert_eq!(egress("[]"), []);
}

#[test]
fn network_policies_close_all_else() {
    let objects = template(&[PRODUCTION]);
    let policies = of_kind(&objects, "NetworkPolicy");
    assert_eq!(policies.len(), 2);
    for policy in policies {
        let name = policy["metadata"]["name"].as_str().unwrap();
        let deployment = named(&objects, "Deployment", name);
        assert_eq!(policy["spec"]["podSelector"], deployment["spec"]["selector"]);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        let ports = |direction: &str| {
            let rules = policy["spec"][direction].as_array().unwrap().iter();
            let ports = rules.flat_map(|rule| rule["ports"].as_array().unwrap()).map(|port| port["port"].clone());
            ports.collect::<Vec<_>>()
        };
        let ingress =
            if name == GATEWAY { vec![json!("http-metrics"), json!("gateway")] } else { vec![json!("http-metrics")] };
        assert_eq!(ports("ingress"), ingress);
        assert_eq!(ports("egress"), [53, 53, 53, 53, 443, 6379]);
    }
}
