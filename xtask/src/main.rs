//! `cargo xtask generate`: see the library.

use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "a command for a person")]
fn main() -> ExitCode {
    if std::env::args().skip(1).collect::<Vec<_>>() != ["generate"] {
        eprintln!(
            "cargo xtask generate    writes docs/metrics.md, the rules for the Prometheus operator and Grafana, the dashboards, and the copies of chart and mixin"
        );
        return ExitCode::from(2);
    }
    match generate() {
        Ok(count) => {
            println!("{count} files written");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> anyhow::Result<usize> {
    let files = xtask::generated()?;
    for file in &files {
        let path = xtask::root().join(&file.path);
        fs::write(&path, &file.content).with_context(|| path.display().to_string())?;
    }
    Ok(files.len())
}
