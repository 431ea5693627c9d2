//! The names of repository and image: all follow from `repository` in Cargo.toml.

use std::fs;

use crate::{files_below, root};

/// Words after a prefix, up to what cannot be in a repository's or an image's name.
fn names_after<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    let rests = text.match_indices(prefix).map(|(at, _)| &text[at + prefix.len()..]);
    rests.map(|rest| &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]).collect()
}

/// The first two parts of a path: owner and name.
fn owner_and_name(path: &str) -> String {
    path.trim_end_matches(['.', '/']).split('/').take(2).collect::<Vec<_>>().join("/")
}

#[test]
fn repository_and_image_have_one_name() {
    let repository = env!("CARGO_PKG_REPOSITORY").strip_prefix("https://github.com/").unwrap();
    let mut found = (0, 0);
    let mut wrong = Vec::new();
    let folders =
        [".github", "alerts", "crates", "dashboards", "deploy", "docs", "examples", "scripts", "src", "tests", "xtask"];
    let below = folders.iter().flat_map(|folder| {
        let files = files_below(&root().join(folder));
        files.into_iter().map(move |file| root().join(folder).join(file))
    });
    let top = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    for path in below.chain(top) {
        // Dependencies and their addresses.
        if path.components().any(|part| part.as_os_str() == "node_modules") || path.ends_with("Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for name in names_after(&text, "github.com/").into_iter().map(owner_and_name) {
            // Other projects have other names.
            if name.ends_with("/clerk-exporter") || name.starts_with("clerk-exporter/") {
                found.0 += 1;
                if name != repository {
                    wrong.push(format!("{}: github.com/{name}", path.display()));
                }
            }
        }
        for name in names_after(&text, "ghcr.io/").into_iter().filter(|name| !name.is_empty()) {
            // Placeholders.
            if name.starts_with("OWNER/NAME") {
                continue;
            }
            found.1 += 1;
            if owner_and_name(name) != repository {
                wrong.push(format!("{}: ghcr.io/{name}", path.display()));
            }
        }
    }
    assert!(found.0 > 20 && found.1 >= 5, "{found:?}");
    assert!(wrong.is_empty(), "these differ from `repository` of Cargo.toml:\n{}", wrong.join("\n"));
}
