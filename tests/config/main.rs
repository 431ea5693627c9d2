//! The configuration from a user's view: files in, checked values or messages out.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests are outside of test functions")]

mod documents;
mod gateway;
mod hostile;
mod metered;
mod mistakes;
mod redis;
mod several;
mod telemetry;
mod warnings;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clerk_client::secret::SecretSource;
use clerk_exporter::config::{Config, LimitSetting, Plan, ProbeWhen, ScheduleConfig, UsersConfig};
use clerk_quota::Environment;

/// Every variable is set, each to a different key.
fn env(name: &str) -> Option<OsString> {
    match name {
        "UNSET" => None,
        "EMPTY" => Some(OsString::new()),
        "LIVE" => Some("sk_live_CANARY0live".into()),
        name => Some(format!("sk_test_CANARY0{name}").into()),
    }
}

fn parse(yaml: &str) -> Result<Config, String> {
    Config::parse(yaml, Path::new("c.yml"), &env).map_err(|error| error.to_string())
}

fn good(yaml: &str) -> Config {
    parse(yaml).unwrap_or_else(|message| panic!("{message}\n{yaml}"))
}

const NO_WARNINGS: [&str; 0] = [];

/// A valid instance, to append other lines to.
const INSTANCE: &str = "instances:\n  - name: a\n    secret_key_env: A\n";

fn with_instance_lines(lines: &str) -> String {
    format!("{INSTANCE}    {}\n", lines.trim_end().replace('\n', "\n    "))
}

#[test]
fn the_smallest_file_has_the_documented_defaults() {
    let config = good(INSTANCE);
    assert_eq!(config.low_threshold, 0.1);
    assert_eq!(config.ca_file, None);
    assert_eq!(config.warnings, NO_WARNINGS);
    let [instance] = &config.instances[..] else { panic!("one instance") };
    assert_eq!(&*instance.name, "a");
    assert_eq!(instance.key, SecretSource::Env("A".to_owned()));
    assert_eq!(instance.environment, Environment::Development);
    assert_eq!(instance.api_url.as_str(), "https://api.clerk.com");
    assert_eq!(instance.limit, LimitSetting::FromKeyPrefix);
    assert_eq!(instance.limit(), Some((100, Duration::from_secs(10))));
    assert_eq!(instance.users_limit, None);
    assert_eq!(instance.users, None);
    assert_eq!(instance.probe.trigger, ScheduleConfig::Interval(Duration::from_secs(15)));
    assert_eq!(instance.probe.timeout, Duration::from_secs(5));
    assert_eq!(instance.probe.path, "/v1/users/count");
    assert_eq!(instance.probe.when, ProbeWhen::Idle);
}

#[test]
fn an_instance_overrides_the_defaults_key_by_key() {
    let config = good(
        "probe: { interval: 30s, path: /v1/instance, when: always }\n\
         users: { interval: 2h }\n\
         instances:\n\
         - { name: a, secret_key_env: A }\n\
         - { name: b, secret_key_env: LIVE, probe: { interval: 2s }, users: off, plan: pro }\n\
         - { name: c, secret_key_env: C, probe: { schedule: '0 * * * * *', timeout: 1s, when: idle }, users: {} }\n",
    );
    let [a, b, c] = &config.instances[..] else { panic!("three instances") };
    assert_eq!(a.probe.trigger, ScheduleConfig::Interval(Duration::from_secs(30)));
    assert_eq!(a.users, Some(UsersConfig { trigger: ScheduleConfig::Interval(Duration::from_secs(7200)) }));
    assert_eq!(b.probe.trigger, ScheduleConfig::Interval(Duration::from_secs(2)));
    assert_eq!(b.probe.timeout, Duration::from_secs(2), "no longer than the interval");
    assert_eq!((b.probe.path.as_str(), b.probe.when), ("/v1/instance", ProbeWhen::Always));
    assert_eq!(b.users, None);
    assert_eq!(b.environment, Environment::Production);
    assert_eq!(b.limit, LimitSetting::Plan(Plan::Pro));
    assert_eq!(c.probe.trigger, ScheduleConfig::Cron("0 * * * * *".to_owned()));
    assert_eq!((c.probe.timeout, c.probe.when), (Duration::from_secs(1), ProbeWhen::Idle));
    assert_eq!(c.users, Some(UsersConfig { trigger: ScheduleConfig::Cron("0 0 * * * *".to_owned()) }));
}

