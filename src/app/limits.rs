//! Connection limits, derived from the limits on open files and memory.
//!
//! A process without free file descriptors can neither accept clients nor call Clerk; one without memory is killed.
//! All ports share these resources.

use std::fs;
use std::path::{Path, PathBuf};

/// Open files other than client connections: listeners, the log, watched files, DNS, Redis.
const RESERVED_FILES: u64 = 64;

/// Memory per connection in bytes: 26 KiB were measured, including TLS and buffers.
const CONNECTION_BYTES: u64 = 32 * 1024;

/// Divisor of the memory for connections, and of that for unsent responses.
const CONNECTIONS_SHARE: u64 = 2;
const UNSENT_SHARE: u64 = 8;

/// Bytes of unsent responses if memory is unlimited.
const UNSENT_BYTES: u64 = 64 << 20;

/// Connections of applications to the gateway. Each application may have its own pool.
const GATEWAY_CONNECTIONS: u64 = 16_384;

/// Connections of applications and Collectors to the receiver of traces.
const TELEMETRY_CONNECTIONS: u64 = 512;

/// The limits of the process; `None` if unlimited or unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProcessLimits {
    pub(super) open_files: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
}

/// The limits of all ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServeLimits {
    /// Maximum connections to the exporter's port.
    pub(super) pages: usize,
    /// Maximum connections to the gateway's port.
    pub(super) gateway: usize,
    /// Maximum connections to the receiver of traces.
    pub(super) telemetry: usize,
    /// Maximum bytes of unsent responses, per port.
    pub(super) unsent_bytes: usize,
}

impl ServeLimits {
    /// Computes the limits. `asked`: the value of `--web.max-connections`.
    ///
    /// With a gateway, the exporter's port gets a quarter of the resources. Of the remaining files, half are for the
    /// gateway's clients and half for its connections to Clerk.
    pub(super) fn new(asked: usize, has_gateway: bool, has_telemetry: bool, limits: ProcessLimits) -> Self {
        let asked = u64::try_from(asked).unwrap_or(u64::MAX);
        let files = limits.open_files.map_or(u64::MAX, |files| files - RESERVED_FILES.min(files / 2));
        let places = limits.memory_bytes.map_or(u64::MAX, |bytes| bytes / CONNECTIONS_SHARE / CONNECTION_BYTES);
        let share = if has_gateway { 4 } else { 1 };
        // Senders and Collectors keep one connection each.
        let telemetry = if has_telemetry { TELEMETRY_CONNECTIONS.min(files / 8).min(places / 8).max(1) } else { 0 };
        let (files, places) = (files.saturating_sub(telemetry), places.saturating_sub(telemetry));
        let pages = asked.min(files / share).min(places / share).max(1);
        let gateway = asked.max(GATEWAY_CONNECTIONS);
        let gateway = gateway.min(files.saturating_sub(pages) / 2).min(places.saturating_sub(pages)).max(1);
        let unsent = limits.memory_bytes.map_or(UNSENT_BYTES, |bytes| UNSENT_BYTES.min(bytes / UNSENT_SHARE));
        let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self { pages: size(pages), gateway: size(gateway), telemetry: size(telemetry), unsent_bytes: size(unsent) }
    }
}

impl ProcessLimits {
    /// The limits of this process: its soft limit of open files, and the lowest memory limit of its control groups,
    /// which containers and systemd's `MemoryMax=` set.
    pub(super) fn of_this_process() -> Self {
        // Unlimited is reported as the largest number.
        let open_files = metrics_process::collector::collect().max_fds.filter(|files| *files < u64::from(u32::MAX));
        Self { open_files, memory_bytes: memory_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")) }
    }
}

fn memory_limit(groups: &Path, root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(groups).unwrap_or_default();
    let mut lowest = None;
    for group in groups.lines() {
        // Format: hierarchy:controllers:path; version 2 has no controllers.
        let mut parts = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = if controllers.is_empty() {
            (root.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let mut folder = PathBuf::from(path.trim_start_matches('/'));
        // A group is limited by its ancestors. In a container its own path may be invisible, but the root is visible.
        loop {
            let limit = fs::read_to_string(root.join(&folder).join(file)).ok();
            // "max" or a number close to the maximum means unlimited.
            let limit = limit.and_then(|text| text.trim().parse::<u64>().ok()).filter(|bytes| *bytes < 1 << 60);
            lowest = lowest.into_iter().chain(limit).min();
            if !folder.pop() {
                break;
            }
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn limits(open_files: Option<u64>, memory_bytes: Option<u64>) -> ProcessLimits {
        ProcessLimits { open_files, memory_bytes }
    }

    #[test]
    fn connections_fit_the_open_files_and_the_memory() {
        for (has_gateway, open_files, memory, pages, gateway) in [
            (false, None, None, 512, 16_384),
            (true, Some(65_536), None, 512, 16_384),
            (true, Some(1024), None, 240, 360),
            (false, Some(1024), None, 512, 224),
            (false, Some(64), None, 32, 1),
            (true, Some(65_536), Some(128 * MIB), 512, 1536),
            (true, Some(65_536), Some(256 * MIB), 512, 3584),
            (false, None, Some(8 * MIB), 128, 1),
            (true, Some(0), Some(0), 1, 1),
        ] {
            let found = ServeLimits::new(512, has_gateway, false, limits(open_files, memory));
            assert_eq!((found.pages, found.gateway), (pages, gateway), "{open_files:?} {memory:?}");
        }
    }

    #[test]
    fn requested_limit_applies_if_it_fits() {
        let found = ServeLimits::new(20_000, true, false, limits(Some(1_000_000), None));
        assert_eq!((found.pages, found.gateway), (20_000, 20_000));
        assert_eq!(ServeLimits::new(3, true, false, limits(None, None)).pages, 3);
    }

    #[test]
    fn connections_and_unsent_bytes_fit_every_limit() {
        for (has_gateway, has_telemetry) in [(false, false), (true, false), (false, true), (true, true)] {
            for files in [1, 10, 100, 200, 1000, 4096, 65_536] {
                for memory in [16 * MIB, 64 * MIB, 128 * MIB, 1024 * MIB] {
                    let found =
                        ServeLimits::new(usize::MAX, has_gateway, has_telemetry, limits(Some(files), Some(memory)));
                    let gateway = if has_gateway { found.gateway } else { 0 };
                    let connections = (found.pages + gateway + found.telemetry) as u64;
                    assert!(connections <= files.max(3), "{found:?} of {files}");
                    let unsent = found.unsent_bytes as u64 * 2;
                    assert!(connections * CONNECTION_BYTES + unsent <= memory * 3 / 4, "{found:?} in {memory}");
                }
            }
        }
    }

    #[test]
    fn lowest_control_group_limit_applies() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = || memory_limit(&folder.path().join("cgroup"), folder.path());
        assert_eq!(found(), None);
        write("cgroup", "0::/system.slice/x.service\n");
        assert_eq!(found(), None);
        write("system.slice/x.service/memory.max", "max\n");
        assert_eq!(found(), None);
        write("system.slice/memory.max", "268435456\n");
        assert_eq!(found(), Some(268_435_456));
        write("system.slice/x.service/memory.max", "1000\n");
        assert_eq!(found(), Some(1000));
        // Version 1, in a container that cannot see its own path.
        write("cgroup", "5:cpu:/a\n4:hugetlb,memory:/not/here\n");
        write("memory/memory.limit_in_bytes", "2000\n");
        assert_eq!(found(), Some(2000));
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(found(), None);
        write("cgroup", "0::/\n");
        write("memory.max", "3000");
        assert_eq!(found(), Some(3000));
    }
}
