//! The files of this repository that are made from others: `cargo xtask generate` writes them, and a test compares.

mod dashboards;
mod prometheus_rule;

use std::path::{Path, PathBuf};

use clerk_exporter::metrics::catalogue;

/// A file as it is made.
#[derive(Debug)]
pub struct Generated {
    /// Where it belongs, from the root of the repository on.
    pub path: PathBuf,
    /// What belongs in it.
    pub content: String,
}

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// All files that are made from others.
///
/// # Errors
/// When a file that one is made from cannot be read.
pub fn generated() -> anyhow::Result<Vec<Generated>> {
    let mut files = vec![
        Generated { path: "docs/metrics.md".into(), content: catalogue::markdown() },
        Generated { path: prometheus_rule::PATH.into(), content: prometheus_rule::make(root())? },
    ];
    for (name, board) in dashboards::all() {
        files.push(Generated { path: format!("dashboards/{name}.json").into(), content: format!("{board:#}\n") });
    }
    Ok(files)
}
