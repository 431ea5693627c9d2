//! The configuration as users meet it: files in, checked values or messages out.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests are outside of test functions")]

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clerk_exporter::config::{Config, LimitSetting, Plan, Trigger, Users, When};
use clerk_exporter::secret::{Environment, SecretSource};

/// Whatever is asked for is there, each variable with a key of its own.
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

/// An instance that is fine, to put other lines behind.
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
    assert_eq!(instance.probe.trigger, Trigger::Interval(Duration::from_secs(15)));
    assert_eq!(instance.probe.timeout, Duration::from_secs(5));
    assert_eq!(instance.probe.path, "/v1/users/count");
    assert_eq!(instance.probe.when, When::Idle);
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
    assert_eq!(a.probe.trigger, Trigger::Interval(Duration::from_secs(30)));
    assert_eq!(a.users, Some(Users { trigger: Trigger::Interval(Duration::from_secs(7200)) }));
    assert_eq!(b.probe.trigger, Trigger::Interval(Duration::from_secs(2)));
    assert_eq!(b.probe.timeout, Duration::from_secs(2), "no longer than the interval");
    assert_eq!((b.probe.path.as_str(), b.probe.when), ("/v1/instance", When::Always));
    assert_eq!(b.users, None);
    assert_eq!(b.environment, Environment::Production);
    assert_eq!(b.limit, LimitSetting::Plan(Plan::Pro));
    assert_eq!(c.probe.trigger, Trigger::Cron("0 * * * * *".to_owned()));
    assert_eq!((c.probe.timeout, c.probe.when), (Duration::from_secs(1), When::Idle));
    assert_eq!(c.users, Some(Users { trigger: Trigger::Cron("0 0 * * * *".to_owned()) }));
}

