//! The section `telemetry`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use clerk_exporter::config::{Config, TelemetryConfig};

use crate::{INSTANCE, NO_WARNINGS, env, parse};

const TWO: &str = "instances:\n  - { name: prod, secret_key_env: LIVE }\n  - { name: dev, secret_key_env: A }\n";

fn read(instances: &str, lines: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| fs::write(directory.path().join(name), content).unwrap();
    // The password is `test`.
    let users = "basic_auth_users: { a: $2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay }\n";
    file("users.yml", users);
    let tls = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n";
    file("tls.yml", tls);
    file(
        "clients.yml",
        &format!("{tls}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: server.pem\n"),
    );
    file("any.yml", &format!("{tls}  client_auth_type: RequireAnyClientCert\n"));
    for name in ["server.pem", "server.key"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/prometheus-web/tests/data/tls").join(name);
        fs::copy(from, directory.path().join(name)).unwrap();
    }
    let yaml = format!("{instances}telemetry:\n  {}\n", lines.trim_end().replace('\n', "\n  "));
    let config = Config::parse(&yaml, &directory.path().join("c.yml"), &env);
    config.map_err(|error| error.to_string().replace(&directory.path().display().to_string(), ""))
}

fn good(instances: &str, lines: &str) -> TelemetryConfig {
    let config = read(instances, lines).unwrap_or_else(|message| panic!("{message}\n{lines}"));
    assert_eq!(config.warnings, NO_WARNINGS);
    config.telemetry.unwrap()
}

fn texts(of: &[std::sync::Arc<str>]) -> Vec<&str> {
    of.iter().map(|text| &**text).collect()
}

#[test]
fn telemetry_is_off_by_default() {
    assert_eq!(crate::good(INSTANCE).telemetry, None);
}

#[test]
fn an_empty_section_has_the_documented_defaults() {
    let telemetry = parse(&format!("{INSTANCE}telemetry:\n")).unwrap().telemetry.unwrap();
    assert_eq!(telemetry.listen.to_string(), "127.0.0.1:4318");
    assert_eq!(telemetry.web_config_file, None);
    assert!(telemetry.hosts.is_empty() && telemetry.complete.is_empty() && telemetry.instances.is_empty());
    assert_eq!(texts(&telemetry.instance_attributes), ["deployment.environment.name", "deployment.environment"]);
    assert_eq!(texts(&telemetry.caller_attributes), ["service.name"]);
    assert_eq!((telemetry.lateness, telemetry.sampling_ratio), (Duration::from_secs(15), 1.0));
}

#[test]
fn every_key_is_read() {
    let telemetry = good(
        TWO,
        "listen_address: 127.0.0.1:0\nhosts: [API.clerk.com, 'clerk.test:8443']\ncomplete: [prod]\n\
         instance_attribute: k8s.namespace.name\ninstances: { production: prod, preview: dev }\n\
         caller_attribute: [service.name, service.version]\nlateness: 30s\nsampling_ratio: 0.25\n",
    );
    assert_eq!(texts(&telemetry.hosts), ["api.clerk.com", "clerk.test:8443"]);
    assert_eq!(texts(&telemetry.complete), ["prod"]);
    assert_eq!(texts(&telemetry.instance_attributes), ["k8s.namespace.name"]);
    let instances: Vec<_> = telemetry.instances.iter().map(|(value, name)| (&**value, &**name)).collect();
    assert_eq!(instances, [("preview", "dev"), ("production", "prod")]);
    assert_eq!(texts(&telemetry.caller_attributes), ["service.name", "service.version"]);
    assert_eq!((telemetry.lateness, telemetry.sampling_ratio), (Duration::from_secs(30), 0.25));
}

#[test]
fn addresses_that_others_reach_need_authentication() {
    for lines in ["web_config_file: users.yml", "web_config_file: clients.yml"] {
        good(INSTANCE, &format!("listen_address: 0.0.0.0:4318\n{lines}"));
    }
    for lines in ["lateness: 15s", "web_config_file: tls.yml", "web_config_file: any.yml"] {
        let message = read(INSTANCE, &format!("listen_address: 0.0.0.0:4318\n{lines}")).unwrap_err();
        assert!(message.contains("c.yml:5:19") && message.contains("passwords or client certificates"), "{message}");
    }
    for address in ["127.0.0.1:4318", "'[::1]:4318'", "unix:/run/telemetry.sock"] {
        good(INSTANCE, &format!("listen_address: {address}"));
    }
}

#[test]
fn instances_with_the_same_host_need_an_attribute_value() {
    let message = read(TWO, "lateness: 15s").unwrap_err();
    assert!(message.contains("telemetry.instances: several instances have the same host"), "{message}");
    let other = "instances:\n  - { name: prod, secret_key_env: LIVE }\n  - { name: dev, secret_key_env: A, api_url: 'https://clerk.test' }\n";
    good(other, "lateness: 15s");
    assert!(read(other, "hosts: [clerk.test]").is_err(), "one host for both");
}

#[test]
fn mistakes_are_reported_with_a_remedy() {
    for (lines, expected) in [
        ("listen_address: 4318", "a number instead of text"),
        ("listen_address: here", "listen_address"),
        ("hosts: api.clerk.com", "text instead of a list"),
        ("hosts: ['https://api.clerk.com']", "not a host; write a host"),
        ("hosts: ['a@b']", "not a host"),
        ("hosts: [sk_live_CANARY]", "looks like a key"),
        ("complete: [prod]", "no instance of this name is configured"),
        ("instances: [prod]", "not a section"),
        ("instances: { production: prod }", "no instance of this name is configured"),
        ("instance_attribute: 'a b'", "not an attribute's name"),
        ("caller_attribute: ''", "not an attribute's name"),
        ("caller_attribute: [sk_live_CANARY]", "not an attribute's name"),
        ("lateness: 15", "write `15s`"),
        ("lateness: 1h", "2m"),
        ("sampling_ratio: 0", "not above 0 and at most 1"),
        ("sampling_ratio: 10", "not above 0 and at most 1"),
        ("sampling_ratio: half", "text instead of a number"),
        ("web_config_file: none.yml", "web_config_file"),
        ("sample_ratio: 1", "write `sampling_ratio`"),
    ] {
        let message = read(INSTANCE, lines).expect_err(lines);
        assert!(message.contains(expected) && message.contains("c.yml:5:"), "{lines}: {message}");
        assert!(!message.contains("CANARY"), "{message}");
    }
}

#[test]
fn masked_text_can_be_read_again() {
    let lines = "hosts: [api.clerk.com]\ncomplete: [dev]\ninstances: { production: prod, '1': dev }\n";
    let config = read(TWO, lines).unwrap();
    let again = parse(&config.masked_yaml()).unwrap();
    assert_eq!(again.telemetry, config.telemetry, "{}", config.masked_yaml());
}
