//! The current web configuration: reloaded whenever the file, or a file that it names, changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use file_fingerprint::FileFingerprint;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{error, info};

use super::basic_auth::Authenticator;
use super::error::{Problem, WebConfigError};
use super::rate_limit::TokenBucket;
use super::{WebConfig, file::File};

/// How often an invalid file is read again, even if it does not seem to have changed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The source of the web configuration. Cheap to clone; clones share all state.
#[derive(Clone, Default)]
pub struct WebConfigSource {
    watched: Option<Arc<Watched>>,
}

/// A kind of file that is reloaded at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebConfigFile {
    /// The web configuration itself.
    WebConfig,
    /// The certificate and its private key.
    TlsCertificate,
    /// The authorities that sign client certificates.
    ClientCa,
}

impl WebConfigFile {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::WebConfig, Self::TlsCertificate, Self::ClientCa];

    /// Returns the kind as a label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebConfig => "web_config",
            Self::TlsCertificate => "tls_certificate",
            Self::ClientCa => "client_ca",
        }
    }

    /// Returns the kind of the invalid file.
    pub(super) fn of(problem: &Problem) -> Self {
        match problem {
            Problem::Key { key, .. } => match key.strip_prefix("tls_server_config.") {
                Some("cert" | "cert_file" | "key" | "key_file") => Self::TlsCertificate,
                Some("client_ca" | "client_ca_file") => Self::ClientCa,
                _ => Self::WebConfig,
            },
            Problem::Unreadable(_) | Problem::Yaml(_) => Self::WebConfig,
        }
    }
}

/// Counts of attempts to read files of one kind, including the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileReloads {
    /// Attempts that failed; the previous content stayed in force.
    pub failures: u64,
    /// Attempts that succeeded.
    pub successes: u64,
}

/// A watched file, and the state that outlives its changes.
pub(crate) struct Watched {
    path: PathBuf,
    state: Mutex<State>,
    pub(super) authenticator: Authenticator,
    pub(super) bucket: Mutex<Option<TokenBucket>>,
}

struct State {
    files: Vec<Snapshot>,
    /// The last valid configuration.
    current: Arc<WebConfig>,
    /// The error of the current file, and when it was last tried.
    failing: Option<(String, Instant)>,
    reloads: [FileReloads; WebConfigFile::ALL.len()],
}

impl WebConfigSource {
    /// Creates a source without a web configuration: plain HTTP without passwords.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads a web configuration file and watches it from now on.
    ///
    /// An invalid change is logged, counted ([`WebConfigSource::reloads`]) and retried until it is valid; until then
    /// the previous configuration stays in force. An invalid certificate does not prevent the rest of the file from
    /// taking effect.
    ///
    /// # Errors
    /// Returns an error if the file, or one that it names, cannot be read or is invalid.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, WebConfigError> {
        let path = path.into();
        let (files, loaded) = load(&path, None);
        let (config, _) = loaded.map_err(|problem| WebConfigError::new(&path, problem))?;
        let mut state = State { files, current: Arc::new(config), failing: None, reloads: [FileReloads::default(); 3] };
        state.count(None);
        Ok(Self {
            watched: Some(Arc::new(Watched {
                path,
                state: Mutex::new(state),
                authenticator: Authenticator::new(),
                bucket: Mutex::new(None),
            })),
        })
    }

    /// Returns whether clients have to use `https`. Fixed at startup: a change requires a restart.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.state.lock().current.tls.is_some())
    }

    /// Returns whether clients have to send a user name and password. This can change with the file.
    #[must_use]
    pub fn wants_passwords(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.state.lock().current.users.is_some())
    }

    /// Returns whether every client has to authenticate, by a password or by a certificate that is verified. This can
    /// change with the file.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| {
            let current = &watched.state.lock().current;
            current.users.is_some() || current.requires_client_cert
        })
    }

    /// Returns the attempts to read files of a kind, after checking the files for changes.
    #[must_use]
    pub fn reloads(&self, kind: WebConfigFile) -> FileReloads {
        let Some(watched) = &self.watched else { return FileReloads::default() };
        watched.current();
        watched.state.lock().reloads[kind as usize]
    }

    pub(crate) fn watched(&self) -> Option<&Watched> {
        self.watched.as_deref()
    }
}

impl Watched {
    /// Returns the current configuration, or the last valid one.
    ///
    /// Costs one `stat` per file if nothing has changed. It is called inline and not on a blocking thread: the kernel
    /// responds from its cache in about a microsecond.
    pub(crate) fn current(&self) -> Arc<WebConfig> {
        let mut state = self.state.lock();
        let is_due = state.failing.as_ref().is_some_and(|(_, tried_at)| tried_at.elapsed() >= RETRY_INTERVAL);
        if is_due || state.files.iter().any(Snapshot::is_outdated) {
            self.reload(&mut state);
        }
        Arc::clone(&state.current)
    }