#[test]
fn anchors_and_merge_keys_work() {
    let config = good(
        "probe: &p { interval: 20s }\n\
         instances:\n\
         - { name: a, secret_key_env: A, probe: { <<: *p, timeout: 1s } }\n",
    );
    assert_eq!(config.instances[0].probe.trigger, Trigger::Interval(Duration::from_secs(20)));
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

/// Bad line below an instance, and the message, of which the part before the key is checked by its place.
#[test]
fn a_mistake_in_an_instance_is_reported_with_place_key_and_remedy() {
    let cases = [
        (
            "limit: 1000",
            "4:12: instances[0].limit: a number instead of a section; write keys below it, indented, as in `requests: ...`",
        ),
        (
            "limit: { requests: 10 }",
            "4:12: instances[0].limit.window: missing; write both, as in `limit: { requests: 1000, window: 10s }`",
        ),
        (
            "limit: { requests: 0, window: 10s }",
            "4:24: instances[0].limit.requests: not a whole number above 0; write one such as `1000`",
        ),
        (
            "limit: { requests: 10, window: 10 }",
            "4:36: instances[0].limit.window: a duration without a unit; write `10s` for seconds",
        ),
        (
            "plan: enterprise",
            "4:11: instances[0].plan: no known plan; write one of `free`, `pro`, `development`, `production`",
        ),
        (
            "plan: free\nlimit: { requests: 10, window: 10s }",
            "5:12: instances[0].limit: limit and plan exclude each other; keep one",
        ),
        (
            "secret_key_file: x",
            "4:22: instances[0].secret_key_file: more than one key; keep one of secret_key_file, secret_key_env and secret_key",
        ),
        (
            "further_secret_key_files: x",
            "4:31: instances[0].further_secret_key_files: text instead of a list; begin each item with `- `",
        ),
        (
            "further_secret_key_files: [/nonexistent]",
            "4:32: instances[0].further_secret_key_files[0]: file /nonexistent: cannot be read: entity not found; check that the file exists and that this user may read it",
        ),
        ("api_url: api.clerk.com", "4:14: instances[0].api_url: not a URL; write `https://api.clerk.com`"),
        (
            "api_url: https://u:p@api.clerk.com",
            "4:14: instances[0].api_url: a user or password in the URL is refused; write the URL without the part before `@`",
        ),
        ("users_limit: many", "4:18: instances[0].users_limit: text instead of a number; write one such as `100`"),
        (
            "users: on",
            "4:12: instances[0].users: neither a section nor `off`; write `schedule: \"0 0 * * * *\"` below it, or `off`",
        ),
        (
            "probe: { interval: 15 }",
            "4:24: instances[0].probe.interval: a duration without a unit; write `15s` for seconds",
        ),
        ("probe: { interval: 500ms }", "4:24: instances[0].probe.interval: too short; write a duration from 1s to 1h"),
        (
            "probe: { interval: soon }",
            "4:24: instances[0].probe.interval: not a duration; write a number and a unit, as in `15s` or `1m30s`",
        ),
        ("probe: { timeout: 2m }", "4:23: instances[0].probe.timeout: too long; write a duration from 100ms to 1m"),
        (
            "probe: { path: /users }",
            "4:20: instances[0].probe.path: does not begin with /v1/; write one such as `/v1/users/count`",
        ),
        ("probe: { when: never }", "4:20: instances[0].probe.when: neither idle nor always; write `idle` or `always`"),
        (
            "probe: { schedule: '* * * * *' }",
            "4:24: instances[0].probe.schedule: a cron expression of five fields; put the seconds in front, as in `0 */5 * * * *`",
        ),
        (
            "probe: { interval: 15s, schedule: '@hourly' }",
            "4:39: instances[0].probe.schedule: interval and schedule exclude each other; keep one",
        ),
        (
            "probe: [interval]",
            "4:12: instances[0].probe: a list instead of a section; write keys below it, indented, as in `interval: ...`",
        ),
        ("interval: 15s", "4:5: instances[0].interval: a key that belongs below `probe`; move it there"),
        (
            "low_threshold: 0.2",
            "4:5: instances[0].low_threshold: a key that belongs at the top of the file; move it there",
        ),
        ("probe: { intervall: 15s }", "4:14: instances[0].probe.intervall: unknown key; write `interval`"),
        ("api-url: x", "4:5: instances[0].api-url: unknown key; write `api_url`"),
        (
            "colour: red",
            "4:5: instances[0].colour: unknown key; the keys here are name, secret_key, secret_key_file, secret_key_env, further_secret_key_files, api_url, limit, plan, users_limit, probe, users",
        ),
        (
            "sk_live_CANARY: x",
            "4:5: instances[0].(not shown): unknown key; the keys here are name, secret_key, secret_key_file, secret_key_env, further_secret_key_files, api_url, limit, plan, users_limit, probe, users",
        ),
        ("1: x", "4:5: instances[0]: a key that is not text; write one of the documented keys"),
        (
            "limit: { requests: 1, window: 1m }",
            "2:5: instances[0].probe: the requests of this exporter take 400.0 % of the limit of 1 requests per 1m; write `interval: 20m` or longer",
        ),
    ];
    for (lines, expected) in cases {
        let message = parse(&with_instance_lines(lines)).unwrap_err();
        assert_eq!(message, format!("c.yml:{expected}"), "{lines}");
    }
}

#[test]
fn a_mistake_elsewhere_is_reported_with_place_key_and_remedy() {
    let after = |line: &str| format!("{line}\n{INSTANCE}");
    let instances = |items: &str| format!("instances:\n{items}");
    let cases = [
        (String::new(), "c.yml: the file is empty; write `instances:` with at least one instance"),
        ("# nothing\n".to_owned(), "c.yml: the file is empty; write `instances:` with at least one instance"),
        (
            "hello".to_owned(),
            "c.yml:1:1: text instead of a section; write keys below it, indented, as in `low_threshold: ...`",
        ),
        (
            "low_threshold: 0.1\n".to_owned(),
            "c.yml:1:1: instances: no instance is configured; write `instances:` with a `name` and a `secret_key_file`",
        ),
        ("instances: []\n".to_owned(), "c.yml:1:12: instances: the list is empty; write at least one instance"),
        ("instances:\n".to_owned(), "c.yml:1:10: instances: nothing instead of a list; begin each item with `- `"),
        (
            "instances: { name: a }\n".to_owned(),
            "c.yml:1:12: instances: a section of keys instead of a list; begin each item with `- `",
        ),
        (after("low_threshold: 10"), "c.yml:1:16: low_threshold: not between 0 and 1; write `0.1` for 10 %"),
        (after("low_threshold: 0"), "c.yml:1:16: low_threshold: not between 0 and 1; write `0.1` for 10 %"),
        (after("low_threshold: 10%"), "c.yml:1:16: low_threshold: text instead of a number; write `0.1` for 10 %"),
        (
            after("gateway: { listen_address: '127.0.0.1:1' }"),
            "c.yml:1:1: gateway: the gateway is not part of this version; remove the section",
        ),
        (
            after("tls_config: { ca_file: /nonexistent }"),
            "c.yml:1:24: tls_config.ca_file: the file cannot be read: entity not found; name a readable PEM file",
        ),
        (
            after("tls_config: { ca_file: /dev/null }"),
            "c.yml:1:24: tls_config.ca_file: the file has no certificate; name a PEM file with `-----BEGIN CERTIFICATE-----`",
        ),
        (
            after("users:"),
            "c.yml:1:6: users: neither a section nor `off`; write `schedule: \"0 0 * * * *\"` below it, or `off`",
        ),
        (after("users: { interval: 1s }"), "c.yml:1:20: users.interval: too short; write a duration from 1m to 1day"),
        (
            after("probe: { schedule: '0 0 0 30 2 *' }"),
            "c.yml:1:20: probe.schedule: a cron expression that is never due; write second, minute, hour, day, month, weekday, as in `*/15 * * * * *`",
        ),
        (after("name: a"), "c.yml:1:1: name: a key that belongs below `instances`; move it there"),
        (after("probes: { interval: 15s }"), "c.yml:1:1: probes: unknown key; write `probe`"),
        (
            instances("- a\n"),
            "c.yml:2:3: instances[0]: text instead of a section; write keys below it, indented, as in `name: ...`",
        ),
        (
            instances("- name: a\n"),
            "c.yml:2:3: instances[0].secret_key_file: the instance has no key; write `secret_key_file: /run/secrets/clerk` or `secret_key_env: NAME`",
        ),
        (
            instances("- secret_key_env: A\n"),
            "c.yml:2:3: instances[0].name: the instance has no name; write `name: prod`, the alias that metrics carry",
        ),
        (
            instances("- name: 7\n  secret_key_env: A\n"),
            "c.yml:2:9: instances[0].name: a number instead of text; put it in quotes",
        ),
        (
            instances("- name:\n  secret_key_env: A\n"),
            "c.yml:2:7: instances[0].name: has no value; write one or remove the key",
        ),
        (
            instances("- name: sk_live_CANARY\n  secret_key_env: A\n"),
            "c.yml:2:9: instances[0].name: looks like a key, and names are shown in metrics; write an alias such as `prod`",
        ),
        (
            instances("- name: a\n  secret_key_env: UNSET\n"),
            "c.yml:3:19: instances[0].secret_key_env: environment variable UNSET: is not set; set it to the key",
        ),
        (
            instances("- name: a\n  secret_key_env: EMPTY\n"),
            "c.yml:3:19: instances[0].secret_key_env: environment variable EMPTY: is set but empty; put the secret key there (Clerk dashboard, API keys)",
        ),
        (
            instances("- name: a\n  secret_key_env: sk_live_CANARY\n"),
            "c.yml:3:19: instances[0].secret_key_env: looks like a key; write the name of the environment variable that holds it",
        ),
        (
            instances("- name: a\n  secret_key_env: A-B\n"),
            "c.yml:3:19: instances[0].secret_key_env: not the name of an environment variable; write one such as `CLERK_SECRET_KEY`",
        ),
        (
            instances("- name: a\n  secret_key_file: sk_live_CANARY\n"),
            "c.yml:3:20: instances[0].secret_key_file: looks like a key; write the name of the file that holds the key, such as `/run/secrets/clerk_prod`",
        ),
        (
            instances("- name: a\n  secret_key: pk_live_CANARY\n"),
            "c.yml:3:15: instances[0].secret_key: is a publishable key (pk_), but the secret key is needed; use the one that begins with sk_live_ or sk_test_",
        ),
        (
            instances("- name: a\n  secret_key: CANARY\n"),
            "c.yml:3:15: instances[0].secret_key: is no Clerk secret key: those begin with sk_live_ or sk_test_",
        ),
        (
            instances("- name: a\n  secret_key: \"sk_live_CANARY\\nsk\"\n"),
            "c.yml:3:15: instances[0].secret_key: has a line break at byte 15; keep the key alone, on one line",
        ),
        (
            instances("- { name: a, secret_key_env: A }\n- { name: a, secret_key_env: B }\n"),
            "c.yml:3:11: instances[1].name: the name `a` is already that of instances[0]; choose another one",
        ),
        (
            instances("- { name: a, secret_key_env: A }\n- { name: b, secret_key: sk_test_CANARY0A }\n"),
            "c.yml:3:26: instances[1].secret_key: the same key as instances[0].secret_key_env; keep one, since both share one rate limit",
        ),
        (
            "instances: [CANARY\n".to_owned(),
            "c.yml:1:12: not valid YAML: unclosed bracket '['; check indentation, quotes and the blank after `:`",
        ),
        (
            "probe:\n\tinterval: 1s\n".to_owned(),
            "c.yml:2:2: not valid YAML: tabs disallowed within this context (block indentation); check indentation, quotes and the blank after `:`",
        ),
        (after("probe: {}\nprobe: {}"), "c.yml:2:1: the key is written twice; keep one"),
    ];
    for (yaml, expected) in cases {
        assert_eq!(parse(&yaml).unwrap_err(), expected, "{yaml}");
    }
}

#[test]
fn every_mistake_of_a_file_is_reported_at_once_in_the_order_of_the_file() {
    let message = parse(
        "low_threshold: 2\n\
         probe: { interval: 15, wehn: idle }\n\
         instances:\n\
         - { name: '', secret_key_env: UNSET, plan: gold }\n\
         - { name: b, secret_key_env: B, api_url: ftp://x }\n\
         - { name: b, secret_key_env: EMPTY }\n",
    )
    .unwrap_err();
    let keys: Vec<&str> = message.lines().map(|line| line.split(": ").take(2).last().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "low_threshold",
            "probe.interval",
            "probe.wehn",
            "instances[0].name",
            "instances[0].secret_key_env",
            "instances[0].plan",
            "instances[1].api_url",
            "instances[2].name",
            "instances[2].secret_key_env",
        ]
    );
}

