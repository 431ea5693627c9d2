//! Generated files of this repository: `cargo xtask generate` writes them, and a test compares them.

mod dashboards;
mod grafana;
mod mixin;
mod prometheus_rule;
mod promql;
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clerk_exporter::metrics::catalogue;

/// A generated file.
#[derive(Debug)]
pub struct Generated {
    /// Path relative to the root of the repository.
    pub path: PathBuf,
    /// The file's content.
    pub content: String,
}

/// A chart can only contain files of its own folder: rules and dashboards are copied there.
const CHART_FILES: &str = "deploy/helm/clerk-exporter/files";

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// All generated files.
///
/// # Errors
/// Returns an error if a source file cannot be read.
pub fn generated() -> anyhow::Result<Vec<Generated>> {
    let mut files = vec![
        Generated { path: "docs/metrics.md".into(), content: catalogue::markdown() },
        Generated { path: prometheus_rule::PATH.into(), content: prometheus_rule::make(root())? },
        Generated { path: grafana::PATH.into(), content: grafana::make(root())? },
        Generated { path: mixin::PATH.into(), content: mixin::make(root())? },
    ];
    for (name, board) in dashboards::all() {
        let content = format!("{board:#}\n");
        for folder in [CHART_FILES, mixin::DASHBOARDS] {
            files.push(Generated { path: format!("{folder}/{name}.json").into(), content: content.clone() });
        }
        files.push(Generated { path: format!("dashboards/{name}.json").into(), content });
    }
    let rules = fs::read_to_string(root().join(rules::RULES)).context(rules::RULES)?;
    files.push(Generated { path: format!("{CHART_FILES}/clerk.rules.yml").into(), content: rules });
    Ok(files)
}
