//! What single values of the chart change.

use serde_json::{Value, json};

use crate::chart::{EXPORTER, GATEWAY, PRODUCTION, config, files, pod};
use crate::tools::{CHART, objects, output, template};
use crate::{named, of_kind};

/// The name of the ConfigMap that a pod reads.
fn config_map(objects: &[Value], deployment: &str) -> String {
    let volumes = pod(objects, deployment)["volumes"].as_array().unwrap();
    volumes.iter().find_map(|volume| volume["configMap"]["name"].as_str()).unwrap().to_owned()
}

/// So a failed upgrade does not change the files of pods that still run, and each change starts new ones.
#[test]
fn each_configuration_has_a_name_of_its_own() {
    let before = template(&[PRODUCTION]);
    let after = template(&[PRODUCTION, "--set=config.low_threshold=0.2"]);
    let other = template(&[PRODUCTION, "--set=log.level=debug"]);
    for deployment in [EXPORTER, GATEWAY] {
        let name = config_map(&before, deployment);
        assert!(name.starts_with(&format!("{deployment}-")), "{name}");
        assert_ne!(name, config_map(&after, deployment));
        assert_eq!(name, config_map(&other, deployment), "the files are the same");
    }
}

#[test]
fn strategy_replaces_the_default_wholly() {
    let strategy = |objects: &[Value]| named(objects, "Deployment", GATEWAY)["spec"]["strategy"].clone();
    let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    assert_eq!(strategy(&template(&[PRODUCTION])), rolling);
    let recreate = template(&[PRODUCTION, "--set=gateway.strategy.type=Recreate"]);
    assert_eq!(strategy(&recreate), json!({ "type": "Recreate" }));
}

/// OpenShift assigns user ids: null removes them, and nothing else.
#[test]
fn null_removes_user_ids() {
    let objects = template(&["--set-json=exporter.podSecurityContext={\"runAsUser\": null, \"fsGroup\": null}"]);
    let security = &pod(&objects, EXPORTER)["securityContext"];
    assert!(security.get("runAsUser").is_none() && security.get("fsGroup").is_none(), "{security}");
    assert_eq!((&security["runAsNonRoot"], &security["runAsGroup"]), (&json!(true), &json!(65532)));
}

#[test]
fn null_removes_keys_at_any_depth() {
    let objects = template(&[
        "--set-json=config={\"probe\": {\"interval\": \"30s\", \"timeout\": null}, \"users\": null}",
        r#"--set-json=instances=[{"name": "a", "secret_key_file": "/run/secrets/clerk/k/a", "limit": {"window": null, "requests": 5}}]"#,
    ]);
    let config = config(&objects, EXPORTER);
    assert_eq!((&config["probe"], config.get("users")), (&json!({ "interval": "30s" }), None));
    assert_eq!(config["instances"][0]["limit"], json!({ "requests": 5 }));
}

#[test]
fn traces_are_received_on_the_published_port() {
    let objects = template(&["--set=config.telemetry.web_config_file=/run/secrets/clerk/clerk-traces/web.yml"]);
    assert_eq!(config(&objects, EXPORTER)["telemetry"]["listen_address"], ":4318");
    assert_eq!(named(&objects, "Service", EXPORTER)["spec"]["ports"][1]["port"], 4318);
}