#[test]
fn keys_of_two_environments_are_not_one_instance() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    fs::write(&key, "sk_live_abcdef").unwrap();
    let yaml = with_instance_lines(&format!("further_secret_key_files: ['{}']", key.display()));
    assert_eq!(
        parse(&yaml).unwrap_err(),
        "c.yml:4:32: instances[0].further_secret_key_files[0]: a production key beside a development key, so not of the \
         same instance; write an instance of its own for it"
    );
}

#[test]
fn what_is_questionable_is_a_warning() {
    let cases = [
        (
            "api_url: http://api.clerk.com",
            "4:14: instances[0].api_url: the key travels through the network without encryption; use https",
        ),
        (
            "probe: { path: /v1/jwks }",
            "4:20: instances[0].probe.path: this request does not count against the quota, so it says nothing of it; use `/v1/users/count`",
        ),
        (
            "probe: { path: '/v1/users?limit=1' }",
            "4:20: instances[0].probe.path: the answer carries personal data; `/v1/users/count` does not",
        ),
        ("probe: { interval: 1m, timeout: 60s }", ""),
        (
            "probe: { interval: 30s, timeout: 60s }",
            "4:38: instances[0].probe.timeout: longer than the interval; probes that are due meanwhile are skipped",
        ),
        (
            "probe: { interval: 1s }",
            "4:24: instances[0].probe: the requests of this exporter take 10.0 % of the limit of 100 requests per 10s; write `interval: 2s` or longer",
        ),
        (
            "probe: { interval: 1s }\nplan: free",
            "4:24: instances[0].probe: the requests of this exporter take 50.0 % of the limit of 20 requests per 10s; write `interval: 10s` or longer",
        ),
        ("api_url: http://127.0.0.1:10431", ""),
    ];
    for (lines, expected) in cases {
        let warnings = good(&with_instance_lines(lines)).warnings;
        let expected: Vec<String> = expected.lines().map(|line| format!("c.yml:{line}")).collect();
        assert_eq!(warnings, expected, "{lines}");
    }
}