    fn reload(&self, state: &mut State) {
        let (files, loaded) = load(&self.path, Some(&state.current));
        state.files = files;
        let problem = match loaded {
            Ok((config, problem)) if config.tls.is_some() == state.current.tls.is_some() => {
                state.current = Arc::new(config);
                problem
            }
            Ok(_) => Some(Problem::key("tls_server_config", "TLS cannot be enabled or disabled at run time; restart")),
            Err(problem) => Some(problem),
        };
        state.count(problem.as_ref());
        let Some(problem) = problem else {
            if state.failing.take().is_some() {
                info!(file = %self.path.display(), "the web configuration is valid again");
            }
            return;
        };
        let problem = WebConfigError::new(&self.path, problem).to_string();
        if state.failing.as_ref().is_none_or(|(old, _)| *old != problem) {
            error!(error = %problem, "the changed web configuration is invalid; the previous one stays in force");
        }
        state.failing = Some((problem, Instant::now()));
    }
}

impl State {
    fn count(&mut self, problem: Option<&Problem>) {
        let blamed = problem.map(WebConfigFile::of);
        let is_partial = blamed != Some(WebConfigFile::WebConfig);
        let has = [true, self.current.tls.is_some(), self.current.has_client_ca];
        for ((kind, has), reloads) in WebConfigFile::ALL.into_iter().zip(has).zip(&mut self.reloads) {
            if blamed == Some(kind) {
                reloads.failures += 1;
            } else if has && (blamed.is_none() || (is_partial && kind == WebConfigFile::WebConfig)) {
                reloads.successes += 1;
            }
        }
    }
}

/// A configuration, with the error of a part that was replaced by the previous one.
type Loaded = Result<(WebConfig, Option<Problem>), Problem>;

/// Reads the file and those that it names. The snapshots are returned even in case of an error.
///
/// Invalid certificates are an error, unless a previous configuration provides valid ones.
fn load(path: &Path, before: Option<&WebConfig>) -> (Vec<Snapshot>, Loaded) {
    let mut reader = Reader { folder: path.parent().unwrap_or(Path::new("")).to_owned(), files: Vec::new() };
    let loaded = reader
        .read(path)
        .map_err(Problem::Unreadable)
        .and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| Problem::Yaml("the web configuration is not UTF-8".to_owned()))
        })
        .and_then(|text| File::parse(&text))
        .and_then(|file| WebConfig::new(&file, &mut reader, before));
    (reader.files, loaded)
}

/// Reads files and records their fingerprints.
pub(super) struct Reader {
    /// The folder of the web configuration file; relative paths are relative to it.
    folder: PathBuf,
    files: Vec<Snapshot>,
}

impl Reader {
    /// Returns the path relative to the working directory.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        // Fingerprint first, then content: a change between the two is detected the next time.
        let fingerprint = FileFingerprint::of(path);
        let content = std::fs::read(path);
        // A failure may leave no trace in the fingerprint: too many open files, an unavailable disk.
        self.files.push(Snapshot { path: path.to_owned(), fingerprint, was_read: content.is_ok() });
        content
    }
}

/// The state of a file when it was read.
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
    fn old_file_is_reloaded_only_when_changed() {
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
    fn recently_written_file_is_reloaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut reader = reader(folder.path());
        reader.read(&path).unwrap();
        assert!(reader.files[0].is_outdated());
    }

    #[test]
    fn unreadable_file_is_retried() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = reader(folder.path());
        // A folder cannot be read as a file.
        assert!(reader.read(folder.path()).is_err());
        assert!(reader.files[0].is_outdated());
    }

    #[test]
    fn invalid_file_is_logged_once_without_secrets() {
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
                assert!(watched.current().users.is_none());
            }
            let failures = source.reloads(WebConfigFile::WebConfig).failures;
            assert!(failures >= 3, "each attempt is counted: {failures}");
            std::fs::write(&path, "").unwrap();
            watched.current();
            assert_eq!(source.reloads(WebConfigFile::WebConfig).failures, failures);
        });
        let log = log.text();
        assert_eq!(log.matches("ERROR").count(), 1, "{log}");
        assert!(log.contains("web.yml") && log.contains("basic_auth_users.alice"), "{log}");
        assert!(log.contains("is valid again") && !log.contains("CANARY"), "{log}");
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
