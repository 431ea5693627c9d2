//! The log on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::{LogFormat, LogLevel};
use super::log_format::Lines;

/// The crates of this workspace, as targets of log events.
const CRATES: [&str; 7] = [
    "clerk_client",
    "clerk_exporter",
    "clerk_quota",
    "clerk_simulator",
    "file_fingerprint",
    "prometheus_web",
    "ratelimit_headers",
];

/// Starts logging, unless the process has a subscriber.
pub(super) fn start(level: LogLevel, format: LogFormat) {
    let lines = tracing_subscriber::fmt::layer().event_format(Lines(format)).with_writer(std::io::stderr);
    let started = tracing_subscriber::registry().with(filter(level)).with(lines).try_init();
    if let Err(error) = started {
        tracing::debug!(%error, "a log subscriber is already set");
    }
}

/// Other libraries log warnings only, except at level trace.
fn filter(level: LogLevel) -> EnvFilter {
    let own = |level: &str| {
        CRATES.iter().fold("warn".to_owned(), |filter, crate_name| format!("{filter},{crate_name}={level}"))
    };
    EnvFilter::new(match level {
        LogLevel::Trace => "trace".to_owned(),
        LogLevel::Debug => own("debug"),
        LogLevel::Info => own("info"),
        LogLevel::Warn => "warn".to_owned(),
        LogLevel::Error => "error".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_filter_has_every_published_crate() {
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
