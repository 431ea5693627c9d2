//! Keys of several processes: the Redis they share, the lease of the right to probe, and processes that never probe.

use std::fs;
use std::time::Duration;

use clerk_exporter::config::{Config, ProbeWhen};

use crate::{INSTANCE, NO_WARNINGS, env};

/// A configuration in a directory with the files that it may name.
fn read(yaml: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("redis"), "redis://:CANARYpassword@127.0.0.1:6379/0\n").unwrap();
    fs::write(directory.path().join("bad"), "redis://:CANARYpassword@").unwrap();
    let config = Config::parse(yaml, &directory.path().join("c.yml"), &env);
    config.map_err(|error| error.to_string().replace(&directory.path().display().to_string(), ""))
}

fn good(yaml: &str) -> Config {
    read(yaml).unwrap_or_else(|message| panic!("{message}\n{yaml}"))
}

fn leases(config: &Config) -> Vec<Option<u64>> {
    config.instances.iter().map(|instance| instance.probe.lease.map(|lease| lease.as_secs())).collect()
}

#[test]
fn redis_may_stand_at_the_top_or_in_the_cache() {
    assert_eq!(good(INSTANCE).redis, None);
    for yaml in [
        format!("redis_url_file: redis\n{INSTANCE}"),
        format!("redis_url_file: redis\n{INSTANCE}gateway:\n"),
        format!("{INSTANCE}gateway: {{ cache: {{ redis_url_file: redis }} }}\n"),
    ] {
        let config = good(&yaml);
        assert_eq!(config.warnings, NO_WARNINGS, "{yaml}");
        assert!(config.redis.as_ref().unwrap().url.file().unwrap().ends_with("redis"), "{yaml}");
        assert_eq!(config.files.len(), 1, "it is watched: {yaml}");
        let shown = config.masked_yaml();
        assert!(shown.contains("\nredis_url_file: \"") && !shown.contains("CANARY"), "{shown}");
    }
    let message = read(&format!("redis_url_file: redis\n{INSTANCE}gateway:\n  cache:\n    redis_url_file: redis\n"));
    assert_eq!(
        message.unwrap_err().trim(),
        "/c.yml:7:21: gateway.cache.redis_url_file: the process has one Redis, and `redis_url_file` names it already; \
         remove one of them"
    );
}

#[test]
fn unusable_redis_is_one_problem_without_its_password() {
    for (name, expected) in [("bad", "invalid Redis URL"), ("none", "cannot be read")] {
        let message = read(&format!("redis_url_file: {name}\nprobe: {{ lease: 15s }}\n{INSTANCE}")).unwrap_err();
        assert!(message.contains(": redis_url_file: ") && message.contains(expected), "{message}");
        assert!(!message.contains("CANARY") && message.trim().lines().count() == 1, "{message}");
    }
}

#[test]
fn each_instance_may_have_a_lease_of_its_own() {
    let config = good(
        "redis_url_file: redis\n\
         probe: { lease: 15s }\n\
         instances:\n\
         - { name: a, secret_key_env: A }\n\
         - { name: b, secret_key_env: B, probe: { lease: 1m } }\n\
         - { name: c, secret_key_env: C, probe: { lease: off } }\n",
    );
    assert_eq!(config.warnings, NO_WARNINGS);
    assert_eq!(leases(&config), [Some(15), Some(60), None]);
    assert!(config.masked_yaml().contains("lease: 15s"));
    assert_eq!(leases(&good(INSTANCE)), [None]);
    // As Helm and other tools write it.
    assert_eq!(leases(&good(&format!("probe: {{ lease: false }}\n{INSTANCE}"))), [None]);
}

#[test]
fn a_lease_needs_a_redis_and_a_sensible_length() {
    for (probe, expected) in [
        ("{ lease: 15s }", "1:17: probe.lease: a lease needs a Redis that all exporters share; write `redis_url_file`"),
        ("{ lease: 4s }", "1:17: probe.lease: too short"),
        ("{ lease: 6m }", "1:17: probe.lease: too long"),
        ("{ lease: 15 }", "1:17: probe.lease: "),
        ("{ lease: true }", "1:17: probe.lease: "),
        ("{ when: sometimes }", "neither idle, always nor never; write `idle`, `always` or `never`"),
    ] {
        let message = read(&format!("probe: {probe}\n{INSTANCE}")).unwrap_err();
        assert!(message.contains(expected), "{probe}: {message}");
    }
}

#[test]
fn process_that_never_probes_needs_another_source() {
    let message = read(&format!("probe: {{ when: never }}\n{INSTANCE}")).unwrap_err();
    assert!(message.contains("1:16: probe.when: nothing would observe the instance `a`; remove `never`"), "{message}");
    for other in ["gateway: {}\n", "telemetry: {}\n"] {
        let config = good(&format!("probe: {{ when: never }}\n{INSTANCE}{other}"));
        assert_eq!((config.instances[0].probe.when, config.warnings.len()), (ProbeWhen::Never, 0));
        assert!(config.masked_yaml().contains("when: never"));
    }
    // It spends nothing of a small limit.
    let yaml = format!("{INSTANCE}    probe: {{ when: never, interval: 1s }}\n    plan: free\ngateway: {{}}\n");
    let config = good(&yaml);
    assert_eq!(config.instances[0].budget_share(), Some(0.0));
    assert_eq!(config.instances[0].probe.interval(), Duration::from_secs(1));
    let config =
        good(&format!("redis_url_file: redis\nprobe: {{ when: never, lease: 15s }}\n{INSTANCE}gateway: {{}}\n"));
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(warning.contains("a lease has no effect with `when: never`"), "{warning}");
    assert_eq!(config.instances[0].probe.lease_in_use(), None, "it would keep others from probing");
}
