//! A key that may be replaced while we run.

use std::sync::Arc;

use file_fingerprint::{ReloadStats, WatchedFiles};
use parking_lot::Mutex;

use super::{ClerkKey, SecretError, SecretSource, process_env};

/// A [`SecretSource`] with the key last read from it.
///
/// Keys rotate: Kubernetes swaps a symbolic link, systemd and secret agents rewrite the file. Whoever sends the key asks
/// [`current`](Self::current); [`refresh`](Self::refresh) is called now and then, and [`reload`](Self::reload) when
/// Clerk answers 401. A key that cannot be read leaves the one before in place, and is tried again at each call until it can be.
///
/// All methods block for one small file at most.
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
    /// Whether it was tried to read the source.
    was_read: bool,
}

impl KeySource {
    /// A source that was not read yet.
    pub fn new(source: SecretSource) -> Self {
        Self::counting(source, Arc::default())
    }

    /// The same of a machine's secret key (`ak_`).
    pub fn of_machine(source: SecretSource) -> Self {
        Self::new(source).for_machine()
    }

    /// The same, with attempts to read it counted here.
    pub fn counting(source: SecretSource, stats: Arc<ReloadStats>) -> Self {
        let state = State { watched: WatchedFiles::new(stats), ..State::default() };
        Self { source, is_machine: false, state: Mutex::new(state) }
    }

    /// The same of a machine's secret key (`ak_`).
    #[must_use]
    pub fn for_machine(self) -> Self {
        Self { is_machine: true, ..self }
    }

    /// Where the key is kept.
    pub const fn source(&self) -> &SecretSource {
        &self.source
    }

    /// The key last read; reads it if there is none yet.
    ///
    /// # Errors
    ///
    /// If no usable key was ever read and there is none now.
    pub fn current(&self) -> Result<Arc<ClerkKey>, SecretError> {
        let mut state = self.state.lock();
        if let Some(key) = &state.key {
            return Ok(Arc::clone(key));
        }
        self.read_into(&mut state).map(|(key, _)| key)
    }

    /// Reads the source again. Returns whether the key is another one than before; the first one that is ever read is
    /// not, unless the source was found to hold none before.
    ///
    /// # Errors
    ///
    /// If the source holds no usable key now. [`current`](Self::current) still gives the key before.
    pub fn reload(&self) -> Result<bool, SecretError> {
        self.read_into(&mut self.state.lock()).map(|(_, changed)| changed)
    }

    /// Whether there is another key than the one that Clerk refused, after reading the source again: a retry with it is
    /// worthwhile. Somebody else may have read it first. A source that cannot be read leaves the refused key in place.
    pub fn replaces(&self, refused: &ClerkKey) -> bool {
        let _ = self.reload();
        self.current().is_ok_and(|current| *current != *refused)
    }

    /// Whether the file may hold another key than when it was last read: it could not be read or used, it was touched or
    /// replaced since, or it had been written so short a time before that a further write would not show. Always false for
    /// other sources: they cannot change while we run.
    pub fn changed(&self) -> bool {
        self.is_outdated(&self.state.lock())
    }

    /// [`reload`](Self::reload) if the file [`changed`](Self::changed). Returns whether the key is another one: a
    /// touched file with the same key in it is no change.
    ///
    /// # Errors
    ///
    /// As [`reload`](Self::reload). A file that stays unusable is tried again at every call and reported once for each
    /// reason.
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
            tracing::info!(source = %self.source, "the secret key can be read again");
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

    /// Makes a file old enough that a further write would show.
    fn age(path: &Path) {
        let time = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn key_of(source: &KeySource) -> String {
        source.current().unwrap().secret().expose().to_owned()
    }

    #[test]
    fn a_key_in_the_configuration_is_read_once_and_never_changes() {
        let source = KeySource::new(SecretSource::Inline(Secret::new("sk_test_first1".to_owned())));
        assert_eq!(key_of(&source), "sk_test_first1");
        assert!(!source.changed());
        assert_eq!(source.reload(), Ok(false));
    }

    #[test]
    fn the_first_key_replaces_none_but_one_that_was_missing_does() {
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
    fn a_replaced_file_is_read_again() {
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
        assert_eq!(key_of(&source), "sk_test_first1", "nothing changes until somebody asks for it");
        assert_eq!(source.refresh(), Ok(true));
        assert_eq!(key_of(&source), "sk_test_other2");
        age(&path);
        assert_eq!(source.refresh(), Ok(false));
        assert!(!source.changed());
    }

    #[test]
    fn a_file_replaced_by_one_with_the_same_key_is_no_change() {
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
    fn the_symlink_swap_of_kubernetes_is_noticed() {
        use std::os::unix::fs::symlink;
        // As the kubelet lays a secret volume out: key -> ..data/key, ..data -> ..<timestamp>, swapped by a rename.
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
    fn a_file_that_becomes_unusable_leaves_the_key_in_place_and_is_reported_once() {
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
    fn a_file_that_is_refused_is_tried_again_and_counted_until_it_is_right() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "sk_test_first1").unwrap();
        let stats = Arc::new(ReloadStats::default());
        let source = KeySource::counting(SecretSource::File(path.clone()), Arc::clone(&stats));
        source.current().unwrap();
        // Half of a write, which is over before the next look: neither size nor time tells the two apart.
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
    fn a_key_of_the_same_length_within_one_tick_is_noticed() {
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
    fn a_source_without_a_key_is_tried_again_at_every_call() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let source = KeySource::new(SecretSource::File(path.clone()));
        assert!(source.current().is_err());
        fs::write(&path, "sk_test_late1").unwrap();
        assert_eq!(key_of(&source), "sk_test_late1");
    }
}
