//! The prose of the project: words that it does without, and errors that say everything once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Words and phrases that have a plainer one: see CONTRIBUTING.md.
const AVOIDED: &[&str] = &[
    "anew",
    "hand on",
    "handed on",
    "hands on",
    "let go",
    "look-up",
    "look-ups",
    "made old",
    "makes old",
    "nobody",
    "of ours",
    "pacer",
    "somebody",
    "under way",
    "whoever",
    "worked off",
];

/// Files that quote others: Clerk, Redis, RFCs, captured bodies, what was renamed, and this list.
const QUOTES: &[&str] = &["CHANGELOG.md", "Cargo.lock", "LICENSE", "tests/prose.rs"];

/// Lines that use such a word as a name: of a user in Redis, of a mailbox.
const NAMES: &[&str] = &["\"nobody\""];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text files of the project, relative to its root.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !matches!(name, "target" | ".git" | "node_modules" | "data" | "corpus" | "sdk") {
                files(&path, found);
            }
        } else if matches!(
            path.extension().and_then(|extension| extension.to_str()),
            Some("rs" | "md" | "yml" | "yaml" | "toml" | "sh" | "tmpl")
        ) {
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
}

fn text_files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(root(), &mut found);
    let read = |path: PathBuf| (path.display().to_string(), fs::read_to_string(root().join(&path)).unwrap());
    found.into_iter().map(read).collect()
}

/// Whether a phrase stands in a text as whole words.
fn contains_phrase(text: &str, phrase: &str) -> bool {
    let is_letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(phrase).any(|(start, _)| {
        !is_letter(text[..start].chars().next_back()) && !is_letter(text[start + phrase.len()..].chars().next())
    })
}

#[test]
fn prose_uses_plain_words() {
    let files = text_files();
    assert!(files.len() > 400, "only {} files found", files.len());
    let mut found = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| !QUOTES.contains(&path.as_str())) {
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !NAMES.iter().any(|name| line.contains(name)))
        {
            let line = line.to_lowercase();
            let words = AVOIDED.iter().filter(|phrase| contains_phrase(&line, phrase));
            found.extend(words.map(|phrase| format!("{path}:{}: {phrase}", index + 1)));
        }
    }
    assert!(found.is_empty(), "write these in plainer words:\n{}", found.join("\n"));
}

#[test]
fn test_names_are_short_and_plain() {
    let mut found = Vec::new();
    for (path, text) in text_files().iter().filter(|(path, _)| path.ends_with(".rs")) {
        let names = text.lines().filter_map(|line| {
            let line = line.trim_start();
            let rest = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "))?;
            let (name, rest) = rest.split_once('(')?;
            rest.starts_with(')').then_some(name)
        });
        let words = |name: &str| name.split('_').any(|word| matches!(word, "nobody" | "somebody" | "whoever"));
        found.extend(names.filter(|name| name.len() > 66 || words(name)).map(|name| format!("{path}: {name}")));
    }
    assert!(found.is_empty(), "rename these:\n{}", found.join("\n"));
}

/// An error whose text holds that of its source says it twice wherever the chain is printed.
#[test]
fn no_error_text_contains_its_source() {
    let mut found = Vec::new();
    for (path, text) in text_files().iter().filter(|(path, _)| path.contains("src/")) {
        let variants = text.split("#[error(").skip(1);
        for variant in variants {
            let (message, fields) = variant.split_once(")]\n").unwrap_or((variant, ""));
            let fields = fields.split("\n}\n").next().unwrap_or_default();
            // Up to the next variant, which has an attribute of its own.
            let fields =
                fields.split("\n    ///").take_while(|part| !part.trim_start().starts_with('#')).collect::<String>();
            let has_source = fields.contains("#[from]") || fields.contains("#[source]") || fields.contains(" source: ");
            let repeats = message.contains("{0}") || message.contains("{source") || message.contains("{error");
            if has_source && repeats {
                found.push(format!("{path}: {}", message.trim()));
            }
        }
    }
    assert!(found.is_empty(), "leave the source out of these texts:\n{}", found.join("\n"));
}