#[test]
fn network_policies_admit_the_ports_of_redis() {
    let ports = |redis: &str, given: &str| {
        let given = format!("--set-json=networkPolicy.redis.ports={given}");
        let objects = template(&["--set=networkPolicy.enabled=true", &format!("--set-json=redis={redis}"), &given]);
        let rules = named(&objects, "NetworkPolicy", EXPORTER)["spec"]["egress"].as_array().unwrap().clone();
        let ports = rules.iter().flat_map(|rule| rule["ports"].as_array().unwrap().clone());
        let ports = ports.map(|port| port["port"].as_u64().unwrap()).filter(|port| !matches!(port, 53 | 443));
        ports.collect::<Vec<_>>()
    };
    let none: [u64; 0] = [];
    for (redis, given, expected) in [
        ("{}", "[6379]", none.as_slice()),
        (r#"{"url": "redis://redis"}"#, "[]", &[6379]),
        (r#"{"url": "rediss://app@redis.data:6390/2"}"#, "[]", &[6390]),
        (r#"{"url": "redis://[fd00::1]"}"#, "[]", &[6379]),
        (r#"{"url": "redis+cluster://a:7000,b:7001"}"#, "[7002]", &[7002, 7000, 7001]),
        (r#"{"url": "redis+sentinel://a,b:26380/main?sentinel_username=x"}"#, "[]", &[6379, 26379, 26380]),
        (r#"{"url": "rediss+sentinel://a,b/main"}"#, "[6380]", &[6380, 26379]),
        (r#"{"url": "unix:///run/redis.sock"}"#, "[]", &[]),
        (r#"{"urlFile": "/run/secrets/clerk/redis/url"}"#, "[]", &[6379]),
        (r#"{"urlFile": "/run/secrets/clerk/redis/url"}"#, "[26379, 6380]", &[26379, 6380]),
    ] {
        assert_eq!(ports(redis, given), expected, "{redis} {given}");
    }
}

/// Instances of one name in two releases on one Redis are two, unless the values say that they are one.
#[test]
fn releases_share_nothing_in_redis_by_default() {
    let prefixes = |arguments: &[&str]| {
        let objects = template(&[&[PRODUCTION], arguments].concat());
        [EXPORTER, GATEWAY].map(|name| config(&objects, name)["redis_prefix"].clone())
    };
    assert_eq!(prefixes(&[]), ["clerk-exporter:identity/clerk:", "clerk-exporter:identity/clerk:"]);
    assert_eq!(prefixes(&["--set=redis.prefix=clerk-exporter:eu:"]), ["clerk-exporter:eu:", "clerk-exporter:eu:"]);
    assert_eq!(prefixes(&["--set=redis.prefix="]), [Value::Null, Value::Null]);
    assert_eq!(config(&template(&[]), EXPORTER).get("redis_prefix"), None, "it needs a Redis");
    let long =
        output("helm", &["template", &"c".repeat(53), CHART, &format!("--namespace={}", "n".repeat(63)), PRODUCTION]);
    let long = objects(&long);
    let deployment = of_kind(&long, "Deployment")[0]["metadata"]["name"].as_str().unwrap();
    let prefix = config(&long, deployment)["redis_prefix"].as_str().unwrap().to_owned();
    assert!(prefix.starts_with("clerk-exporter:") && prefix.len() <= 128, "{prefix}");
}

#[test]
fn disruption_budgets_keep_what_is_given() {
    let allowed = |value: &str| {
        let value = format!("--set-json=gateway.podDisruptionBudget.maxUnavailable={value}");
        let objects = template(&[PRODUCTION, &value]);
        named(&objects, "PodDisruptionBudget", GATEWAY)["spec"]["maxUnavailable"].clone()
    };
    assert_eq!(["0", "2", "\"25%\"", "null"].map(allowed), [json!(0), json!(2), json!("25%"), json!(1)]);
}

#[test]
fn labels_exist_once_and_the_nearest_counts() {
    let arguments = [
        "template",
        "clerk",
        CHART,
        "--set=commonLabels.team=a,exporter.podLabels.team=b,exporter.service.labels.team=c",
        "--set=commonAnnotations.note=a,exporter.podAnnotations.note=b",
    ];
    let text = output("helm", &arguments);
    // The parser refuses duplicate keys.
    let objects = objects(&text);
    let template = &named(&objects, "Deployment", EXPORTER)["spec"]["template"]["metadata"];
    assert_eq!(named(&objects, "Deployment", EXPORTER)["metadata"]["labels"]["team"], "a");
    assert_eq!((&template["labels"]["team"], &template["annotations"]["note"]), (&json!("b"), &json!("b")));
    assert_eq!(named(&objects, "Service", EXPORTER)["metadata"]["labels"]["team"], "c");
}

/// By which `ClerkExporterDown` knows a job whose exporter never came up.
#[test]
fn scrape_jobs_contain_clerk() {
    for (name, job) in [("limits", "limits-clerk"), ("my-clerk", "my-clerk")] {
        let objects = template(&[&format!("--set=fullnameOverride={name}"), "--set=serviceMonitor.enabled=true"]);
        let monitor = of_kind(&objects, "ServiceMonitor")[0];
        let label = monitor["spec"]["jobLabel"].as_str().unwrap();
        assert_eq!(named(&objects, "Service", name)["metadata"]["labels"][label], job);
    }
}

#[test]
fn names_of_services_have_no_dots() {
    let text = output("helm", &["template", "clerk.eu", CHART]);
    let objects = objects(&text);
    named(&objects, "Service", "clerk-eu-clerk-exporter");
}

#[test]
fn probes_of_another_kind_replace_the_path() {
    for kind in ["exec", "grpc", "tcpSocket"] {
        let probe = format!("--set-json=exporter.livenessProbe={{\"{kind}\": {{\"port\": 1}}}}");
        let objects = template(&[&probe]);
        let probe = &pod(&objects, EXPORTER)["containers"][0]["livenessProbe"];
        assert!(probe.get("httpGet").is_none() && probe[kind].is_object(), "{probe}");
    }
}

/// As a part of another chart, whose condition is a value of this one.
#[test]
fn values_of_parent_charts_are_accepted() {
    let objects = template(&["--set=enabled=true,global.registry=example.com"]);
    assert_eq!(files(&objects, EXPORTER), files(&template(&[]), EXPORTER));
}
