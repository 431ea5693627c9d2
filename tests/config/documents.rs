//! The examples and the reference are correct.

use std::fs;
use std::path::Path;

use clerk_exporter::config::Config;

use crate::{NO_WARNINGS, env};

#[test]
fn examples_are_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/config");
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let config = good_with_key_files(&fs::read_to_string(&path).unwrap());
        assert_eq!(config.warnings, NO_WARNINGS, "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["cron.yml", "gateway.yml", "several.yml", "single.yml", "telemetry.yml"]);
}

#[test]
fn reference_has_valid_yaml_and_every_key() {
    let reference = include_str!("../../docs/configuration.md");
    let blocks: Vec<&str> =
        reference.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 5);
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

/// Reads a documented configuration, with the files it names in a test directory.
fn good_with_key_files(yaml: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("clerk_prod"), "sk_live_abcdef\n").unwrap();
    fs::write(at("clerk_prod_billing"), "sk_live_ghijkl\n").unwrap();
    fs::write(at("company-ca.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    for name in ["web_token", "import_token"] {
        fs::write(at(name), format!("content-of-the-file-{name}\n")).unwrap();
    }
    fs::write(at("redis_url"), "redis://redis:6379\n").unwrap();
    fs::write(at("cache_key"), "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n").unwrap();
    fs::write(at("clerk_webhook"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let yaml = yaml.replace("/run/secrets/", "").replace("/etc/ssl/", "").replace("/var/log/clerk-exporter/", "");
    Config::parse(&yaml, &at("c.yml"), &env).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}
