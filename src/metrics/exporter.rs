//! Metrics of the program itself: what it was built from, its configuration, its process.

use std::fmt::Error;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::runtime::Handle;

use super::catalogue as families;
use super::encode::{Number, counter, gauge, seconds_counter};
use super::reloads::Reloads;
use clerk_quota::Moment;
use clerk_quota::clock::Clock;

/// The state of the configuration, shared with whoever loads it.
#[derive(Debug)]
pub struct ConfigStatus {
    loaded: ArcSwap<Loaded>,
    /// What came of reading files again, the configuration and all that it names.
    pub reloads: Reloads,
}

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
        let loaded = ArcSwap::from_pointee(Loaded { successful: true, succeeded_at: at, low_threshold });
        Self { loaded, reloads: Reloads::new(at) }
    }

    /// A configuration was loaded and is in force.
    pub fn succeeded(&self, at: Moment, low_threshold: f64) {
        self.loaded.store(Arc::new(Loaded { successful: true, succeeded_at: at, low_threshold }));
    }

    /// A configuration was refused; the one before stays in force.
    pub fn failed(&self) {
        let loaded = **self.loaded.load();
        self.loaded.store(Arc::new(Loaded { successful: false, ..loaded }));
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
        let loaded = **self.status.loaded.load();
        let build = [build::VERSION.into(), build::REVISION.into(), build::RUST_VERSION.into()];
        gauge(encoder, families::LOW_THRESHOLD, [([], Number::Real(loaded.low_threshold))].into_iter())?;
        gauge(encoder, families::BUILD_INFO, [(build, Number::Whole(1))].into_iter())?;
        gauge(encoder, families::CONFIG_RELOAD_SUCCESSFUL, [([], loaded.successful.into())].into_iter())?;
        let timestamp = loaded.succeeded_at.unix_seconds() + self.clock.step_seconds();
        gauge(encoder, families::CONFIG_RELOAD_TIMESTAMP, [([], Number::Real(timestamp))].into_iter())?;
        let looked: Vec<_> = self.status.reloads.look(self.clock.now()).collect();
        let failures = looked.iter().map(|(kind, failures, _)| ([kind.as_str().into()], *failures));
        counter(encoder, families::FILE_RELOAD_FAILURES, failures)?;
        let step = self.clock.step_seconds();
        let succeeded = looked.iter().filter_map(|(kind, _, at)| Some(([kind.as_str().into()], (*at)?)));
        let succeeded = succeeded.map(|(labels, at)| (labels, Number::Real(at.unix_seconds() + step)));
        gauge(encoder, families::FILE_RELOAD_TIMESTAMP, succeeded)?;
        let tasks = Handle::try_current().ok().map(|runtime| runtime.metrics().num_alive_tasks() as u64);
        gauge(encoder, families::TASKS, tasks.map(|tasks| ([], Number::Whole(tasks))).into_iter())?;
        encode_process(encoder, self.clock.step_seconds())
    }
}

/// What the platform does not tell is left out.
fn encode_process(encoder: &mut DescriptorEncoder<'_>, step_seconds: f64) -> Result<(), Error> {
    let boot = boot_time();
    let process = metrics_process::collector::collect();
    let start_time = process.start_time_seconds.map(|start| START_TIME.corrected(start, boot, step_seconds));
    if let Some(seconds) = process.cpu_seconds_total {
        seconds_counter(encoder, families::PROCESS_CPU, seconds)?;
    }
    for (family, value) in [
        (families::PROCESS_OPEN_FDS, process.open_fds),
        (families::PROCESS_MAX_FDS, process.max_fds),
        (families::PROCESS_VIRTUAL_MEMORY, process.virtual_memory_bytes),
        (families::PROCESS_VIRTUAL_MEMORY_MAX, process.virtual_memory_max_bytes),
        (families::PROCESS_RESIDENT_MEMORY, process.resident_memory_bytes),
        (families::PROCESS_START_TIME, start_time),
        (families::PROCESS_THREADS, process.threads),
    ] {
        gauge(encoder, family, value.map(|value| ([], Number::Whole(value))).into_iter())?;
    }
    Ok(())
}

/// The library reads the time of boot once, by the wall clock of that moment, and counts from there.
static START_TIME: StartTime = StartTime(OnceLock::new());

/// When the process started, by the wall clock as it is now.
struct StartTime(OnceLock<(Option<u64>, f64)>);

impl StartTime {
    /// Corrects a start that was counted from the time of boot as it was at the first call: by what the kernel says of that time
    /// now, or else by what the wall clock was set since.
    fn corrected(&self, start: u64, boot: Option<u64>, step_seconds: f64) -> u64 {
        let (first_boot, first_step) = *self.0.get_or_init(|| (boot, step_seconds));
        let shift = match (first_boot, boot) {
            (Some(first), Some(now)) => i64::try_from(i128::from(now) - i128::from(first)).unwrap_or(0),
            _ => whole_seconds(step_seconds - first_step),
        };
        start.saturating_add_signed(shift)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it saturates, and clocks are not that wrong")]
fn whole_seconds(seconds: f64) -> i64 {
    seconds.round() as i64
}

/// The time of boot by the wall clock as it is now: moves when the clock is set, and not when the machine is suspended.
fn boot_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_follows_the_correction_of_the_clock() {
        let by_boot = StartTime(OnceLock::new());
        // The clock is three hours ahead at the first scrape, and then put right.
        assert_eq!(by_boot.corrected(20_000, Some(11_800), 0.0), 20_000);
        assert_eq!(by_boot.corrected(20_000, Some(1_000), -10_800.0), 9_200);
        assert_eq!(by_boot.corrected(20_000, Some(11_800), 0.0), 20_000);
        // Suspended for eight hours: the wall clock is ahead of the monotonic one, and the start is where it was.
        assert_eq!(by_boot.corrected(20_000, Some(11_800), 28_800.0), 20_000);
        let by_step = StartTime(OnceLock::new());
        for (step, expected) in [(5.0, 20_000), (5.3, 20_000), (-10_795.0, 9_200), (35.0, 20_030)] {
            assert_eq!(by_step.corrected(20_000, None, step), expected, "{step}");
        }
    }
}
