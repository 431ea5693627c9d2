//! Allowed but questionable settings.

use std::fs;

use clerk_exporter::config::Config;

use crate::{INSTANCE, env, good, parse, with_instance_lines};

#[test]
fn questionable_settings_are_warnings() {
    let cases = [
        (
            "api_url: http://api.clerk.com",
            "4:14: instances[0].api_url: the key travels through the network without encryption; use https",
        ),
        (
            "probe: { path: /v1/jwks }",
            "4:20: instances[0].probe.path: this request does not count against the quota and reveals nothing about it; use `/v1/users/count`",
        ),
        (
            "probe: { path: '/v1/users?limit=1' }",
            "4:20: instances[0].probe.path: the response contains personal data; `/v1/users/count` does not",
        ),
        ("probe: { interval: 1m, timeout: 60s }", ""),
        (
            "probe: { interval: 30s, timeout: 60s }",
            "4:38: instances[0].probe.timeout: longer than the interval; probes that become due during another one are skipped",
        ),
        (
            "probe: { interval: 1s }",
            "4:24: instances[0].probe: this exporter's requests use 10.0 % of the limit of 100 requests per 10s; write `interval: 2s` or longer",
        ),
        (
            "probe: { interval: 1s }\nplan: free",
            "4:24: instances[0].probe: this exporter's requests use 50.0 % of the limit of 20 requests per 10s; write `interval: 10s` or longer",
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
fn proposed_interval_is_accepted() {
    let refused =
        parse(&with_instance_lines("limit: { requests: 15, window: 10s }\nprobe: { interval: 1s }")).unwrap_err();
    assert!(refused.contains("66.7 %") && refused.ends_with("write `interval: 14s` or longer"), "{refused}");
    let config = good(&with_instance_lines("limit: { requests: 15, window: 10s }\nprobe: { interval: 14s }"));
    assert!(config.warnings.is_empty());
    assert!(config.instances[0].budget_share().unwrap() <= 0.05);
}

#[cfg(unix)]
#[test]
fn key_in_a_world_readable_file_is_a_warning() {
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
