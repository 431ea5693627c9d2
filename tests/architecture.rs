//! The modules of the crates and their dependencies. The lists in `src/lib.rs` and in the client's `lib.rs` are
//! compared with the imports and with the diagrams in `docs/architecture.md`. Dependencies between crates are in their
//! manifests, which cargo enforces; the diagram of the crates is compared with these.
//!
//! Reads the sources as text. Tests in a module may use modules above it that the module itself does not use, but none
//! below.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Maximum lines per file.
const MAX_LINES: usize = 500;

/// A source file: its crate, its path below `src`, and its code and tests without comments.
struct Source {
    crate_name: String,
    path: String,
    lines: usize,
    code: String,
    tests: String,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    /// Whether the code contains the name as a whole word.
    fn names(&self, name: &str) -> bool {
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        self.code.match_indices(name).any(|(at, _)| !is_part(self.code[..at].chars().next_back()))
    }

    /// The path with the crate name in front.
    fn full_path(&self) -> String {
        format!("{}/{}", self.crate_name, self.path)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sources of all crates of the workspace.
fn sources() -> Vec<Source> {
    let mut folders = vec![("clerk-exporter".to_owned(), root().join("src"))];
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let path = entry.unwrap().path();
        folders.push((path.file_name().unwrap().to_str().unwrap().to_owned(), path.join("src")));
    }
    let mut sources = Vec::new();
    for (crate_name, folder) in folders {
        let mut files = Vec::new();
        collect(&folder, &mut files);
        assert!(!files.is_empty(), "{crate_name} has no sources");
        sources.extend(files.iter().map(|file| read(&crate_name, &folder, file)));
    }
    assert!(sources.len() > 150, "the sources were not found");
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(crate_name: &str, folder: &Path, file: &Path) -> Source {
    let text = std::fs::read_to_string(file).unwrap();
    let without_comments: String = text.lines().map(|line| format!("{}\n", before_comment(line))).collect();
    let (code, tests) = match without_comments.split_once("#[cfg(test)]\nmod tests") {
        Some((code, tests)) => (code.to_owned(), tests.to_owned()),
        None => (without_comments, String::new()),
    };
    let path = file.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
    Source { crate_name: crate_name.to_owned(), path, lines: text.lines().count(), code, tests }
}

/// The line without a trailing comment; `//` in a URL is not a comment.
fn before_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// The modules that a `lib.rs` lists, in order, each with its listed dependencies.
fn map(lib: &str) -> Vec<(String, BTreeSet<String>)> {
    let (_, list) = lib.split_once("//! # Modules").expect("a list of modules");
    let list = list.split("//! # ").next().unwrap();
    let list: Vec<_> = list.lines().filter_map(|line| line.strip_prefix("//! ")).collect();
    let entries = list.join(" ");
    let entries = entries.split("- ").filter(|entry| entry.starts_with(['[', '`']));
    entries
        .map(|entry| {
            let names = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
            let uses = entry.split_once("Uses ").map_or_else(Vec::new, |(_, uses)| names(uses));
            (names(entry)[0].clone(), uses.into_iter().collect())
        })
        .collect()
}

/// The modules that a `lib.rs` declares.
fn modules(lib: &str) -> BTreeSet<String> {
    let lines = lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    lines.map(|line| line.trim_end_matches(';').to_owned()).collect()
}

/// The modules in `crate::...` paths, including groups such as `crate::{a::B, c}`.
fn rooms(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        // `$crate::` in macros is equivalent.
        let Some(group) = rest.strip_prefix('{') else {
            rooms.insert(first_name(rest));
            continue;
        };
        let mut depth = 1;
        let mut start = 0;
        for (index, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && character == ',') {
                rooms.insert(first_name(group[start..index].trim()));
                start = index + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    rooms.remove("");
    rooms
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The `lib.rs` of each crate with a list of modules.
fn maps() -> Vec<(&'static str, String)> {
    let lib = |crate_name, path: &str| (crate_name, std::fs::read_to_string(root().join(path)).unwrap());
    vec![lib("clerk-exporter", "src/lib.rs"), lib("clerk-client", "crates/clerk-client/src/lib.rs")]
}

#[test]
fn imports_between_modules_match_the_list() {
    for (crate_name, lib) in maps() {
        let map = map(&lib);
        let names: Vec<_> = map.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(modules(&lib), names.iter().cloned().collect(), "the list of modules of {crate_name}");
        let sources = sources();
        for (place, (room, said)) in map.iter().enumerate() {
            let mut used = BTreeSet::new();
            for source in sources.iter().filter(|it| it.crate_name == crate_name && it.room() == room) {
                used.extend(rooms(&source.code).into_iter().filter(|other| other != room && names.contains(other)));
                for other in rooms(&source.tests).into_iter().filter(|other| other != room) {
                    let is_below = names[place..].contains(&other);
                    assert!(!is_below, "{}: tests of `{room}` import `{other}`", source.full_path());
                }
            }
            assert_eq!(&used, said, "imports of `{room}` in {crate_name}, and its line in lib.rs");
            let above = &names[..place];
            assert!(said.iter().all(|other| above.contains(other)), "`{room}` uses a module that is listed below it");
        }
    }
}

#[test]
fn diagrams_match_the_list() {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for (crate_name, lib) in maps() {
        let edges = |(room, uses): (String, BTreeSet<String>)| uses.into_iter().map(move |used| (room.clone(), used));
        let expected: BTreeSet<_> = map(&lib).into_iter().flat_map(edges).collect();
        assert_eq!(picture(&page, &format!("Modules of {crate_name}")), expected, "{crate_name}");
    }
    assert_eq!(picture(&page, "The crates"), manifests(), "the crates");
}

/// The arrows of the first diagram below this heading.
fn picture(page: &str, heading: &str) -> BTreeSet<(String, String)> {
    let (_, below) = page.split_once(&format!("## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let (_, below) = below.split_once("```mermaid\n").expect("a picture");
    let (picture, _) = below.split_once("```").unwrap();
    let ends = |text: &str| text.split('&').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
    let arrows = picture.lines().filter_map(|line| line.split_once(" --> "));
    let arrows = arrows.flat_map(|(from, to)| {
        let to = ends(to);
        ends(from).into_iter().flat_map(move |from| to.clone().into_iter().map(move |to| (from.clone(), to)))
    });
    arrows.collect()
}

/// The dependencies between the published crates of the workspace, from the manifests.
fn manifests() -> BTreeSet<(String, String)> {
    let folders = std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let manifests: Vec<_> = folders.chain([root().to_owned()]).map(|folder| folder.join("Cargo.toml")).collect();
    let texts: Vec<_> = manifests.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let texts: Vec<_> = texts.iter().filter(|text| !text.contains("publish = false")).collect();
    let name = |text: &str| text.split("name = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let package = |text: &str| name(&text[text.find("[package]").unwrap()..]);
    let ours: BTreeSet<_> = texts.iter().map(|text| package(text)).collect();
    let mut edges = BTreeSet::new();
    for text in &texts {
        let (_, dependencies) = text.split_once("\n[dependencies]\n").unwrap_or_default();
        for line in dependencies.lines().take_while(|line| !line.starts_with('[')) {
            let used = line.split(['.', ' ']).next().unwrap();
            if ours.contains(used) {
                edges.insert((package(text), used.to_owned()));
            }
        }
    }
    edges
}

#[test]
fn type_names_are_unique_within_a_crate() {
    // It replaces `redis_tier` if the feature is off.
    let sources = sources();
    let mut seen = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path != "cache/no_redis.rs") {
        for line in source.code.lines().map(str::trim_start).filter(|line| line.starts_with("pub")) {
            let words: Vec<_> =
                line.split([' ', '<', '(', '{', ';', ':', ')']).filter(|word| !word.is_empty()).collect();
            let kind = words.iter().position(|word| ["struct", "enum", "trait", "type"].contains(word));
            let Some(name) = kind.filter(|kind| *kind <= 4).and_then(|kind| words.get(kind + 1)) else { continue };
            let before = seen.insert((&source.crate_name, name.to_string()), source.full_path());
            assert!(before.is_none(), "{name} is in {} and in {}", before.unwrap_or_default(), source.full_path());
        }
    }
    assert!(seen.len() > 250, "only {} types", seen.len());
}

#[test]
fn restricted_names_stay_in_their_modules() {
    // The name, where it may occur, and why.
    let places: [(&str, &[&str], &str); 15] = [
        ("tokio_cron_scheduler", &["clerk-exporter/probe/schedule.rs"], "its traps are handled in one file"),
        ("prometheus_client", &["clerk-exporter/metrics/"], "values are stored in the ledger"),
        ("reqwest::", &["clerk-client/transport/"], "clients are built without redirects, with timeouts and roots"),
        (
            "MultiplexedConnection",
            &["clerk-client/redis/", "clerk-test-support/"],
            "timeouts and the breaker are set in one place",
        ),
        (
            "quick_cache",
            &["clerk-client/cache/"],
            "it has neither expiry nor invalidation; the cache around it adds them",
        ),
        ("hyper_rustls", &["clerk-client/transport/"], "clients are built without redirects, with timeouts and roots"),
        ("indicatif", &["clerk-exporter/cli/"], "only commands have a terminal"),
        ("csv::", &["clerk-exporter/cli/"], "only commands write files"),
        ("sfv::", &["ratelimit-headers/"], "headers are read in one place"),
        ("httpdate::", &["ratelimit-headers/", "clerk-simulator/"], "headers are read in one place"),
        (
            "serde_saphyr",
            &["clerk-exporter/config/", "prometheus-web/web_config/"],
            "the YAML library may be exchanged",
        ),
        (
            "SystemTime::now",
            &["clerk-quota/clock.rs", "file-fingerprint/", "clerk-simulator/", "clerk-client/webhook/mod.rs"],
            "there is one clock",
        ),
        ("std::process::exit", &["clerk-exporter/app/signals.rs"], "the process shuts down gracefully"),
        (".expose_secret(", &["clerk-client/secret/", "prometheus-web/web_config/"], "secrets are read in one place"),
        (
            ".expose()",
            &[
                "clerk-client/secret/",
                "clerk-client/webhook/secrets.rs",
                "clerk-client/redis/",
                "clerk-client/cache/encryption.rs",
                "clerk-exporter/config/",
                "clerk-test-support/",
            ],
            "secrets are read in one place",
        ),
    ];
    for source in sources() {
        let path = source.full_path();
        for (name, allowed, reason) in places {
            let is_allowed = allowed.iter().any(|place| path.starts_with(place));
            let is_there = if name.starts_with('.') { source.code.contains(name) } else { source.names(name) };
            assert!(is_allowed || !is_there, "{path}: `{name}` belongs in {allowed:?}: {reason}");
        }
    }
}

#[test]
fn quota_crate_is_pure() {
    let sources = sources();
    let pure = |source: &&Source| {
        matches!(source.crate_name.as_str(), "clerk-quota" | "ratelimit-headers") && source.path != "clock.rs"
    };
    let mut seen = 0;
    for source in sources.iter().filter(pure) {
        for name in
            ["tokio::", "tracing::", "Instant", "SystemTime::now", "std::fs", "std::env", "std::net", "fastrand"]
        {
            assert!(
                !source.names(name),
                "{}: `{name}` in a crate that does no I/O and has no clock",
                source.full_path()
            );
        }
        seen += 1;
    }
    assert!(seen > 15, "only {seen} files");
}

#[test]
fn files_have_at_most_500_lines() {
    for source in sources() {
        assert!(source.lines <= MAX_LINES, "{} has {} lines", source.full_path(), source.lines);
    }
}

#[test]
fn paths_are_found_in_groups_and_alone() {
    let code = "use crate::{a::{B, C}, d, e::F};\nuse crate::g::H; let x = crate::i::J; $crate::k!();";
    let expected = ["a", "d", "e", "g", "i", "k"].map(str::to_owned);
    assert_eq!(rooms(code), BTreeSet::from(expected));
    assert_eq!(before_comment("let url = \"https://x\"; // crate::y"), "let url = \"https://x\"; ");
}
