//! Detects file changes by metadata ([`FileFingerprint`]) and tracks reloads ([`WatchedFiles`]).
//!
//! Take the fingerprint before reading the file. A replacement in between then causes one more read and is never
//! missed.
//!
//! ```
//! use file_fingerprint::FileFingerprint;
//!
//! # fn example() -> std::io::Result<()> {
//! let before = FileFingerprint::of("web.yml".as_ref());
//! let content = std::fs::read("web.yml")?;
//! // Later:
//! let is_unchanged = FileFingerprint::is_current(before.as_ref(), "web.yml".as_ref());
//! # let _ = (content, is_unchanged);
//! # Ok(())
//! # }
//! ```

mod watched;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

pub use watched::{Look, ReloadStats, WatchedFiles};

/// A file modified more recently may be written again within the same tick of the file system's clock, so that its
/// metadata does not change.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// The metadata that identifies a state of a file. Symbolic links are followed.
///
/// Fingerprints are equal if the metadata is equal.
#[derive(Clone, Debug)]
pub struct FileFingerprint {
    modified: Option<SystemTime>,
    size_bytes: u64,
    /// Device, inode, and ctime, which `touch -d` and `cp -p` cannot fake.
    identity: (u64, u64, i64, i64),
    /// Whether the last write was long enough ago that another write changes the metadata.
    is_settled: bool,
}

impl PartialEq for FileFingerprint {
    fn eq(&self, other: &Self) -> bool {
        (self.modified, self.size_bytes, self.identity) == (other.modified, other.size_bytes, other.identity)
    }
}

impl Eq for FileFingerprint {}

impl FileFingerprint {
    /// Returns the fingerprint of a file; `None` if its metadata cannot be read. Blocks for one `stat`.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let modified = metadata.modified().ok();
        let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        let is_settled = age.is_some_and(|age| age > SETTLED_AFTER);
        Some(Self { modified, size_bytes: metadata.len(), identity: identity(&metadata), is_settled })
    }

    /// Whether the file at `path` still has the fingerprint `known` and no write can have been missed.
    ///
    /// Always false if the file had just been written when `known` was taken: it must be read again.
    #[must_use]
    pub fn is_current(known: Option<&Self>, path: &Path) -> bool {
        known.is_none_or(|known| known.is_settled) && Self::of(path).as_ref() == known
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::PathBuf;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Creates a file modified an hour ago.
    fn old_file(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, "one").unwrap();
        set_modified(&path, SystemTime::now() - HOUR);
        path
    }

    fn set_modified(path: &Path, time: SystemTime) {
        File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn is_current(known: Option<&FileFingerprint>, path: &Path) -> bool {
        FileFingerprint::is_current(known, path)
    }

    #[test]
    fn old_file_is_current_until_changed_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = old_file(folder.path(), "file");
        let known = FileFingerprint::of(&path);
        assert!(is_current(known.as_ref(), &path));
        fs::write(&path, "two").unwrap();
        assert!(!is_current(known.as_ref(), &path));
        fs::remove_file(&path).unwrap();
        assert!(!is_current(known.as_ref(), &path));
        assert!(is_current(None, &path), "a missing file is current while it is missing");
    }

    #[test]
    #[cfg(unix)]
    fn replacement_with_equal_time_and_size_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (old_file(folder.path(), "file"), old_file(folder.path(), "other"));
        let known = FileFingerprint::of(&path);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        set_modified(&other, modified);
        fs::rename(&other, &path).unwrap();
        assert_ne!(FileFingerprint::of(&path), known, "another inode");
    }

    #[test]
    #[cfg(unix)]
    fn symlinks_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (old_file(folder.path(), "first"), old_file(folder.path(), "second"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&first, &link).unwrap();
        let known = FileFingerprint::of(&link);
        assert!(is_current(known.as_ref(), &link));
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&second, &link).unwrap();
        assert!(!is_current(known.as_ref(), &link));
    }

    #[test]
    fn recent_or_future_modification_time_is_not_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let known = FileFingerprint::of(&path);
        assert!(!is_current(known.as_ref(), &path));
        set_modified(&path, SystemTime::now() + HOUR);
        let known = FileFingerprint::of(&path);
        assert!(!is_current(known.as_ref(), &path));
    }
}
