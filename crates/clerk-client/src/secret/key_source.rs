//! A key that can be rotated at runtime.

use std::sync::Arc;

use file_fingerprint::{ReloadStats, WatchedFiles};
use parking_lot::Mutex;

use super::{ClerkKey, SecretError, SecretSource, process_env};

/// A [`SecretSource`] with the key last read from it.
///
/// Keys are rotated: Kubernetes swaps a symbolic link, systemd and secret agents rewrite the file. Use
/// [`current`](Self::current) to send the key, call [`refresh`](Self::refresh) periodically, and
/// [`reload`](Self::reload) after a 401. If the key cannot be read, the previous one stays in use, and each further
/// call tries again.
///
/// All methods block to read one small file at most.
#[derive(Debug)]
pub struct KeySource {
    source: SecretSource,
    is_machine: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    key: Option<Arc<ClerkKey>>,
    watched: WatchedFiles,
    /// Whether the source was read, successfully or not.
    was_read: bool,
}

impl KeySource {
    /// Creates a source that is not read yet.
    pub fn new(source: SecretSource) -> Self {
        Self::counting(source, Arc::default())
    }

    /// Creates a source of a machine secret key (`ak_`).
    pub fn of_machine(source: SecretSource) -> Self {
        Self::new(source).for_machine()
    }

    /// Creates a source that counts its reads in `stats`.
    pub fn counting(source: SecretSource, stats: Arc<ReloadStats>) -> Self {
        let state = State { watched: WatchedFiles::new(stats), ..State::default() };
        Self { source, is_machine: false, state: Mutex::new(state) }
    }

    /// Expects a machine secret key (`ak_`).
    #[must_use]
    pub fn for_machine(self) -> Self {
        Self { is_machine: true, ..self }
    }

    /// Returns where the key is stored.
    pub const fn source(&self) -> &SecretSource {
        &self.source
    }

    /// Returns the key last read; reads it if there is none yet.
    ///
    /// # Errors
    ///
    /// Returns an error if no valid key was read before and none can be read now.
    pub fn current(&self) -> Result<Arc<ClerkKey>, SecretError> {
        let mut state = self.state.lock();
        if let Some(key) = &state.key {
            return Ok(Arc::clone(key));
        }
        self.read_into(&mut state).map(|(key, _)| key)
    }

    /// Reads the source again. Returns whether the key has changed.
    ///
    /// The first key is a change only if an earlier read found none.
    ///
    /// # Errors
    ///
    /// Returns an error if the source has no valid key now. [`current`](Self::current) still returns the previous one.
    pub fn reload(&self) -> Result<bool, SecretError> {
        self.read_into(&mut self.state.lock()).map(|(_, changed)| changed)
    }

    /// Reloads the source and returns whether its key now differs from the one that Clerk rejected.
    ///
    /// If so, a retry makes sense. Another task may have reloaded first, hence the comparison. If the source cannot be
    /// read, the rejected key stays in use.
    pub fn replaces(&self, refused: &ClerkKey) -> bool {
        let _ = self.reload();
        self.current().is_ok_and(|current| *current != *refused)
    }

    /// Whether the file may contain another key than at the last read.
    ///
    /// True if the last read failed, the file was touched or replaced since, or it had been written so recently that
    /// another write could go unnoticed. Always false for other sources, which cannot change at runtime.
    pub fn changed(&self) -> bool {
        self.is_outdated(&self.state.lock())
    }

