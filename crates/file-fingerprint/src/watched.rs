//! Files that something is made from: whether it has to be made again, and what came of the attempts.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::FileFingerprint;

/// How often something was made from its files. Shared between those that make it and those that show the numbers.
#[derive(Debug, Default)]
pub struct ReloadStats {
    failures: AtomicU64,
    successes: AtomicU64,
}

impl ReloadStats {
    /// Attempts that failed. Goes on counting for as long as a failure lasts, since it is tried again.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Attempts that succeeded, the first one included.
    #[must_use]
    pub fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }
}

/// How files looked before something was made from them.
#[derive(Clone, Debug, Default)]
pub struct Look(Vec<(PathBuf, Option<FileFingerprint>)>);

impl Look {
    /// The files as they are now. Blocks for one look at each.
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

/// Files that something is made from.
///
/// A file counts as seen once something was made from it, and not before: what could not be read or used is tried again
/// at each look until it can be, whether or not a file changes in between. What was made before stays with its owner.
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
    /// As they were before the last attempt that succeeded.
    seen: Look,
    has_succeeded: bool,
    /// What the last attempt failed with; none if it succeeded.
    failure: Option<String>,
    /// The failure that was told.
    told: Option<String>,
    stats: Arc<ReloadStats>,
}

impl WatchedFiles {
    /// Nothing was made yet; attempts count here.
    #[must_use]
    pub fn new(stats: Arc<ReloadStats>) -> Self {
        Self { stats, ..Self::default() }
    }

    /// Whether it is time for an attempt: there was none, the last one failed, or a file may be another one. Blocks for one
    /// look at each file.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        !self.has_succeeded || self.failure.is_some() || !self.seen.is_current()
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// Makes something from these files. The fingerprints are taken before.
    ///
    /// # Errors
    /// What `make` says.
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

    /// Something was made from the files as they were at this look.
    pub fn succeeded(&mut self, look: Look) {
        self.unchanged(look);
        self.failure = None;
        self.stats.successes.fetch_add(1, Ordering::Relaxed);
    }

    /// The files hold at this look what they held before: nothing had to be made.
    pub fn unchanged(&mut self, look: Look) {
        self.seen = look;
        self.has_succeeded = true;
    }

    /// There are no files any more.
    pub fn forget(&mut self) {
        *self = Self { has_succeeded: true, ..Self::new(Arc::clone(&self.stats)) };
    }

    /// Nothing could be made.
    pub fn failed(&mut self, why: impl fmt::Display) {
        self.failure = Some(why.to_string());
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the last attempt failed for a reason that was not told yet. Tells it: the same failure is new once.
    pub fn is_new_failure(&mut self) -> bool {
        let is_new = self.failure.is_some() && self.failure != self.told;
        if is_new {
            self.told.clone_from(&self.failure);
        }
        is_new
    }

    /// Whether the last attempt succeeded after a failure that was told. True once.
    pub fn is_recovery(&mut self) -> bool {
        self.failure.is_none() && self.told.take().is_some()
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
    fn what_failed_is_tried_again_although_no_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        age(&path, 3600);
        let stats = Arc::new(ReloadStats::default());
        let mut watched = WatchedFiles::new(Arc::clone(&stats));
        assert!(watched.is_outdated(), "nothing was made yet");
        assert_eq!(read(&mut watched, &path).as_deref(), Ok("one"));
        assert!(!watched.is_outdated());
        let refuse = || Err::<(), _>("no use");
        // As what is in the file names another one, which comes later.
        fs::write(&path, "two").unwrap();
        age(&path, 3600);
        for _ in 0..3 {
            assert!(watched.is_outdated());
            assert!(watched.attempt([path.clone()], refuse).is_err());
        }
        assert!(watched.is_outdated(), "it was not seen: nothing was made from it");
        assert!(read(&mut watched, &path).is_ok() && !watched.is_outdated());
        assert_eq!((stats.failures(), stats.successes()), (3, 2));
    }

    #[test]
    fn a_failure_is_new_once_and_another_one_is_new_again() {
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
        assert!(!watched.is_recovery(), "nobody was told of the failure");
    }

    #[test]
    fn a_file_that_was_just_written_is_read_again_until_a_further_write_would_show() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let mut watched = WatchedFiles::default();
        read(&mut watched, &path).unwrap();
        // The same size, perhaps within the same tick of the file system's clock.
        fs::write(&path, "two").unwrap();
        assert!(watched.is_outdated());
        assert_eq!(read(&mut watched, &path).as_deref(), Ok("two"));
        age(&path, 3600);
        read(&mut watched, &path).unwrap();
        assert!(!watched.is_outdated());
    }
}
