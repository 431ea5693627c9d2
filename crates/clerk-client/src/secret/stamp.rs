//! Whether a file is still the one that was read.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::SecretSource;

/// What tells one state of a file from another without reading it. Symbolic links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    size: u64,
    /// Device, inode, and time of the last change of the inode, which `touch -d` and `cp -p` do not fake.
    identity: (u64, u64, i64, i64),
}

impl Stamp {
    /// None if there is no such file, or if it cannot be looked at.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok(), size: metadata.len(), identity: identity(&metadata) })
    }
}

impl SecretSource {
    /// The present state of the file that the secret is kept in, or `None` if it cannot be looked at.
    ///
    /// Always `None` for other sources: they cannot change while we run. Take the stamp before reading: a file that is
    /// replaced in between is then read once more, never missed. Blocks for one look at the file.
    pub fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::File(path) => Stamp::of(path),
            Self::Env(_) | Self::Inline(_) => None,
        }
    }
}

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> (u64, u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> (u64, u64, i64, i64) {
    (0, 0, 0, 0)
}
