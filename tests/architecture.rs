//! The rooms of the crate and what each may know of the others: imports go downwards only.
//!
//! Reads the source as text. Tests inside a room may use lower rooms that the room itself may not, but none above.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each room and the rooms that it may import.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("secret", &[]),
    ("upstream", &["secret"]),
    ("store", &["secret"]),
    ("webhook", &["secret"]),
    ("cache", &["secret", "store", "webhook"]),
    ("config", &["secret", "upstream", "store", "webhook", "cache"]),
    ("outbound", &["secret", "upstream", "store"]),
    ("clerk", &["outbound", "secret", "upstream"]),
    ("gateway", &["cache", "clerk", "outbound", "secret", "upstream", "webhook"]),
    ("probe", &["outbound", "upstream", "secret"]),
    ("metrics", &["cache", "gateway", "outbound", "store", "webhook"]),
    ("site", &["metrics", "probe", "gateway"]),
    (
        "app",
        &[
            "cache", "clerk", "config", "gateway", "metrics", "outbound", "probe", "secret", "site", "store",
            "webhook", "upstream",
        ],
    ),
    ("cli", &["app", "clerk", "config", "metrics", "outbound", "probe", "secret", "site", "upstream"]),
];

/// Longest file, in lines.
const MAX_LINES: usize = 500;

/// A source file: its path below `src`, and its text without comments, apart from its tests.
struct Source {
    path: String,
    lines: usize,
    code: String,
    tests: String,
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
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let sources: Vec<_> = files.iter().map(|file| read(&root, file)).collect();
    assert!(sources.len() > 50, "the sources were not found");
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

fn read(root: &Path, file: &Path) -> Source {
    let text = std::fs::read_to_string(file).unwrap();
    let without_comments: String = text.lines().map(|line| format!("{}\n", before_comment(line))).collect();
    let (code, tests) = match without_comments.split_once("#[cfg(test)]\nmod tests") {
        Some((code, tests)) => (code.to_owned(), tests.to_owned()),
        None => (without_comments, String::new()),
    };
    let path = file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    Source { path, lines: text.lines().count(), code, tests }
}

/// The line without a comment at its end; `//` of a URL in a text is none.
fn before_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
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

#[test]
fn rooms_import_only_rooms_below_them() {
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !matches!(source.path.as_str(), "lib.rs" | "main.rs")) {
        let room = source.room();
        let Some(allowed) = allowed.get(room) else {
            wrong.push(format!("{}: the room `{room}` has no place in the map of this test", source.path));
            continue;
        };
        for other in rooms(&source.code) {
            if other != room && !allowed.contains(&other.as_str()) {
                wrong.push(format!("{}: `{room}` may not import `{other}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_tests_of_a_room_import_no_room_above_it() {
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    for source in sources() {
        let room = source.room();
        for other in rooms(&source.tests).into_iter().filter(|other| other != room) {
            let above = allowed.get(other.as_str()).is_some_and(|below| below.contains(&room));
            assert!(!above, "{}: tests of `{room}` import `{other}`", source.path);
        }
    }
}

#[test]
fn the_map_has_no_circles() {
    let mut below: BTreeSet<&str> = BTreeSet::new();
    for (room, imports) in ALLOWED {
        for import in imports {
            assert!(below.contains(import), "`{room}` imports `{import}`, which stands below it in the map");
        }
        below.insert(room);
    }
}

#[test]
fn what_is_known_in_one_place_stays_there() {
    // What is looked for, where it may be, and why.
    let places: [(&str, &[&str], &str); 13] = [
        ("tokio_cron_scheduler", &["probe/schedule.rs"], "its traps are handled in one file"),
        ("prometheus_client", &["metrics/"], "numbers are kept in the ledger"),
        ("reqwest::", &["upstream/"], "clients are built without redirects, with timeouts and roots"),
        ("redis::", &["store/"], "timeouts and the breaker are set in one place"),
        ("quick_cache", &["cache/"], "it knows neither time nor invalidation; the cache around it does"),
        ("hyper_rustls", &["upstream/"], "clients are built without redirects, with timeouts and roots"),
        ("indicatif", &["cli/"], "only commands have a terminal"),
        ("csv::", &["cli/"], "only commands write files"),
        ("serde_saphyr", &["config/"], "the YAML library may be exchanged"),
        ("SystemTime::now", &["webhook/mod.rs"], "there is one clock"),
        ("std::process::exit", &["app/signals.rs"], "the process ends in good order"),
        (".expose_secret(", &["secret/"], "secrets are read in one place"),
        (
            ".expose()",
            &["secret/", "config/", "webhook/secrets.rs", "store/", "cache/seal.rs"],
            "secrets are read in one place",
        ),
    ];
    for source in sources() {
        for (name, allowed, reason) in places {
            let is_allowed = allowed.iter().any(|place| source.path.starts_with(place));
            let is_there = if name.starts_with('.') { source.code.contains(name) } else { source.names(name) };
            assert!(is_allowed || !is_there, "{}: `{name}` belongs into {allowed:?}: {reason}", source.path);
        }
    }
}

#[test]
fn no_file_is_too_long_to_be_read() {
    for source in sources() {
        assert!(source.lines <= MAX_LINES, "{} has {} lines", source.path, source.lines);
    }
}

#[test]
fn paths_are_found_in_groups_and_alone() {
    let code = "use crate::{a::{B, C}, d, e::F};\nuse crate::g::H; let x = crate::i::J; $crate::k!();";
    let expected = ["a", "d", "e", "g", "i", "k"].map(str::to_owned);
    assert_eq!(rooms(code), BTreeSet::from(expected));
    assert_eq!(before_comment("let url = \"https://x\"; // crate::y"), "let url = \"https://x\"; ");
}
