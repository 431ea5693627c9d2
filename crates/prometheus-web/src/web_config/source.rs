//! The web configuration file as it is now: read again whenever it or a file that it names has changed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use file_fingerprint::FileFingerprint;
use parking_lot::Mutex;
use tracing::{error, info};

use super::basic_auth::Authenticator;
use super::error::{Problem, WebConfigError};
use super::rate_limit::TokenBucket;
use super::{WebConfig, file::File};

/// Where the web configuration comes from. Cheap to clone; clones share everything.
#[derive(Clone, Default)]
pub struct WebConfigSource {
    watched: Option<Arc<Watched>>,
}

/// A file under watch, and what outlives its changes.
pub(crate) struct Watched {
    path: PathBuf,
    state: Mutex<State>,
    pub(super) authenticator: Authenticator,
    pub(super) bucket: Mutex<Option<TokenBucket>>,
}

struct State {
    files: Vec<Snapshot>,
    current: Result<Arc<WebConfig>, Arc<WebConfigError>>,
    /// The last one that could be used: TLS handshakes go on with it, so that a client can read why it gets a 500.
    last_good: Arc<WebConfig>,
}

impl WebConfigSource {
    /// No web configuration: plain HTTP for everybody.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads a web configuration file and watches it from now on.
    ///
    /// # Errors
    /// The file, or one that it names, cannot be read or used.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, WebConfigError> {
        let path = path.into();
        let (files, loaded) = load(&path);
        let config = Arc::new(loaded?);
        Ok(Self {
            watched: Some(Arc::new(Watched {
                path,
                state: Mutex::new(State { files, current: Ok(Arc::clone(&config)), last_good: config }),
                authenticator: Authenticator::new(),
                bucket: Mutex::new(None),
            })),
        })
    }

    /// Whether clients have to use `https`. Fixed from the start on: a change needs a restart.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.state.lock().last_good.tls.is_some())
    }

    /// Whether clients have to present a name and a password in `Authorization`. That may change with the file.
    #[must_use]
    pub fn wants_passwords(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.state.lock().last_good.users.is_some())
    }

    pub(crate) fn watched(&self) -> Option<&Watched> {
        self.watched.as_deref()
    }
}

impl Watched {
    /// The configuration of this moment.
    ///
    /// Costs one `stat` a file when nothing has changed. It is made right here and not on a thread for blocking work:
    /// the answer comes from the kernel's cache in about a microsecond.
    pub(crate) fn current(&self) -> Result<Arc<WebConfig>, Arc<WebConfigError>> {
        let mut state = self.state.lock();
        if state.files.iter().any(Snapshot::is_outdated) {
            self.reload(&mut state);
        }
        state.current.clone()
    }

    /// The configuration for a TLS handshake: the current one, or the last that could be used.
    pub(crate) fn for_handshake(&self) -> Arc<WebConfig> {
        self.current().unwrap_or_else(|_| Arc::clone(&self.state.lock().last_good))
    }

    fn reload(&self, state: &mut State) {
        let (files, loaded) = load(&self.path);
        state.files = files;
        let loaded = loaded.and_then(|config| {
            if config.tls.is_some() == state.last_good.tls.is_some() {
                return Ok(config);
            }
            Err(WebConfigError::new(
                &self.path,
                Problem::key("tls_server_config", "TLS cannot be switched on or off while running; restart"),
            ))
        });
        match loaded {
            Ok(config) => {
                if state.current.is_err() {
                    info!(file = %self.path.display(), "the web configuration can be used again");
                }
                state.last_good = Arc::new(config);
                state.current = Ok(Arc::clone(&state.last_good));
            }
            Err(problem) => {
                let is_news = state.current.as_ref().err().is_none_or(|old| old.to_string() != problem.to_string());
                if is_news {
                    error!(error = %problem, "every request gets a 500 until the web configuration is corrected");
                }
                state.current = Err(Arc::new(problem));
            }
        }
    }
}

/// Reads the file and what it names; the snapshots are there also when something is wrong.
fn load(path: &Path) -> (Vec<Snapshot>, Result<WebConfig, WebConfigError>) {
    let mut reader = Reader { folder: path.parent().unwrap_or(Path::new("")).to_owned(), files: Vec::new() };
    let loaded = reader
        .read(path)
        .map_err(Problem::Unreadable)
        .and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| Problem::Yaml("the web configuration is not UTF-8".to_owned()))
        })
        .and_then(|text| File::parse(&text))
        .and_then(|file| WebConfig::new(&file, &mut reader))
        .map_err(|problem| WebConfigError::new(path, problem));
    (reader.files, loaded)
}

/// Reads files and remembers how they looked.
pub(super) struct Reader {
    /// The folder of the web configuration file, which relative paths are relative to.
    folder: PathBuf,
    files: Vec<Snapshot>,
}

impl Reader {
    /// The path as seen from the working directory.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        // First the fingerprint, then the content: a change between the two is seen the next time.
        let fingerprint = FileFingerprint::of(path);
        let content = std::fs::read(path);
        // A failure may pass without a trace in the fingerprint: too many open files, a disk that was away.
        self.files.push(Snapshot { path: path.to_owned(), fingerprint, was_read: content.is_ok() });
        content
    }
}

/// How a file looked when it was read.
struct Snapshot {
    path: PathBuf,
    fingerprint: Option<FileFingerprint>,
    was_read: bool,
}

impl Snapshot {
    fn is_outdated(&self) -> bool {
        !self.was_read || !FileFingerprint::is_current(self.fingerprint.as_ref(), &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn reader(folder: &Path) -> Reader {
        Reader { folder: folder.to_owned(), files: Vec::new() }
    }

    #[test]
    fn an_old_file_is_read_again_only_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(hour_ago).unwrap();

        let mut reader = reader(folder.path());
        reader.read(&path).unwrap();
        assert!(!reader.files[0].is_outdated());
        std::fs::write(&path, "two").unwrap();
        assert!(reader.files[0].is_outdated());
        std::fs::remove_file(&path).unwrap();
        assert!(reader.files[0].is_outdated());
    }

    #[test]
    fn a_file_that_was_just_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut reader = reader(folder.path());
        reader.read(&path).unwrap();
        assert!(reader.files[0].is_outdated());
    }

    #[test]
    fn what_could_not_be_read_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = reader(folder.path());
        // A folder cannot be read as a file.
        assert!(reader.read(folder.path()).is_err());
        assert!(reader.files[0].is_outdated());
    }

    #[test]
    fn an_unusable_file_is_logged_once_and_shows_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yml");
        std::fs::write(&path, "").unwrap();
        let source = WebConfigSource::open(&path).unwrap();
        let watched = source.watched().unwrap();
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            std::fs::write(&path, "basic_auth_users: {alice: CANARY}\n").unwrap();
            for _ in 0..3 {
                assert!(watched.current().is_err());
            }
            std::fs::write(&path, "").unwrap();
            assert!(watched.current().is_ok());
        });
        let log = log.text();
        assert_eq!(log.matches("ERROR").count(), 1, "{log}");
        assert!(log.contains("web.yml") && log.contains("basic_auth_users.alice"), "{log}");
        assert!(log.contains("can be used again") && !log.contains("CANARY"), "{log}");
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let reader = reader(Path::new("/etc/exporter"));
        assert_eq!(reader.resolve(Path::new("tls/cert.pem")), Path::new("/etc/exporter/tls/cert.pem"));
        assert_eq!(reader.resolve(Path::new("/run/cert.pem")), Path::new("/run/cert.pem"));
    }
}