#[test]
fn anchors_and_merge_keys_work() {
    let config = good(
        "probe: &p { interval: 20s }\n\
         instances:\n\
         - { name: a, secret_key_env: A, probe: { <<: *p, timeout: 1s } }\n",
    );
    assert_eq!(config.instances[0].probe.trigger, ScheduleConfig::Interval(Duration::from_secs(20)));
}

#[test]
fn files_named_in_the_file_are_relative_to_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("key"), " sk_live_abcdef\n").unwrap();
    fs::write(directory.path().join("other"), "sk_live_ghijkl\n").unwrap();
    fs::write(directory.path().join("ca.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let file = directory.path().join("c.yml");
    fs::write(
        &file,
        "tls_config: { ca_file: ca.pem }\n\
         instances: [{ name: a, secret_key_file: key, further_secret_key_files: [other] }]\n",
    )
    .unwrap();
    let config = Config::load(&file, &env).unwrap();
    assert_eq!(config.ca_file, Some(directory.path().join("ca.pem")));
    assert_eq!(config.instances[0].key, SecretSource::File(directory.path().join("key")));
    assert_eq!(config.instances[0].further_keys, [SecretSource::File(directory.path().join("other"))]);
    assert_eq!(config.instances[0].environment, Environment::Production);
}

#[test]
fn only_the_variables_that_the_file_names_are_read() {
    let env = |name: &str| {
        assert_eq!(name, "A", "asked for another variable");
        env(name)
    };
    assert!(Config::parse(INSTANCE, Path::new("c.yml"), &env).is_ok());
}

#[test]
fn one_instance_needs_no_file() {
    let config = |pairs: &'static [(&str, &str)]| {
        let env = move |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Config::from_environment(&env).map_err(|error| error.to_string())
    };
    let found =
        config(&[("CLERK_SECRET_KEY", "sk_live_abcdef\n"), ("CLERK_API_URL", "http://127.0.0.1:10431/v1")]).unwrap();
    let [instance] = &found.instances[..] else { panic!("one instance") };
    assert_eq!(&*instance.name, "default");
    assert_eq!(instance.environment, Environment::Production);
    assert_eq!(instance.api_url.as_str(), "http://127.0.0.1:10431");
    assert_eq!(found.warnings, NO_WARNINGS);
    assert_eq!(good(INSTANCE).instances[0].probe, instance.probe, "the same defaults as with a file");

    // Empty variables, as compose files pass them, count as unset.
    let found =
        config(&[("CLERK_SECRET_KEY", "sk_test_abcdef"), ("CLERK_SECRET_KEY_FILE", ""), ("CLERK_API_URL", " \n")]);
    assert_eq!(found.unwrap().instances[0].api_url.as_str(), "https://api.clerk.com");

    let cases: [(&'static [(&str, &str)], &str); 7] = [
        (
            &[],
            "no Clerk instance is configured; set CLERK_SECRET_KEY (or CLERK_SECRET_KEY_FILE) to a secret key, or name a file with --config.file, or run `clerk-exporter demo` to try it without an account",
        ),
        (
            &[("CLERK_SECRET_KEY", "")],
            "CLERK_SECRET_KEY: is set but empty; put the secret key there (Clerk dashboard, API keys)",
        ),
        (
            &[("CLERK_SECRET_KEY", "sk_test_...")],
            "CLERK_SECRET_KEY: is a placeholder; replace it with the secret key (Clerk dashboard, API keys)",
        ),
        (
            &[("CLERK_SECRET_KEY", "sk_test_a"), ("CLERK_SECRET_KEY_FILE", "/x")],
            "CLERK_SECRET_KEY: set together with CLERK_SECRET_KEY_FILE; unset one of them",
        ),
        (
            &[("CLERK_SECRET_KEY_FILE", "/nonexistent")],
            "CLERK_SECRET_KEY_FILE: file /nonexistent: cannot be read: no such file; check that the file exists and that this user may read it",
        ),
        (
            &[("CLERK_SECRET_KEY_FILE", "sk_live_CANARY")],
            "CLERK_SECRET_KEY_FILE: looks like a key; write the name of the file that holds the key, such as `/run/secrets/clerk_prod`",
        ),
        (
            &[("CLERK_SECRET_KEY", "x"), ("CLERK_API_URL", "nonsense")],
            "CLERK_SECRET_KEY: is not a Clerk secret key; those begin with sk_live_ or sk_test_\nCLERK_API_URL: not a URL; write `https://api.clerk.com`",
        ),
    ];
    for (pairs, expected) in cases {
        assert_eq!(config(pairs).unwrap_err(), expected);
    }
}

#[test]
fn redacted_config_reads_back_as_the_same_config() {
    let config = good(
        "low_threshold: 0.25\n\
         users: { schedule: '0 30 * * * *' }\n\
         instances:\n\
         - { name: 'a \"quoted\" \\ name: #1', secret_key_env: A, plan: pro, users_limit: 7, probe: { when: always } }\n\
         - { name: b, secret_key_env: LIVE, users: off, limit: { requests: 500, window: 1m30s } }\n\
         - { name: c, secret_key_env: C, api_url: 'http://localhost:1/x', probe: { schedule: '*/20 * * * * *' } }\n",
    );
    assert_eq!(good(&config.masked_yaml()), config);
    let inline = good("instances: [{ name: a, secret_key: sk_live_CANARY }]");
    assert!(inline.masked_yaml().contains("secret_key: \"<secret>\""), "{}", inline.masked_yaml());
}

#[test]
fn numbers_and_schedules_accept_spellings_of_other_tools() {
    for (text, expected) in
        [("1e+06", 1_000_000), ("1E6", 1_000_000), ("1000000.0", 1_000_000), ("5e4", 50_000), ("7", 7)]
    {
        let config = good(&with_instance_lines(&format!(
            "users_limit: {text}\nlimit: {{ requests: {text}, window: 1h }}\nprobe: {{ interval: 1h }}"
        )));
        assert_eq!(config.instances[0].users_limit, Some(expected), "{text}");
        let hour = Duration::from_secs(3600);
        assert_eq!(config.instances[0].limit, LimitSetting::Fixed { requests: expected, window: hour }, "{text}");
    }
    for text in ["1.5", "1e-3", "0.0", "-1e+06", "1e+30"] {
        let message = parse(&with_instance_lines(&format!("users_limit: {text}"))).unwrap_err();
        assert!(message.contains("write one such as `100`") || message.contains("too large"), "{text}: {message}");
    }
    for (name, expected) in [
        ("@midnight", "0 0 0 * * *"),
        ("@daily", "0 0 0 * * *"),
        ("@hourly", "0 0 * * * *"),
        ("@weekly", "0 0 0 * * 0"),
        ("@monthly", "0 0 0 1 * *"),
        ("@yearly", "0 0 0 1 1 *"),
        ("@annually", "0 0 0 1 1 *"),
        (" @Midnight ", "0 0 0 * * *"),
    ] {
        let config =
            good(&with_instance_lines(&format!("users: {{ schedule: '{name}' }}\nprobe: {{ schedule: '{name}' }}")));
        let trigger = ScheduleConfig::Cron(expected.to_owned());
        assert_eq!(config.instances[0].users, Some(UsersConfig { trigger: trigger.clone() }), "{name}");
        assert_eq!(config.instances[0].probe.trigger, trigger, "{name}");
        assert_eq!(good(&config.masked_yaml()), config, "{name}");
    }
}

#[test]
fn machine_keys_are_separate_from_instance_keys() {
    let directory = tempfile::tempdir().unwrap();
    for (name, key) in
        [("machine", "ak_CANARY0123456789\n"), ("copy", "ak_CANARY0123456789"), ("key", "sk_test_CANARY0other")]
    {
        fs::write(directory.path().join(name), key).unwrap();
    }
    let load = |lines: &str| {
        let config = Config::parse(&with_instance_lines(lines), &directory.path().join("c.yml"), &env);
        config.map_err(|error| error.to_string())
    };
    let config = load("machine_secret_key_files: [machine]").unwrap();
    assert_eq!(config.instances[0].machine_keys, [SecretSource::File(directory.path().join("machine"))]);
    assert_eq!(config.warnings, NO_WARNINGS);
    assert!(!config.masked_yaml().contains("CANARY") && config.masked_yaml().contains("machine_secret_key_files:"));
    assert_eq!(good(&config.masked_yaml()), config);
    for (lines, expected) in [
        ("machine_secret_key_files: [key]", "machine_secret_key_files[0]: file"),
        ("machine_secret_key_files: [key]", "is not a machine secret key; those begin with ak_"),
        ("further_secret_key_files: [machine]", "list machine keys in machine_secret_key_files"),
        (
            "machine_secret_key_files: [machine, copy]",
            "machine_secret_key_files[1]: the same key as instances[0].machine_secret_key_files[0]",
        ),
        ("machine_secret_key_files: machine", "text instead of a list"),
        ("machine_secret_key_files: [none]", "cannot be read"),
    ] {
        let message = load(lines).unwrap_err();
        assert!(message.contains(expected) && !message.contains("CANARY"), "{lines}: {message}");
    }
}