    /// Reloads if the file has [`changed`](Self::changed). Returns whether the key has changed.
    ///
    /// # Errors
    ///
    /// Same as [`reload`](Self::reload). Each call tries again, but returns the same error only once.
    pub fn refresh(&self) -> Result<bool, SecretError> {
        let mut state = self.state.lock();
        if !self.is_outdated(&state) {
            return Ok(false);
        }
        match self.read_into(&mut state) {
            Ok((_, changed)) => Ok(changed),
            Err(error) if state.watched.is_new_failure() => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn is_outdated(&self, state: &State) -> bool {
        self.source.file().is_some() && state.watched.is_outdated()
    }

    fn read_into(&self, state: &mut State) -> Result<(Arc<ClerkKey>, bool), SecretError> {
        let was_read = std::mem::replace(&mut state.was_read, true);
        let read =
            || if self.is_machine { self.source.read_machine_key_with(&process_env) } else { self.source.read_key() };
        let key = state.watched.attempt(self.source.file(), read)?;
        if state.watched.is_recovery() {
            tracing::info!(source = %self.source, "secret key is readable again");
        }
        let key = Arc::new(key);
        let changed = state.key.as_ref().map_or(was_read, |before| *before != key);
        state.key = Some(Arc::clone(&key));
        Ok((key, changed))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::super::{Secret, SecretFault};
    use super::*;

    /// Makes a file old enough that another write is detected.
    fn age(path: &Path) {
        let time = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn key_of(source: &KeySource) -> String {
        source.current().unwrap().secret().expose().to_owned()
    }

    #[test]
    fn inline_key_never_changes() {
        let source = KeySource::new(SecretSource::Inline(Secret::new("sk_test_first1".to_owned())));
        assert_eq!(key_of(&source), "sk_test_first1");
        assert!(!source.changed());
        assert_eq!(source.reload(), Ok(false));
    }

    #[test]
    fn first_key_is_a_change_only_after_a_failed_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let missing = KeySource::new(SecretSource::File(path.clone()));
        assert!(missing.current().is_err());
        fs::write(&path, "sk_test_first1\n").unwrap();
        assert_eq!(missing.refresh(), Ok(true));
        let first = KeySource::new(SecretSource::File(path));
        assert_eq!(first.refresh(), Ok(false));
        assert_eq!(key_of(&first), "sk_test_first1");
    }

    #[test]
    fn replaced_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "sk_test_first1\n").unwrap();
        let source = KeySource::new(SecretSource::File(path.clone()));
        assert_eq!(key_of(&source), "sk_test_first1");
        assert_eq!(source.refresh(), Ok(false));

        let other = directory.path().join("other");
        fs::write(&other, "sk_test_other2\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(source.changed());
        assert_eq!(key_of(&source), "sk_test_first1", "the key changes only on refresh");
        assert_eq!(source.refresh(), Ok(true));
        assert_eq!(key_of(&source), "sk_test_other2");
        age(&path);
        assert_eq!(source.refresh(), Ok(false));
        assert!(!source.changed());
    }

    #[test]
    fn replaced_file_with_the_same_key_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "sk_test_first1").unwrap();
        let source = KeySource::new(SecretSource::File(path.clone()));
        source.current().unwrap();
        let copy = directory.path().join("copy");
        fs::write(&copy, "sk_test_first1\n").unwrap();
        fs::rename(&copy, &path).unwrap();
        assert!(source.changed());
        age(&path);
        assert_eq!(source.refresh(), Ok(false));
        assert!(!source.changed());
    }

    #[cfg(unix)]
    #[test]
    fn kubernetes_symlink_swap_is_detected() {
        use std::os::unix::fs::symlink;
        // The kubelet's layout of a secret volume: key -> ..data/key, ..data -> ..<timestamp>, swapped by a rename.
        let volume = tempfile::tempdir().unwrap();
        let at = |name: &str| volume.path().join(name);
        for (version, key) in [("..v1", "sk_live_first1"), ("..v2", "sk_live_other2")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("key"), key).unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/key", at("key")).unwrap();
        let source = KeySource::new(SecretSource::File(at("key")));
        assert_eq!(key_of(&source), "sk_live_first1");

        symlink("..v2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(source.changed());
        assert_eq!(source.reload(), Ok(true));
        assert_eq!(key_of(&source), "sk_live_other2");
    }

    #[test]
    fn unreadable_file_keeps_the_key_and_is_reported_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "sk_test_first1").unwrap();
        let source = KeySource::new(SecretSource::File(path.clone()));
        source.current().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(source.refresh().unwrap_err().fault, SecretFault::Unreadable(_)));
        assert_eq!(source.refresh(), Ok(false));
        assert_eq!(key_of(&source), "sk_test_first1");
        fs::write(&path, "sk_test_other2").unwrap();
        assert_eq!(source.refresh(), Ok(true));
    }

    #[test]
    fn invalid_file_is_retried_and_counted_until_valid() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "sk_test_first1").unwrap();
        let stats = Arc::new(ReloadStats::default());
        let source = KeySource::counting(SecretSource::File(path.clone()), Arc::clone(&stats));
        source.current().unwrap();
        // A partial write, completed before the next check, with equal size and time.
        for (content, expected) in [("sk_test_", false), ("sk_test_first2", true)] {
            fs::write(&path, content).unwrap();
            age(&path);
            let before = stats.failures();
            assert_eq!(source.refresh() == Ok(true), expected);
            assert_eq!(source.refresh(), Ok(false));
            assert_eq!(stats.failures() - before, if expected { 0 } else { 2 });
        }
        assert_eq!(key_of(&source), "sk_test_first2");
    }

    #[test]
    fn key_of_equal_length_within_one_tick_is_detected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "sk_test_first1").unwrap();
        let source = KeySource::new(SecretSource::File(path.clone()));
        for key in ["sk_test_first2", "sk_test_first3", "sk_test_first4"] {
            source.current().unwrap();
            fs::write(&path, key).unwrap();
            assert_eq!(source.refresh(), Ok(true));
            assert_eq!(key_of(&source), key);
        }
    }

    #[test]
    fn missing_key_is_read_again_at_every_call() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let source = KeySource::new(SecretSource::File(path.clone()));
        assert!(source.current().is_err());
        fs::write(&path, "sk_test_late1").unwrap();
        assert_eq!(key_of(&source), "sk_test_late1");
    }
}
