//! How many connections there may be: no more than files may be open and memory allows.
//!
//! A process that runs out of file descriptors can neither accept a client nor call Clerk, and one that runs out of memory
//! is killed. Both ports share what there is.

use std::fs;
use std::path::{Path, PathBuf};

/// Files that are open beside connections of clients: listeners, the log, files that are read again, name servers, Redis.
const RESERVED_FILES: u64 = 64;

/// Memory of one connection: 26 KiB were measured, TLS and buffers included.
const CONNECTION_BYTES: u64 = 32 * 1024;

/// The share of the memory that connections may take, and that responses may hold until they are sent.
const CONNECTIONS_SHARE: u64 = 2;
const UNSENT_SHARE: u64 = 8;

/// What responses may hold where memory has no limit.
const UNSENT_BYTES: u64 = 64 << 20;

/// Connections of applications to the gateway, each of which may have a pool of its own.
const GATEWAY_CONNECTIONS: u64 = 16_384;

/// What the process may have; none where there is no limit, or it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProcessLimits {
    pub(super) open_files: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
}

/// What both ports may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServeLimits {
    /// Connections to the exporter's port.
    pub(super) pages: usize,
    /// Connections to the gateway's port.
    pub(super) gateway: usize,
    /// Bytes of responses that wait to be sent, at each port.
    pub(super) unsent_bytes: usize,
}

impl ServeLimits {
    /// The rule. `asked`: what `--web.max-connections` says.
    ///
    /// The exporter's port has a quarter of what there is if there is a gateway. Of the files that are left, half are for
    /// the gateway's clients and half for its own connections to Clerk.
    pub(super) fn new(asked: usize, has_gateway: bool, limits: ProcessLimits) -> Self {
        let asked = u64::try_from(asked).unwrap_or(u64::MAX);
        let files = limits.open_files.map_or(u64::MAX, |files| files - RESERVED_FILES.min(files / 2));
        let places = limits.memory_bytes.map_or(u64::MAX, |bytes| bytes / CONNECTIONS_SHARE / CONNECTION_BYTES);
        let share = if has_gateway { 4 } else { 1 };
        let pages = asked.min(files / share).min(places / share).max(1);
        let gateway = asked.max(GATEWAY_CONNECTIONS);
        let gateway = gateway.min(files.saturating_sub(pages) / 2).min(places.saturating_sub(pages)).max(1);
        let unsent = limits.memory_bytes.map_or(UNSENT_BYTES, |bytes| UNSENT_BYTES.min(bytes / UNSENT_SHARE));
        let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self { pages: size(pages), gateway: size(gateway), unsent_bytes: size(unsent) }
    }
}

impl ProcessLimits {
    /// Those of this process: its soft limit of open files, and the lowest memory limit of its control groups, which is what
    /// containers and systemd's `MemoryMax=` set.
    pub(super) fn of_this_process() -> Self {
        // No limit shows as the largest number.
        let open_files = metrics_process::collector::collect().max_fds.filter(|files| *files < u64::from(u32::MAX));
        Self { open_files, memory_bytes: memory_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")) }
    }
}

fn memory_limit(groups: &Path, root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(groups).unwrap_or_default();
    let mut lowest = None;
    for group in groups.lines() {
        // hierarchy:controllers:path; version 2 names no controllers.
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
        // A group has no more than those above it. Within a container its own path may not be visible, but the root is.
        loop {
            let limit = fs::read_to_string(root.join(&folder).join(file)).ok();
            // "max", or a number near the largest there is: no limit.
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
            let found = ServeLimits::new(512, has_gateway, limits(open_files, memory));
            assert_eq!((found.pages, found.gateway), (pages, gateway), "{open_files:?} {memory:?}");
        }
    }

    #[test]
    fn what_is_asked_for_counts_as_long_as_it_fits() {
        let found = ServeLimits::new(20_000, true, limits(Some(1_000_000), None));
        assert_eq!((found.pages, found.gateway), (20_000, 20_000));
        assert_eq!(ServeLimits::new(3, true, limits(None, None)).pages, 3);
    }

    #[test]
    fn all_connections_and_what_they_wait_for_fit_for_every_limit() {
        for has_gateway in [false, true] {
            for files in [1, 10, 100, 200, 1000, 4096, 65_536] {
                for memory in [16 * MIB, 64 * MIB, 128 * MIB, 1024 * MIB] {
                    let found = ServeLimits::new(usize::MAX, has_gateway, limits(Some(files), Some(memory)));
                    let connections = (found.pages + if has_gateway { found.gateway } else { 0 }) as u64;
                    assert!(connections <= files.max(2), "{found:?} of {files}");
                    let unsent = found.unsent_bytes as u64 * 2;
                    assert!(connections * CONNECTION_BYTES + unsent <= memory * 3 / 4, "{found:?} in {memory}");
                }
            }
        }
    }

    #[test]
    fn the_lowest_limit_of_the_control_groups_counts() {
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
        // Version 1, in a container that does not see its own path.
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