#[test]
fn the_interval_that_a_refusal_proposes_is_accepted() {
    let refused =
        parse(&with_instance_lines("limit: { requests: 15, window: 10s }\nprobe: { interval: 1s }")).unwrap_err();
    assert!(refused.contains("66.7 %") && refused.ends_with("write `interval: 14s` or longer"), "{refused}");
    let config = good(&with_instance_lines("limit: { requests: 15, window: 10s }\nprobe: { interval: 14s }"));
    assert!(config.warnings.is_empty());
    assert!(config.instances[0].budget_share().unwrap() <= 0.05);
}

#[cfg(unix)]
#[test]
fn a_key_in_a_file_that_everybody_may_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.yml");
    let load = |yaml: &str, mode: u32| {
        fs::write(&file, yaml).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        Config::load(&file, &env).unwrap().warnings
    };
    let inline = "instances: [{ name: a, secret_key: sk_live_abcdef }]\n";
    let warnings = load(inline, 0o644);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("chmod o-r"), "{warnings:?}");
    assert!(load(inline, 0o640).is_empty());
    assert!(load(INSTANCE, 0o644).is_empty());
}

#[test]
fn a_file_that_cannot_be_read_is_reported_with_its_name() {
    let message = |path: &Path| Config::load(path, &env).unwrap_err().to_string();
    assert_eq!(
        message(Path::new("/nonexistent.yml")),
        "/nonexistent.yml: the file cannot be read: entity not found; check the path given with --config.file"
    );
    assert!(message(Path::new("/")).contains("is a directory"));
    assert!(message(Path::new("/dev/zero")).contains("bigger than 1 MiB"));
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
            "CLERK_SECRET_KEY: is a placeholder; replace it by the secret key (Clerk dashboard, API keys)",
        ),
        (
            &[("CLERK_SECRET_KEY", "sk_test_a"), ("CLERK_SECRET_KEY_FILE", "/x")],
            "CLERK_SECRET_KEY: set together with CLERK_SECRET_KEY_FILE; unset one of them",
        ),
        (
            &[("CLERK_SECRET_KEY_FILE", "/nonexistent")],
            "CLERK_SECRET_KEY_FILE: file /nonexistent: cannot be read: entity not found; check that the file exists and that this user may read it",
        ),
        (
            &[("CLERK_SECRET_KEY_FILE", "sk_live_CANARY")],
            "CLERK_SECRET_KEY_FILE: looks like a key; write the name of the file that holds the key, such as `/run/secrets/clerk_prod`",
        ),
        (
            &[("CLERK_SECRET_KEY", "x"), ("CLERK_API_URL", "")],
            "CLERK_SECRET_KEY: is no Clerk secret key: those begin with sk_live_ or sk_test_\nCLERK_API_URL: not a URL; write `https://api.clerk.com`",
        ),
    ];
    for (pairs, expected) in cases {
        assert_eq!(config(pairs).unwrap_err(), expected);
    }
}

