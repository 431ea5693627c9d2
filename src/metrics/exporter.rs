//! Metrics of the program itself: what it was built from, its configuration, its process.

use std::fmt::Error;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::catalogue as families;
use super::encode::{Number, gauge, seconds_counter};
use clerk_quota::Moment;
use clerk_quota::clock::Clock;

/// The state of the configuration, shared with whoever loads it.
#[derive(Debug)]
pub struct ConfigStatus(ArcSwap<Loaded>);

#[derive(Debug, Clone, Copy)]
struct Loaded {
    successful: bool,
    succeeded_at: Moment,
    low_threshold: f64,
}

impl ConfigStatus {
    /// The status after the first successful load.
    #[must_use]
    pub fn new(at: Moment, low_threshold: f64) -> Self {
        Self(ArcSwap::from_pointee(Loaded { successful: true, succeeded_at: at, low_threshold }))
    }

    /// A configuration was loaded and is in force.
    pub fn succeeded(&self, at: Moment, low_threshold: f64) {
        self.0.store(Arc::new(Loaded { successful: true, succeeded_at: at, low_threshold }));
    }

    /// A configuration was refused; the one before stays in force.
    pub fn failed(&self) {
        let loaded = **self.0.load();
        self.0.store(Arc::new(Loaded { successful: false, ..loaded }));
    }
}

/// Version and origin of this build.
pub mod build {
    /// Version of the crate.
    pub const VERSION: &str = env!("CARGO_PKG_VERSION");
    /// Commit that the build was told of, else "unknown".
    pub const REVISION: &str = match option_env!("CLERK_EXPORTER_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    };
    /// Oldest Rust that builds this version.
    pub const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");
}

/// Encodes the metrics of the program itself.
#[derive(Debug)]
pub(super) struct ExporterCollector {
    pub status: Arc<ConfigStatus>,
    pub clock: Arc<Clock>,
}

impl Collector for ExporterCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let encoder = &mut encoder;
        let loaded = **self.status.0.load();
        let build = [build::VERSION.into(), build::REVISION.into(), build::RUST_VERSION.into()];
        gauge(encoder, families::LOW_THRESHOLD, [([], Number::Real(loaded.low_threshold))].into_iter())?;
        gauge(encoder, families::BUILD_INFO, [(build, Number::Whole(1))].into_iter())?;
        gauge(encoder, families::CONFIG_RELOAD_SUCCESSFUL, [([], loaded.successful.into())].into_iter())?;
        let timestamp = loaded.succeeded_at.unix_seconds() + self.clock.step_seconds();
        gauge(encoder, families::CONFIG_RELOAD_TIMESTAMP, [([], Number::Real(timestamp))].into_iter())?;
        encode_process(encoder)
    }
}

/// What the platform does not tell is left out.
fn encode_process(encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let process = metrics_process::collector::collect();
    if let Some(seconds) = process.cpu_seconds_total {
        seconds_counter(encoder, families::PROCESS_CPU, seconds)?;
    }
    for (family, value) in [
        (families::PROCESS_OPEN_FDS, process.open_fds),
        (families::PROCESS_MAX_FDS, process.max_fds),
        (families::PROCESS_VIRTUAL_MEMORY, process.virtual_memory_bytes),
        (families::PROCESS_VIRTUAL_MEMORY_MAX, process.virtual_memory_max_bytes),
        (families::PROCESS_RESIDENT_MEMORY, process.resident_memory_bytes),
        (families::PROCESS_START_TIME, process.start_time_seconds),
        (families::PROCESS_THREADS, process.threads),
    ] {
        gauge(encoder, family, value.map(|value| ([], Number::Whole(value))).into_iter())?;
    }
    Ok(())
}
