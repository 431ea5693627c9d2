//! `docs/dependencies.md` has the direct dependencies of each crate, and no others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The section of what only tests and benches use.
const TESTS: &str = "Tests and benches";

/// The section of what is not used.
const NOT_TAKEN: &str = "Considered and not taken";

/// Names of crates by section: of the page, or of a manifest.
type Sections = BTreeMap<String, BTreeSet<String>>;

fn read(path: &str) -> String {
    let path = xtask::root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The manifests of the workspace, by the name of their crate.
fn manifests() -> BTreeMap<String, Sections> {
    let folders = std::fs::read_dir(xtask::root().join("crates")).unwrap();
    let crates = folders.map(|folder| PathBuf::from("crates").join(folder.unwrap().file_name()));
    let folders = crates.chain([PathBuf::new(), PathBuf::from("xtask")]);
    let manifest = |folder: PathBuf| {
        let text = read(folder.join("Cargo.toml").to_str().unwrap());
        let name = text.split_once("[package]\nname = \"").unwrap().1.split('"').next().unwrap().to_owned();
        (name, dependencies(&text))
    };
    folders.map(manifest).collect()
}

/// The keys below each `[…dependencies]` of a manifest.
fn dependencies(manifest: &str) -> Sections {
    let (mut sections, mut current) = (Sections::new(), String::new());
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            // Those of one platform are among the others.
            let of_platform = section.strip_prefix("target.").and_then(|rest| rest.rsplit('.').next());
            of_platform.unwrap_or(section).clone_into(&mut current);
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) {
            let name = key.split('.').next().unwrap().to_owned();
            sections.entry(current.clone()).or_default().insert(name);
        }
    }
    sections.retain(|section, _| section.ends_with("dependencies") && !section.starts_with("workspace"));
    sections
}

/// The first column of the tables of each `##` section. Every entry has a reason.
fn page() -> Sections {
    let text = read("docs/dependencies.md");
    let sections = text.split("\n## ").skip(1).map(|section| {
        let (name, body) = section.split_once('\n').unwrap();
        let rows = body.lines().filter(|line| line.starts_with("| ") && *line != "| crate | what for |");
        let names = rows.map(|row| {
            let (name, reason) = row.trim_matches(['|', ' ']).split_once(" | ").unwrap_or((row, ""));
            assert!(!reason.is_empty(), "{row}: no reason");
            name.to_owned()
        });
        (name.to_owned(), names.collect())
    });
    sections.collect()
}

#[test]
fn every_direct_dependency_is_listed_with_its_reason() {
    let (manifests, mut page) = (manifests(), page());
    assert!(manifests.len() >= 9 && page.remove(NOT_TAKEN).is_some());
    let of = |sections: &Sections, name: &str| sections.get(name).cloned().unwrap_or_default();
    let normal: BTreeSet<String> = manifests.values().flat_map(|manifest| of(manifest, "dependencies")).collect();
    let tests = manifests.values().flat_map(|manifest| of(manifest, "dev-dependencies"));
    let tests: BTreeSet<String> = tests.filter(|name| !normal.contains(name)).collect();
    let expected = manifests.iter().map(|(name, manifest)| (name.as_str(), of(manifest, "dependencies")));
    for (name, used) in expected.chain([(TESTS, tests)]) {
        let listed = page.remove(name).unwrap_or_else(|| panic!("docs/dependencies.md has no section {name}"));
        let missing: Vec<_> = used.difference(&listed).collect();
        let unused: Vec<_> = listed.difference(&used).collect();
        assert!(missing.is_empty() && unused.is_empty(), "{name}: not listed {missing:?}, not used {unused:?}");
    }
    assert!(page.is_empty(), "sections of no crate: {:?}", page.keys());
}

#[test]
fn dependencies_are_read_from_all_forms_of_a_manifest() {
    let text = "[package]\nname = \"a\"\n\n[dependencies]\n# x = 1\na.workspace = true\nb = { workspace = true }\n\n\
                [target.'cfg(unix)'.dependencies]\nf.workspace = true\n\n\
                [dev-dependencies]\nc-d = \"1\"\n\n[workspace.dependencies]\ne = \"1\"\n";
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let expected = [("dependencies", names(&["a", "b", "f"])), ("dev-dependencies", names(&["c-d"]))];
    assert_eq!(dependencies(text), expected.map(|(section, names)| (section.to_owned(), names)).into());
}
