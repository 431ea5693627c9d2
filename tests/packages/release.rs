//! The scripts of a release, on copies of the files that they read.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{output, root, run};

/// What release-check and release-notes read.
const READ: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.toml",
    "Dockerfile",
    "deploy/compose/production/compose.yml",
    "deploy/helm/clerk-exporter/Chart.yaml",
    "deploy/helm/clerk-exporter/README.md",
    "deploy/kubernetes/base/kustomization.yaml",
    "deploy/kubernetes/gateway/kustomization.yaml",
    "deploy/kubernetes/overlays/example/kustomization.yaml",
    "docs/deploy.md",
    "docs/install.md",
    "docs/releasing.md",
    "scripts/release-check",
    "scripts/release-notes",
];

/// A copy in which the changelog has a section for the version.
fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in READ {
        let copy = folder.path().join(path);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(root().join(path), copy).unwrap();
    }
    let changelog = format!(
        "# Changelog\n\n## [Unreleased]\n\n## [{VERSION}] - 2026-12-01\n\n### Added\n\n- A thing.\n\n## [0.0.1]\n\nOld.\n"
    );
    fs::write(folder.path().join("CHANGELOG.md"), changelog).unwrap();
    folder
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn script(tree: &Path, name: &str, arguments: &[&str]) -> (bool, String, String) {
    run(Command::new(tree.join("scripts").join(name)).args(arguments).env_remove("GITHUB_REPOSITORY"))
}

fn replace(tree: &Path, path: &str, from: &str, to: &str) {
    let text = fs::read_to_string(tree.join(path)).unwrap();
    assert!(text.contains(from), "{path} does not contain {from}");
    fs::write(tree.join(path), text.replace(from, to)).unwrap();
}

#[test]
fn files_of_this_tree_name_one_version() {
    assert_eq!(output(&mut Command::new(root().join("scripts/release-check"))), format!("{VERSION}\n"));
}

#[test]
fn tag_has_to_be_the_version() {
    let tree = tree();
    let (passed, version, errors) = script(tree.path(), "release-check", &[&format!("v{VERSION}")]);
    assert!(passed, "{errors}");
    assert_eq!(version, format!("{VERSION}\n"));
    for tag in [VERSION, "v0.0.1", "v", "", "refs/tags/v0.1.0"] {
        let (passed, _, errors) = script(tree.path(), "release-check", &[tag]);
        assert!(!passed && errors.contains(&format!("has to be v{VERSION}")), "{tag}: {errors}");
    }
}

#[test]
fn every_file_that_names_the_version_is_compared() {
    for path in
        READ.iter().filter(|path| !path.starts_with("scripts/") && **path != "CHANGELOG.md" && **path != "Cargo.toml")
    {
        let tree = tree();
        replace(tree.path(), path, VERSION, "7.7.7");
        let (passed, _, errors) = script(tree.path(), "release-check", &[]);
        assert!(!passed && errors.contains(path) && errors.contains("7.7.7"), "{path}: {errors}");
    }
    // A crate's dependency on another one.
    let tree = tree();
    let line = format!("clerk-quota = {{ version = \"{VERSION}\"");
    replace(tree.path(), "Cargo.toml", &line, "clerk-quota = { version = \"7.7.7\"");
    assert!(!script(tree.path(), "release-check", &[]).0);
}

/// Chart and packages would name a repository that they do not come from.
#[test]
fn repository_has_to_be_the_one_of_the_manifest() {
    let tree = tree();
    let check = |repository: &str| {
        let mut command = Command::new(tree.path().join("scripts/release-check"));
        run(command.arg(format!("v{VERSION}")).env("GITHUB_REPOSITORY", repository))
    };
    assert!(check(env!("CARGO_PKG_REPOSITORY").strip_prefix("https://github.com/").unwrap()).0);
    let (passed, _, errors) = check("someone/fork");
    assert!(!passed && errors.contains("someone/fork"), "{errors}");
}

#[test]
fn notes_are_the_section_of_the_changelog() {
    let tree = tree();
    let (passed, notes, errors) = script(tree.path(), "release-notes", &[VERSION]);
    assert!(passed, "{errors}");
    assert_eq!(notes, "### Added\n\n- A thing.\n");
    for missing in ["9.9.9", "Unreleased", "0.1", "0.1.00"] {
        let (passed, _, errors) = script(tree.path(), "release-notes", &[missing]);
        assert!(!passed && errors.contains(missing), "{missing}: {errors}");
    }
    replace(tree.path(), "CHANGELOG.md", VERSION, "8.8.8");
    assert!(!script(tree.path(), "release-check", &[&format!("v{VERSION}")]).0);
}
