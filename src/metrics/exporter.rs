//! Metrics of the program itself: build, configuration, process.

use std::fmt::Error;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::runtime::Handle;

use super::catalogue as families;
use super::encode::{Number, counter, gauge, seconds_counter};
use super::gateway::redis_refused;
use super::reloads::Reloads;
use clerk_client::redis::RedisClient;
use clerk_quota::Moment;
use clerk_quota::clock::Clock;

/// The state of the configuration, shared with its loader.
#[derive(Debug)]
pub struct ConfigStatus {
    loaded: ArcSwap<Loaded>,
    leases: Mutex<Option<LeaseCounts>>,
    /// The Redis of an exporter without a gateway.
    redis: OnceLock<RedisClient>,
    /// The reloads of files: the configuration and all files it names.
    pub reloads: Reloads,
}

/// The instances with a lease of the right to probe, by what this process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseCounts {
    /// It has the lease.
    pub held: usize,
    /// Another process has it.
    pub standby: usize,
    /// It probes because the store of leases does not answer.
    pub alone: usize,
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
        Self { loaded, leases: Mutex::default(), redis: OnceLock::new(), reloads: Reloads::new(at) }
    }

    /// Records that a configuration was loaded and applied.
    pub fn succeeded(&self, at: Moment, low_threshold: f64) {
        self.loaded.store(Arc::new(Loaded { successful: true, succeeded_at: at, low_threshold }));
    }

    /// Sets the state of the leases; `None`: no instance has one.
    pub fn set_leases(&self, counts: Option<LeaseCounts>) {
        *self.leases.lock() = counts;
    }

    /// Shows what a Redis refuses, of which no gateway does.
    pub fn show_redis(&self, client: RedisClient) {
        // It is the same one for the whole process.
        let _ = self.redis.set(client);
    }

    /// Records that a configuration was rejected; the previous one stays in use.
    pub fn failed(&self) {
        let loaded = **self.loaded.load();
        self.loaded.store(Arc::new(Loaded { successful: false, ..loaded }));
    }
}

/// Version and source of this build.
pub mod build {
    /// Version of the crate.
    pub const VERSION: &str = env!("CARGO_PKG_VERSION");
    /// Commit given to the build, else "unknown".
    pub const REVISION: &str = match option_env!("CLERK_EXPORTER_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    };
    /// Minimum Rust version.
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
        let leases = *self.status.leases.lock();
        let leases = leases
            .into_iter()
            .flat_map(|LeaseCounts { held, standby, alone }| [("held", held), ("standby", standby), ("alone", alone)]);
        let leases = leases.map(|(state, count)| ([state.into()], Number::Whole(count as u64)));
        gauge(encoder, families::PROBE_LEASES, leases)?;
        if let Some(redis) = self.status.redis.get() {
            redis_refused(encoder, Some(&redis.health()))?;
        }
        let tasks = Handle::try_current().ok().map(|runtime| runtime.metrics().num_alive_tasks() as u64);
        gauge(encoder, families::TASKS, tasks.map(|tasks| ([], Number::Whole(tasks))).into_iter())?;
        encode_process(encoder, self.clock.step_seconds())
    }
}

/// Values that the platform does not provide are left out.
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

/// The library reads the boot time once, by the wall clock at that time, and derives the start time from it.
static START_TIME: StartTime = StartTime(OnceLock::new());

/// The start time of the process, by the current wall clock.
struct StartTime(OnceLock<(Option<u64>, f64)>);

impl StartTime {
    /// Corrects a start time that was derived from the boot time at the first call: by the current boot time of the
    /// kernel, or else by the steps of the wall clock since then.
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

/// The boot time by the current wall clock. Setting the clock changes it; a suspension does not.
fn boot_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_follows_clock_correction() {
        let by_boot = StartTime(OnceLock::new());
        // The clock is three hours ahead at the first scrape, and then corrected.
        assert_eq!(by_boot.corrected(20_000, Some(11_800), 0.0), 20_000);
        assert_eq!(by_boot.corrected(20_000, Some(1_000), -10_800.0), 9_200);
        assert_eq!(by_boot.corrected(20_000, Some(11_800), 0.0), 20_000);
        // Suspended for eight hours: the wall clock is ahead of the monotonic clock; the start time is unchanged.
        assert_eq!(by_boot.corrected(20_000, Some(11_800), 28_800.0), 20_000);
        let by_step = StartTime(OnceLock::new());
        for (step, expected) in [(5.0, 20_000), (5.3, 20_000), (-10_795.0, 9_200), (35.0, 20_030)] {
            assert_eq!(by_step.corrected(20_000, None, step), expected, "{step}");
        }
    }
}
