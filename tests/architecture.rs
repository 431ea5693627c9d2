//! The rooms of the program, and what each may know of the others: the list in `src/lib.rs` is the map, and imports go
//! upwards in it only. What the crates may know of each other stands in their manifests, and cargo holds it.
//!
//! Reads the sources as text.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Longest file, in lines.
const MAX_LINES: usize = 500;

/// A source file: its crate, its path below `src`, and its text without comments.
struct Source {
    crate_name: String,
    path: String,
    lines: usize,
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    /// Whether a name stands alone in the code, not as a part of a longer one.
    fn names(&self, name: &str) -> bool {
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        self.code.match_indices(name).any(|(at, _)| !is_part(self.code[..at].chars().next_back()))
    }

    /// The path with the crate in front, for messages and tables.
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
    let code: String = text.lines().map(|line| format!("{}\n", before_comment(line))).collect();
    let path = file.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
    Source { crate_name: crate_name.to_owned(), path, lines: text.lines().count(), code }
}

/// The line without a comment at its end; `//` of a URL in a text is none.
fn before_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// The rooms that a `lib.rs` lists, in its order: those that a line ``//! - [`name`]: …`` or ``//! - `name` …`` is for.
fn map(lib: &str) -> Vec<String> {
    let (_, list) = lib.split_once("//! # The rooms").expect("a list of rooms");
    let list = list.split("//! # ").next().unwrap();
    let lines = list.lines().filter_map(|line| line.strip_prefix("//! - "));
    lines.map(|line| line.split('`').nth(1).unwrap().to_owned()).collect()
}

/// The modules that a `lib.rs` declares.
fn modules(lib: &str) -> BTreeSet<String> {
    let lines = lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    lines.map(|line| line.trim_end_matches(';').to_owned()).collect()
}

/// The rooms that `crate::...` paths lead to, in groups such as `crate::{a::B, c}` too.
fn rooms(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        // `$crate::` of macros is the same.
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

/// Each crate whose `lib.rs` is a map, with the text of that file.
fn maps() -> Vec<(&'static str, String)> {
    let lib = |crate_name, path: &str| (crate_name, std::fs::read_to_string(root().join(path)).unwrap());
    vec![lib("clerk-exporter", "src/lib.rs"), lib("clerk-client", "crates/clerk-client/src/lib.rs")]
}

#[test]
fn rooms_import_only_rooms_above_them_in_the_map() {
    let mut wrong = Vec::new();
    for (crate_name, lib) in maps() {
        let map = map(&lib);
        assert_eq!(modules(&lib), map.iter().cloned().collect(), "the list of rooms of {crate_name}");
        let place = |room: &str| map.iter().position(|other| other == room);
        for source in sources().iter().filter(|source| source.crate_name == crate_name) {
            let Some(own) = place(source.room()) else { continue };
            for other in rooms(&source.code) {
                if place(&other).is_some_and(|other| other > own) {
                    wrong.push(format!("{}: `{}` may not import `{other}`", source.full_path(), source.room()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_known_in_one_place_stays_there() {
    // What is looked for, where it may be, and why.
    let places: [(&str, &[&str], &str); 15] = [
        ("tokio_cron_scheduler", &["clerk-exporter/probe/schedule.rs"], "its traps are handled in one file"),
        ("prometheus_client", &["clerk-exporter/metrics/"], "numbers are kept in the ledger"),
        ("reqwest::", &["clerk-client/upstream/"], "clients are built without redirects, with timeouts and roots"),
        ("redis::", &["clerk-client/store/", "clerk-test-support/"], "timeouts and the breaker are set in one place"),
        ("quick_cache", &["clerk-client/cache/"], "it knows neither time nor invalidation; the cache around it does"),
        ("hyper_rustls", &["clerk-client/upstream/"], "clients are built without redirects, with timeouts and roots"),
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
        ("std::process::exit", &["clerk-exporter/app/signals.rs"], "the process ends in good order"),
        (".expose_secret(", &["clerk-client/secret/", "prometheus-web/web_config/"], "secrets are read in one place"),
        (
            ".expose()",
            &[
                "clerk-client/secret/",
                "clerk-client/webhook/secrets.rs",
                "clerk-client/store/",
                "clerk-client/cache/seal.rs",
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
            assert!(is_allowed || !is_there, "{path}: `{name}` belongs into {allowed:?}: {reason}");
        }
    }
}

#[test]
fn the_quota_crate_is_pure() {
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
fn no_file_is_too_long_to_be_read() {
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
