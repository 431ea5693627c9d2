//! The log: to standard error, logfmt or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::{LogFormat, LogLevel};
use super::log_format::Lines;

/// The published crates of this workspace, as they appear in the targets of log lines.
const CRATES: [&str; 7] = [
    "clerk_client",
    "clerk_exporter",
    "clerk_quota",
    "clerk_simulator",
    "file_fingerprint",
    "prometheus_web",
    "ratelimit_headers",
];

/// Starts logging. Does nothing if there is a log already.
pub(super) fn start(level: LogLevel, format: LogFormat) {
    let lines = tracing_subscriber::fmt::layer().event_format(Lines(format)).with_writer(std::io::stderr);
    let started = tracing_subscriber::registry().with(filter(level)).with(lines).try_init();
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started by somebody else");
    }
}

/// Other libraries speak up only when something is wrong, or when everything is wanted.
fn filter(level: LogLevel) -> EnvFilter {
    let ours = |level: &str| {
        CRATES.iter().fold("warn".to_owned(), |filter, crate_name| format!("{filter},{crate_name}={level}"))
    };
    EnvFilter::new(match level {
        LogLevel::Trace => "trace".to_owned(),
        LogLevel::Debug => ours("debug"),
        LogLevel::Info => ours("info"),
        LogLevel::Warn => "warn".to_owned(),
        LogLevel::Error => "error".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_crate_of_the_workspace_is_in_the_filter() {
        let folders = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/crates")).unwrap();
        let folders = folders
            .map(|folder| folder.unwrap().path())
            .filter(|folder| !std::fs::read_to_string(folder.join("Cargo.toml")).unwrap().contains("publish = false"));
        let names = folders.map(|folder| folder.file_name().unwrap().to_str().unwrap().replace('-', "_"));
        let mut expected: Vec<_> = names.chain([env!("CARGO_PKG_NAME").replace('-', "_")]).collect();
        expected.sort();
        assert_eq!(CRATES.map(str::to_owned).to_vec(), expected);
    }
}
