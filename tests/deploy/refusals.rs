//! What the chart refuses, and that the message says what to do.

use crate::chart::PRODUCTION;
use crate::read;
use crate::tools::{CHART, refusal, run};

const KEY: &str = "sk_live_4bMbJyWZ2vnLx0aQCANARY";

#[test]
fn refusals_say_what_to_do() {
    let inline = format!(r#"--set-json=instances=[{{"name": "prod", "secret_key_file": "", "secret_key": "{KEY}"}}]"#);
    let hidden = format!("--set=exporter.podAnnotations.note={KEY}");
    let telemetry = "--set=config.telemetry.listen_address=:4318";
    let twice = r#"--set-json=instances=[{"name": "a", "secret_key_file": "/run/secrets/clerk/k/a"}, {"name": "a", "secret_key_file": "/run/secrets/clerk/k/b"}]"#;
    let object = format!(r#"--set-json=extraObjects=[{{"kind": "Secret", "stringData": {{"key": "{KEY}"}}}}]"#);
    let encoded = "c2tfbGl2ZV80Yk1iSnlXWjJ2bkx4MGFRQ0FOQVJZ";
    let encoded = format!(r#"--set-json=extraObjects=[{{"kind": "Secret", "data": {{"key": "{encoded}"}}}}]"#);
    let cases: &[(&[&str], &str)] = &[
        (&["--set-json=instances=[]"], "instances is empty: list the Clerk instances"),
        (&[r#"--set-json=instances=[{"name": "prod"}]"#], "secret_key_file"),
        (&[&inline], "/instances/0"),
        (&[&hidden], "put it into a Secret"),
        (&["--set=instances[0].secret_key_file=/etc/key"], "does not match pattern"),
        (&["--set=exporter.replicas=2"], "Set redis.url or redis.urlFile, or exporter.replicas=1"),
        (&["--set=gateway.enabled=true"], "set gateway.tls.secretName"),
        (
            &["--set=gateway.enabled=true,gateway.allowClearText=true"],
            "Set redis.url or redis.urlFile, or gateway.replicas=1",
        ),
        (&[PRODUCTION, "--set=gateway.allowClearText=true"], "both set: keep one"),
        (&[PRODUCTION, "--set=gateway.config.sole=true"], "gateway.config.sole says that there is one gateway"),
        (&[PRODUCTION, "--set=gateway.config.listen_address=:1"], "written by the chart"),
        (&[PRODUCTION, "--set=gateway.config.webhooks=null"], "set gateway.config.webhooks.signing_secret_files"),
        (&[PRODUCTION, "--set=gateway.ingress.host="], "set the host name"),
        (&[PRODUCTION, "--set-json=networkPolicy.ingressController=[]"], "or webhooks are blocked"),
        (&[r#"--set-json=commonLabels={"app.kubernetes.io/part-of": "x"}"#], "use another one"),
        (&["--set=config.instances=x"], "use the values of the same name at the top"),
        (&["--set=redis.url=redis://:hunter2@redis:6379"], "use redis.passwordFile"),
        (&[PRODUCTION, "--set=redis.urlFile=/run/secrets/clerk/redis/url"], "redis.url and redis.urlFile are both set"),
        (&["--set=networkPolicy.dns.presets={bind}"], "is none of kube-dns"),
        (&["--set=exporter.replica=1"], "additional properties 'replica' not allowed"),
        (&[&object], "put it into a Secret"),
        (&[&encoded], "put it into a Secret"),
        // A password, whatever is in it.
        (&["--set=redis.url=redis://app:hun/ter2@@redis:6379"], "use redis.passwordFile"),
        (&["--set=redis.url=redis://:hunter2?#@redis"], "use redis.passwordFile"),
        (&["--set=redis.url=unix:///run/redis?user=app&pass=hunter2"], "use redis.passwordFile"),
        (
            &[PRODUCTION, "--set=redis.passwordCommand={/opt/password}"],
            "redis.passwordFile and redis.passwordCommand are both set",
        ),
        (&["--set=redis.passwordFile=/run/secrets/clerk/redis/password"], "without a Redis"),
        (&["--set=config.redis_prefix=x"], "use redis.prefix"),
        (&["--set=redis.prefix={x}"], "redis"),
        (&[PRODUCTION, "--set=gateway.config.cache.redis_url_file=/x"], "use redis.urlFile"),
        (&[PRODUCTION, "--set=gateway.config.cache.redis_password_file=/x"], "use redis.passwordFile"),
        (&[PRODUCTION, "--set=gateway.config.cache.redis_password_command={x}"], "use redis.passwordCommand"),
        (&[PRODUCTION, "--set=gateway.config.cache.redis_prefix=x"], "use redis.prefix"),
        (&[PRODUCTION, "--set=gateway.config.cache=on"], "gateway.config.cache has to be a section"),
        (&[PRODUCTION, "--set=gateway.config.webhooks=on"], "gateway.config.webhooks has to be a section"),
        (&["--set=config.telemetry=true"], "config.telemetry has to be a section"),
        (&["--set-json=config.telemetry={}"], "set config.telemetry.web_config_file"),
        (&[telemetry], "set config.telemetry.web_config_file"),
        (&["--set=config.probe=15s"], "has to be a section"),
        (&["--set=config.probe.when=never"], "the exporter would report nothing"),
        (&["--set=config.probe.lease=15s"], "use exporter.lease"),
        (
            &[
                "--set=instances[0].name=a,instances[0].secret_key_file=/run/secrets/clerk/k/a,instances[0].probe.lease=off",
            ],
            "use exporter.lease",
        ),
        (&["--set=exporter.lease=4999ms"], "use 5s to 5m"),
        (&["--set=exporter.lease=5m1s"], "use 5s to 5m"),
        (&[twice], "the name \"a\" exists twice"),
        (&["--set=config.tls_config.ca_file=/run/secrets/clerk/ca.crt"], "is no path of an entry of a Secret"),
        (&["--set=config.tls_config.ca_file=/run/secrets/clerk/Ca/ca.crt"], "is no path of an entry of a Secret"),
        (&["--set=exporter.extraArgs={--x=/run/secrets/clerk/a/b/c}"], "is no path of an entry of a Secret"),
        (
            &[PRODUCTION, "--set=gateway.autoscaling.enabled=true,gateway.autoscaling.minReplicas=5"],
            "is above maxReplicas",
        ),
        (
            &["--set=gateway.enabled=true,gateway.allowClearText=true,gateway.autoscaling.enabled=true"],
            "several gateways and no Redis",
        ),
        (&[r#"--set-json=exporter.podLabels={"app.kubernetes.io/name": "x"}"#], "exporter.podLabels: the chart sets"),
        (
            &[r#"--set-json=gateway.service.labels={"app.kubernetes.io/part-of": "x"}"#],
            "gateway.service.labels: the chart",
        ),
        (&[r#"--set-json=dashboards.labels={"helm.sh/chart": "x"}"#], "dashboards.labels: the chart sets"),
        (&["--set=enabled=yes-please"], "/enabled"),
    ];
    for (arguments, expected) in cases {
        let said = refusal(arguments);
        assert!(said.contains(*expected), "{arguments:?}: {said}");
        assert!(!said.contains("CANARY") && !said.contains("hunter2"), "shows a secret: {said}");
    }
}

#[test]
fn traces_are_received_by_one_exporter_only() {
    let traces = "--set=config.telemetry.web_config_file=/run/secrets/clerk/clerk-traces/web.yml";
    let said = refusal(&[PRODUCTION, traces]);
    assert!(said.contains("would split the traces"), "{said}");
}

/// As with `helm upgrade --reuse-values` from a version that lacks the section.
#[test]
fn missing_sections_render_or_are_refused_with_a_message() {
    let values = read(&format!("{CHART}/values.yaml"));
    let names: Vec<_> = values.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    assert!(names.len() >= 16, "{names:?}");
    let mut refused = 0;
    for name in names.iter().map(|line| line.split(':').next().unwrap()) {
        let null = format!("--set={name}=null");
        for arguments in [vec![null.as_str()], vec![PRODUCTION, null.as_str()]] {
            let (rendered, _, said) = run("helm", &[&["template", "clerk", CHART], arguments.as_slice()].concat());
            let is_message = said.contains("image.repository is empty")
                || said.contains("instances is empty")
                || said.contains("there is no Redis");
            assert!(rendered || is_message, "{arguments:?}: {said}");
            refused += usize::from(!rendered);
        }
    }
    assert_eq!(refused, 5);
}
