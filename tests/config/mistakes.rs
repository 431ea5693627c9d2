//! Errors have a position, a key and a remedy.

use std::fs;
use std::path::Path;

use clerk_exporter::config::Config;

use crate::{INSTANCE, env, parse, with_instance_lines};

/// An invalid line below an instance, and the message. The part before the key is checked by its position.
#[test]
fn instance_mistake_has_position_key_and_remedy() {
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
            "4:11: instances[0].plan: not a known plan; write one of `free`, `pro`, `development`, `production`",
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
            "4:32: instances[0].further_secret_key_files[0]: file /nonexistent: cannot be read: no such file; check that the file exists and that this user may read it",
        ),
        ("api_url: api.clerk.com", "4:14: instances[0].api_url: not a URL; write `https://api.clerk.com`"),
        (
            "api_url: https://u:p@api.clerk.com",
            "4:14: instances[0].api_url: must not contain a user or password; remove the part before `@`",
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
            "4:20: instances[0].probe.path: does not start with /v1/; write one such as `/v1/users/count`",
        ),
        (
            "probe: { path: /v1/logs?limit=1 }",
            "4:20: instances[0].probe.path: has a limit of its own, and Clerk does not allow to poll it; write one such as \
             `/v1/users/count`",
        ),
        (
            "probe: { path: /v1/%6Cogs/ }",
            "4:20: instances[0].probe.path: has a limit of its own, and Clerk does not allow to poll it; write one such as \
             `/v1/users/count`",
        ),
        (
            "probe: { when: rarely }",
            "4:20: instances[0].probe.when: neither idle, always nor never; write `idle`, `always` or `never`",
        ),
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
            "4:5: instances[0].colour: unknown key; the keys here are name, secret_key, secret_key_file, secret_key_env, further_secret_key_files, machine_secret_key_files, api_url, limit, plan, users_limit, probe, users, metered",
        ),
        (
            "sk_live_CANARY: x",
            "4:5: instances[0].(not shown): unknown key; the keys here are name, secret_key, secret_key_file, secret_key_env, further_secret_key_files, machine_secret_key_files, api_url, limit, plan, users_limit, probe, users, metered",
        ),
        ("1: x", "4:5: instances[0]: a key that is not text; write one of the documented keys"),
        (
            "limit: { requests: 1, window: 1m }",
            "2:5: instances[0].probe: this exporter's requests use 400.0 % of the limit of 1 requests per 1m; write `interval: 20m` or longer",
        ),
    ];
    for (lines, expected) in cases {
        let message = parse(&with_instance_lines(lines)).unwrap_err();
        assert_eq!(message, format!("c.yml:{expected}"), "{lines}");
    }
}

#[test]
fn other_mistake_has_position_key_and_remedy() {
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
            after("tls_config: { ca_file: /nonexistent }"),
            "c.yml:1:24: tls_config.ca_file: the file cannot be read: no such file; name a readable PEM file",
        ),
        (
            after("tls_config: { ca_file: /dev/null }"),
            "c.yml:1:24: tls_config.ca_file: the file contains no certificate; name a PEM file with `-----BEGIN CERTIFICATE-----`",
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
            "c.yml:3:15: instances[0].secret_key: is not a Clerk secret key; those begin with sk_live_ or sk_test_",
        ),
        (
            instances("- name: a\n  secret_key: \"sk_live_CANARY\\nsk\"\n"),
            "c.yml:3:15: instances[0].secret_key: has a line break at byte 15; write only the key, on one line",
        ),
        (
            instances("- { name: a, secret_key_env: A }\n- { name: a, secret_key_env: B }\n"),
            "c.yml:3:11: instances[1].name: the name `a` is already used by instances[0]; choose another one",
        ),
        (
            instances("- { name: a, secret_key_env: A }\n- { name: b, secret_key: sk_test_CANARY0A }\n"),
            "c.yml:3:26: instances[1].secret_key: the same key as instances[0].secret_key_env; keep one, since both share one rate limit",
        ),
        (
            "instances: [CANARY\n".to_owned(),
            "c.yml:1:12: not valid YAML: unclosed bracket '['; check indentation, quotes and the space after `:`",
        ),
        (
            "probe:\n\tinterval: 1s\n".to_owned(),
            "c.yml:2:2: not valid YAML: tabs disallowed within this context (block indentation); check indentation, quotes and the space after `:`",
        ),
        (after("probe: {}\nprobe: {}"), "c.yml:2:1: the key is written twice; keep one"),
    ];
    for (yaml, expected) in cases {
        assert_eq!(parse(&yaml).unwrap_err(), expected, "{yaml}");
    }
}

#[test]
fn all_mistakes_are_reported_in_file_order() {
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
        "c.yml:4:32: instances[0].further_secret_key_files[0]: a production key beside a development key belongs to \
         another instance; write a separate instance for it"
    );
}

#[test]
fn unreadable_file_is_reported_with_its_name() {
    let message = |path: &Path| Config::load(path, &env).unwrap_err().to_string();
    assert_eq!(
        message(Path::new("/nonexistent.yml")),
        "/nonexistent.yml: the file cannot be read: no such file; check the path given with --config.file"
    );
    assert!(message(Path::new("/")).contains("is a directory"));
    assert!(message(Path::new("/dev/zero")).contains("larger than 1 MiB"));
}