#[test]
fn the_masked_configuration_reads_back_as_the_same_configuration() {
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

/// Wherever a key lands by mistake, it is not shown.
#[test]
fn no_key_is_shown_wherever_it_is_written() {
    const KEY: &str = "sk_live_CANARY4bMbJyWZ2vnLx0aQ";
    let template = "low_threshold: 0.1\n\
        tls_config: { ca_file: /dev/null }\n\
        probe: { interval: 15s, timeout: 5s, path: /v1/users/count, when: idle }\n\
        users: { schedule: '0 0 * * * *' }\n\
        instances:\n\
        - { name: a, secret_key: KEY, further_secret_key_files: [x], api_url: 'https://x', plan: pro, users_limit: 1 }\n\
        - { name: b, secret_key_env: B, limit: { requests: 1, window: 10s } }\n\
        - { name: c, secret_key_file: /nonexistent, secret_key: KEY }\n";
    let shows = |text: &str| {
        let parsed = Config::parse(text, Path::new("c.yml"), &env);
        match &parsed {
            Ok(config) => format!("{config:?} {config:#?} {} {:?}", config.masked_yaml(), config.warnings),
            Err(error) => format!("{error} {error:?} {error:#?}"),
        }
    };
    let mut texts = vec![template.replace("KEY", KEY), format!("instances: [{{ name: a, secret_key: {KEY} }}]")];
    // The key in place of every word of the file, with and without quotes, and as something that is no YAML.
    let is_word = |c: char| c.is_alphanumeric() || "_/.:".contains(c);
    let words: Vec<&str> = template.split(|c| !is_word(c)).filter(|word| !word.is_empty()).collect();
    for word in words {
        for replacement in
            [KEY.to_owned(), format!("'{KEY}'"), format!("[{KEY}, \"{KEY}"), format!("*{KEY}"), format!("!{KEY}")]
        {
            texts.push(template.replacen(word, &replacement, 1));
            texts.push(template.replace(word, &replacement));
        }
    }
    for text in &texts {
        let shown = shows(text);
        assert!(!shown.contains("CANARY"), "{shown}\n\n{text}");
    }
    assert!(texts.len() > 100);
}

#[test]
fn the_examples_are_good() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/config");
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let config = good_with_key_files(&fs::read_to_string(&path).unwrap());
        assert_eq!(config.warnings, NO_WARNINGS, "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["cron.yml", "several.yml", "single.yml"]);
}

#[test]
fn the_reference_shows_valid_yaml_and_every_key() {
    let reference = include_str!("../docs/configuration.md");
    let blocks: Vec<&str> =
        reference.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        good_with_key_files(block);
    }
    for (section, keys) in Config::schema() {
        let heading =
            if section.is_empty() { "### Top of the file\n".to_owned() } else { format!("### `{section}`\n") };
        let (_, text) = reference.split_once(&heading).unwrap_or_else(|| panic!("no section {heading}"));
        let text = text.split("\n#").next().unwrap();
        let described: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key)).collect();
        let (mut described, mut keys) = (described, keys.to_vec());
        described.sort_unstable();
        keys.sort_unstable();
        assert_eq!(described, keys, "section {section:?}");
    }
}

