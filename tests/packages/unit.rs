//! The systemd unit, which by hand and from packages is the same one: its flags, variables, paths and user exist.

use std::fs;

use crate::{files_below, output, program, read, root};

const UNIT: &str = "deploy/systemd/clerk-exporter.service";

/// The values of a setting, in order.
fn settings(text: &str, name: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn there_is_one_service_and_one_socket() {
    for (folder, expected) in [("deploy", 1), ("docs", 0), ("scripts", 0), ("examples", 0)] {
        for end in ["service", "socket"] {
            let files = files_below(&root().join(folder));
            let found: Vec<_> =
                files.iter().filter(|path| path.extension().is_some_and(|found| found == end)).collect();
            assert_eq!(found.len(), expected, "{folder}: {found:?}");
        }
    }
}

#[test]
fn commands_use_flags_of_the_program_and_no_procps() {
    let unit = read(UNIT);
    let help = output(program().arg("--help"));
    let commands = ["ExecStartPre", "ExecStart", "ExecReload"].map(|name| settings(&unit, name)).concat();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in &commands {
        let mut words = command.split(' ');
        let program = words.next().unwrap();
        if program == "/usr/bin/clerk-exporter" {
            for flag in words {
                assert!(help.contains(&format!("{flag}\n")) || help.contains(&format!("{flag} ")), "{flag}");
            }
        } else {
            // The only other program that every system has.
            assert_eq!(command, r#"/bin/sh -c 'kill -HUP "$MAINPID"'"#);
        }
    }
}

#[test]
fn variables_are_those_of_the_program() {
    let (unit, default) = (read(UNIT), read("deploy/packages/default"));
    let manual = output(program().arg("man")).replace("\\-", "-");
    let help = output(program().arg("--help"));
    let environment = settings(&unit, "Environment");
    let commented = default.lines().chain(unit.lines()).filter_map(|line| line.strip_prefix("#")).map(str::trim);
    let assigned = commented.map(str::to_owned).chain(environment).filter(|line| !line.contains(' '));
    let names: Vec<_> = assigned.filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    let names: Vec<_> = names.iter().filter(|name| name.contains('_') && name.to_uppercase() == **name).collect();
    assert!(names.iter().any(|name| *name == "CLERK_SECRET_KEY_FILE"), "{names:?}");
    assert!(names.iter().any(|name| *name == "CLERK_EXPORTER_CONFIG_FILE"), "{names:?}");
    for name in names {
        let is_known = help.contains(&format!("[env: {name}=")) || manual.contains(name.as_str());
        assert!(is_known, "{name} is no variable of the program");
    }
}

#[test]
fn user_and_key_folder_are_those_of_the_packages() {
    let unit = read(UNIT);
    assert_eq!(settings(&unit, "User"), ["clerk-exporter"]);
    assert_eq!(settings(&unit, "DynamicUser"), ["yes"]);
    assert_eq!(settings(&unit, "EnvironmentFile"), ["-/etc/default/clerk-exporter"]);
    assert_eq!(settings(&unit, "LoadCredential"), ["clerk:/etc/clerk-exporter/keys"]);
    assert_eq!(settings(&unit, "Environment"), ["CLERK_SECRET_KEY_FILE=%d/clerk_secret_key"]);
    assert_eq!(settings(&unit, "StateDirectory"), ["clerk-exporter"]);
    let user = "u clerk-exporter - \"Clerk exporter\" -";
    assert!(read("deploy/packages/sysusers.conf").lines().any(|line| line == user));
    assert!(read("deploy/packages/rpm/pre").contains(user));
    for path in ["/etc/clerk-exporter", "/etc/clerk-exporter/keys", "/etc/default/clerk-exporter"] {
        assert!(read("deploy/packages/nfpm.yaml").contains(&format!("dst: {path}\n")), "{path}");
    }
    // No page on the web that may not exist, but the manual that the packages contain.
    for file in [UNIT, "deploy/systemd/clerk-exporter.socket"] {
        assert_eq!(settings(&read(file), "Documentation"), ["man:clerk-exporter(1)"], "{file}");
    }
}

#[test]
fn documented_paths_are_those_of_the_unit() {
    const PLACES: &[&str] = &[
        "/etc/clerk-exporter",
        "/etc/clerk-exporter/clerk-exporter.yml",
        "/etc/clerk-exporter/keys",
        "/etc/default/clerk-exporter",
        "/run/credentials/clerk-exporter.service",
    ];
    let is_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    for file in ["docs/install.md", UNIT, "deploy/packages/default", "deploy/packages/clerk-exporter.yml"] {
        let text = read(file);
        for start in ["/etc/clerk-exporter", "/etc/default/", "/run/credentials/"] {
            for (at, _) in text.match_indices(start) {
                // Images and examples of containers have paths of their own.
                let rest = &text[at..];
                let path = rest[..rest.find(|c| !is_path(c)).unwrap_or(rest.len())].trim_end_matches(['.', '/']);
                let folder = path.rsplit_once('/').unwrap().0;
                let is_key = folder == "/etc/clerk-exporter/keys";
                let is_credential = path.starts_with("/run/credentials/clerk-exporter.service/clerk_");
                let is_in_container = path == "/etc/clerk-exporter.yml";
                assert!(PLACES.contains(&path) || is_key || is_credential || is_in_container, "{file}: {path}");
            }
        }
    }
}

#[test]
fn example_of_the_packages_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = read("deploy/packages/clerk-exporter.yml");
    for name in ["production", "staging"] {
        let key = folder.path().join(name);
        fs::write(&key, format!("sk_test_{name}NotARealKeyAtAll")).unwrap();
        let credential = format!("/run/credentials/clerk-exporter.service/clerk_{name}\n");
        let file = format!("/etc/clerk-exporter/keys/{name}\n");
        let line = format!("{}\n", key.display());
        assert!(text.contains(&format!(": {credential}")) || text.contains(&format!(": {file}")), "{name}");
        text = text.replace(&format!(": {credential}"), &format!(": {line}"));
        text = text.replace(&format!(": {file}"), &format!(": {line}"));
    }
    let path = folder.path().join("clerk-exporter.yml");
    fs::write(&path, text).unwrap();
    let said = output(program().env_clear().arg("--config.file").arg(&path).arg("--config.check"));
    assert!(said.contains("Configuration is valid."), "{said}");
}
