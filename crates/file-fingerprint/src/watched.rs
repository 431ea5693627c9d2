//! Tracks files that a value is loaded from: when to reload, and the outcome of reloads.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::FileFingerprint;

/// Counters of reloads, shared between the loader and metrics.
#[derive(Debug, Default)]
pub struct ReloadStats {
    failures: AtomicU64,
    successes: AtomicU64,
}

impl ReloadStats {
    /// Failed attempts. Keeps counting while a failure lasts, because each check retries.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Successful attempts, including the first.
    #[must_use]
    pub fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }
}

/// Fingerprints of files, taken before loading.
#[derive(Clone, Debug, Default)]
pub struct Look(Vec<(PathBuf, Option<FileFingerprint>)>);

impl Look {
    /// Takes the fingerprints now. Blocks for one `stat` per file.
    pub fn at(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let look = |path: PathBuf| {
            let fingerprint = FileFingerprint::of(&path);
            (path, fingerprint)
        };
        Self(paths.into_iter().map(look).collect())
    }

    fn is_current(&self) -> bool {
        self.0.iter().all(|(path, known)| FileFingerprint::is_current(known.as_ref(), path))
    }
}

/// Files that a value is loaded from.
///
/// Fingerprints are recorded only when loading succeeds. After a failure, each check retries, even if no file changes.
/// The caller keeps the previous value.
///
/// ```
/// use file_fingerprint::WatchedFiles;
///
/// # fn example() -> std::io::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("token");
/// let mut watched = WatchedFiles::default();
/// assert!(watched.attempt([path.clone()], || std::fs::read_to_string(&path)).is_err());
/// assert!(watched.is_outdated() && watched.is_new_failure() && !watched.is_new_failure());
/// std::fs::write(&path, "secret")?;
/// assert_eq!(watched.attempt([path.clone()], || std::fs::read_to_string(&path))?, "secret");
/// assert!(watched.is_recovery());
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Debug, Default)]
pub struct WatchedFiles {
    /// Fingerprints before the last successful attempt.
    seen: Look,
    has_succeeded: bool,
    /// Error of the last attempt; `None` if it succeeded.
    failure: Option<String>,
    /// The failure that was last reported.
    reported: Option<String>,
    stats: Arc<ReloadStats>,
}

impl WatchedFiles {
    /// Creates a tracker without a loaded value that counts attempts in `stats`.
    #[must_use]
    pub fn new(stats: Arc<ReloadStats>) -> Self {
        Self { stats, ..Self::default() }
    }

    /// Whether to load: not loaded yet, the last attempt failed, or a file may have changed.
    ///
    /// Blocks for one `stat` per file.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        !self.has_succeeded || self.failure.is_some() || !self.seen.is_current()
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// Loads a value from these files with `make`, after taking their fingerprints.
    ///
    /// # Errors
    /// Returns the error of `make`.
    pub fn attempt<T, E: fmt::Display>(
        &mut self,
        paths: impl IntoIterator<Item = PathBuf>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let look = Look::at(paths);
        let made = make();
        match &made {
            Ok(_) => self.succeeded(look),
            Err(error) => self.failed(error),
        }
        made
    }

    /// Records that loading succeeded for these fingerprints.
    pub fn succeeded(&mut self, look: Look) {
        self.unchanged(look);
        self.failure = None;
        self.stats.successes.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that the files' contents are the same as before, so that nothing was loaded.
    pub fn unchanged(&mut self, look: Look) {
        self.seen = look;
        self.has_succeeded = true;
    }

    /// Records that there are no files any more.
    pub fn forget(&mut self) {
        *self = Self { has_succeeded: true, ..Self::new(Arc::clone(&self.stats)) };
    }

    /// Records that loading failed.
    pub fn failed(&mut self, why: impl fmt::Display) {
        self.failure = Some(why.to_string());
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the last attempt failed with an error not reported yet. Marks it as reported, so it is new only once.
    pub fn is_new_failure(&mut self) -> bool {
        let is_new = self.failure.is_some() && self.failure != self.reported;
        if is_new {
            self.reported.clone_from(&self.failure);
        }
        is_new
    }

    /// Whether the last attempt succeeded after a reported failure. Returns `true` once.
    pub fn is_recovery(&mut self) -> bool {
        self.failure.is_none() && self.reported.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn age(path: &Path, seconds: u64) {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn read(watched: &mut WatchedFiles, path: &Path) -> Result<String, String> {
        let make = || fs::read_to_string(path).map_err(|error| error.kind().to_string());
        watched.attempt([path.to_owned()], make)
    }

    #[test]
    fn failed_load_is_retried_without_a_file_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        age(&path, 3600);
        let stats = Arc::new(ReloadStats::default());
        let mut watched = WatchedFiles::new(Arc::clone(&stats));
        assert!(watched.is_outdated(), "not loaded yet");
        assert_eq!(read(&mut watched, &path).as_deref(), Ok("one"));
        assert!(!watched.is_outdated());
        let reject = || Err::<(), _>("invalid");
        // For example, the file names another one that does not exist yet.
        fs::write(&path, "two").unwrap();
        age(&path, 3600);
        for _ in 0..3 {
            assert!(watched.is_outdated());
            assert!(watched.attempt([path.clone()], reject).is_err());
        }
        assert!(watched.is_outdated(), "a failed load does not record the fingerprints");
        assert!(read(&mut watched, &path).is_ok() && !watched.is_outdated());
        assert_eq!((stats.failures(), stats.successes()), (3, 2));
    }

    #[test]
    fn each_failure_is_new_once() {
        let mut watched = WatchedFiles::default();
        watched.failed("a");
        assert!(watched.is_new_failure() && !watched.is_new_failure());
        watched.failed("a");
        assert!(!watched.is_new_failure());
        watched.failed("b");
        assert!(watched.is_new_failure() && !watched.is_recovery());
        watched.succeeded(Look::default());
        assert!(watched.is_recovery() && !watched.is_recovery());
        watched.failed("b");
        watched.succeeded(Look::default());
        assert!(!watched.is_recovery(), "the failure was not reported");
    }

    #[test]
    fn recent_file_is_read_again_until_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let mut watched = WatchedFiles::default();
        read(&mut watched, &path).unwrap();
        // Same size, possibly within the same tick of the file system's clock.
        fs::write(&path, "two").unwrap();
        assert!(watched.is_outdated());
        assert_eq!(read(&mut watched, &path).as_deref(), Ok("two"));
        age(&path, 3600);
        read(&mut watched, &path).unwrap();
        assert!(!watched.is_outdated());
    }
}