/// Reads a documented configuration, with the files that it names in a directory of the test.
fn good_with_key_files(yaml: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("clerk_prod"), "sk_live_abcdef\n").unwrap();
    fs::write(at("clerk_prod_billing"), "sk_live_ghijkl\n").unwrap();
    fs::write(at("company-ca.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let yaml = yaml.replace("/run/secrets/", "").replace("/etc/ssl/", "");
    Config::parse(&yaml, &at("c.yml"), &env).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

#[test]
fn hostile_files_are_refused_without_harm() {
    let laughs = (1..30).map(|n| format!("a{n}: &a{n} [*a{m}, *a{m}, *a{m}, *a{m}]\n", m = n - 1)).collect::<String>();
    let texts = [
        "[".repeat(200_000),
        format!("probe: {}", "{a: ".repeat(200_000)),
        "- ".repeat(100_000),
        format!("a0: &a0 x\n{laughs}"),
        "a: &a [*a]\n".to_owned(),
        format!("a0: &a0 x\n{}", (1..500).map(|n| format!("a{n}: &a{n} [*a{}]\n", n - 1)).collect::<String>()),
        "\u{0}\u{feff}\u{2028}".to_owned(),
        format!("low_threshold: {}", "9".repeat(10_000)),
        with_instance_lines("probe: { interval: 18446744073709551615s }"),
        with_instance_lines("limit: { requests: 99999999999999999999999, window: 1s }"),
    ];
    for text in texts {
        assert!(parse(&text).is_err(), "{}", text.chars().take(60).collect::<String>());
    }
}

proptest::proptest! {
    #[test]
    fn no_text_crashes_the_reader(text in "(\\PC|\n|  |: |- |name|probe|instances:\n){0,60}") {
        let _ = parse(&text);
        let _ = parse(&with_instance_lines(&text));
    }

    #[test]
    fn no_value_crashes_a_rule(text in "\\PC{0,30}") {
        let quoted = serde_json::Value::from(text).to_string();
        for key in ["interval", "schedule", "timeout", "path", "when"] {
            let _ = parse(&with_instance_lines(&format!("probe: {{ {key}: {quoted} }}")));
        }
        for key in ["api_url", "plan", "users", "further_secret_key_files"] {
            let _ = parse(&with_instance_lines(&format!("{key}: {quoted}")));
        }
    }

    #[test]
    fn no_schedule_crashes_the_checks(text in "[0-9*/,#LW?@+ -]{0,24}") {
        let _ = parse(&with_instance_lines(&format!("probe: {{ schedule: \"{text}\" }}")));
    }
}
