//! The compose files, as far as they can be checked without Docker: against the schema of compose files, and that what
//! they mount exists. `running` starts the program with their command lines and files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::tools::{run, tool};
use crate::{parse, read, root};

pub(crate) const PRODUCTION: &str = "deploy/compose/production";

/// A compose file with its anchors resolved.
pub(crate) fn compose(path: &str) -> Value {
    parse(&read(path))
}

/// Validates a compose file: whether it is valid, and what is said.
fn validate(compose: &Value) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.json");
    fs::write(&file, compose.to_string()).unwrap();
    let schema = tool("types/node_modules/dclint/schemas/compose.schema.json");
    let script = "import json, sys, jsonschema; jsonschema.validate(*(json.load(open(path)) for path in sys.argv[1:]))";
    let arguments = ["-c", script, file.to_str().unwrap(), schema.to_str().unwrap()];
    let (valid, output, errors) = run("python/bin/python", &arguments);
    (valid, output + &errors)
}

#[test]
fn compose_files_fit_the_schema() {
    for path in ["deploy/compose/compose.yml", "deploy/compose/production/compose.yml"] {
        let (valid, said) = validate(&compose(path));
        assert!(valid, "{path}: {said}");
        let mut wrong = compose(path);
        wrong["services"]["prometheus"]["comand"] = json!("x");
        assert!(!validate(&wrong).0, "the schema finds no mistake");
    }
}

#[test]
fn compose_mounts_exist_and_services_are_hardened() {
    for (folder, expected) in [("deploy/compose", 6), (PRODUCTION, 8)] {
        let compose = compose(&format!("{folder}/compose.yml"));
        let mut mounts = 0;
        for (name, service) in compose["services"].as_object().unwrap() {
            assert_eq!(service["read_only"], true, "{name}");
            assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
            for volume in service["volumes"].as_array().into_iter().flatten() {
                let source = volume.as_str().unwrap().split(':').next().unwrap();
                if source.starts_with('.') {
                    assert!(root().join(folder).join(source).exists(), "{name}: {source}");
                    mounts += 1;
                } else {
                    assert!(compose["volumes"].as_object().unwrap().contains_key(source), "{name}: {source}");
                }
            }
            for port in service["ports"].as_array().into_iter().flatten() {
                assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: reachable from other hosts");
            }
        }
        assert_eq!(mounts, expected, "{folder}");
    }
    for path in ["datasources/prometheus.yaml", "dashboards/clerk.yaml"] {
        assert_eq!(parse(&read(&format!("deploy/compose/grafana/provisioning/{path}")))["apiVersion"], 1);
    }
}

/// Secrets are files, never variables, arguments or part of the compose file.
#[test]
fn production_secrets_are_files_that_the_script_makes() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = make_secrets(folder.path(), "sk_live_4bMbJyWZ2vnLx0aQCANARY\n");
    let compose = compose(&format!("{PRODUCTION}/compose.yml"));
    let named = compose["secrets"].as_object().unwrap();
    for (name, secret) in named {
        let file = secret["file"].as_str().unwrap().strip_prefix("./secrets/").unwrap();
        assert!(secrets.iter().any(|(made, _)| made == file), "make-secrets does not write {name}");
    }
    assert_eq!(secrets.len(), named.len());
    let used = compose["services"].as_object().unwrap().values();
    let used = used.flat_map(|service| service["secrets"].as_array().into_iter().flatten());
    assert!(used.map(|name| name.as_str().unwrap()).all(|name| named.contains_key(name)));
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("secrets"), mode("secrets/redis_url")), (0o700, 0o444));
    // A second run changes nothing, whatever is on its input.
    assert_eq!(make_secrets(folder.path(), "other"), secrets);
}

#[test]
fn missing_key_is_refused_by_the_script() {
    let folder = tempfile::tempdir().unwrap();
    for nothing in ["", " \n\t\n"] {
        let (succeeded, said) = run_script(folder.path(), nothing);
        assert!(!succeeded && said.contains("no key on standard input"), "{said}");
        assert!(!folder.path().join("secrets/clerk_secret_key").exists());
    }
}

/// Runs `make-secrets` in a folder of its own, and returns the files by name.
pub(crate) fn make_secrets(folder: &std::path::Path, key: &str) -> Vec<(String, String)> {
    let (succeeded, said) = run_script(folder, key);
    assert!(succeeded, "{said}");
    let files = fs::read_dir(folder.join("secrets")).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut files: Vec<_> = files.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect();
    files.sort();
    files
}

fn run_script(folder: &std::path::Path, key: &str) -> (bool, String) {
    let script = folder.join("make-secrets");
    fs::copy(root().join(PRODUCTION).join("make-secrets"), &script).unwrap();
    let input = folder.join("input");
    fs::write(&input, key).unwrap();
    let input = Stdio::from(fs::File::open(&input).unwrap());
    let output = Command::new("sh").arg(&script).stdin(input).output().unwrap();
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}
