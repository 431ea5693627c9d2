//! The web configuration file as it is now: read again whenever it or a file that it names has changed.

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

/// How often a file that cannot be used is tried again, even if nothing in its looks has changed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Where the web configuration comes from. Cheap to clone; clones share everything.
#[derive(Clone, Default)]
pub struct WebConfigSource {
    watched: Option<Arc<Watched>>,
}

/// A kind of file that is read again while running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebConfigFile {
    /// The web configuration itself.
    WebConfig,
    /// The certificate and its private key.
    TlsCertificate,
    /// The authorities that sign the clients' certificates.
    ClientCa,
}

impl WebConfigFile {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::WebConfig, Self::TlsCertificate, Self::ClientCa];

    /// The kind as a label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebConfig => "web_config",
            Self::TlsCertificate => "tls_certificate",
            Self::ClientCa => "client_ca",
        }
    }

    /// The kind of the file that is to blame.
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

/// How often files of one kind were read, the first time included, and how that went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileReloads {
    /// Times they could not be used; what was in force before stayed in force.
    pub failures: u64,
    /// Times they could.
    pub successes: u64,
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
    /// The last that could be used.
    current: Arc<WebConfig>,
    /// What is wrong with what came after it, and when that was last tried.
    failing: Option<(String, Instant)>,
    reloads: [FileReloads; WebConfigFile::ALL.len()],
}

impl WebConfigSource {
    /// No web configuration: plain HTTP for everybody.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads a web configuration file and watches it from now on. A change that cannot be used is logged and counted
    /// ([`WebConfigSource::reloads`]), and tried again until it can; until then all stays as it was. A certificate that
    /// cannot be used keeps nothing else of the file from coming into force.
    ///
    /// # Errors
    /// The file, or one that it names, cannot be read or used.
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

    /// Whether clients have to use `https`. Fixed from the start on: a change needs a restart.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.state.lock().current.tls.is_some())
    }

    /// Whether clients have to present a name and a password in `Authorization`. That may change with the file.
    #[must_use]
    pub fn wants_passwords(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.state.lock().current.users.is_some())
    }

    /// How reading files of a kind went so far. Looks at them first.
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
    /// The configuration of this moment, or the last that could be used.
    ///
    /// Costs one `stat` a file when nothing has changed. It is made right here and not on a thread for blocking work:
    /// the answer comes from the kernel's cache in about a microsecond.
    pub(crate) fn current(&self) -> Arc<WebConfig> {
        let mut state = self.state.lock();
        let is_due = state.failing.as_ref().is_some_and(|(_, tried_at)| tried_at.elapsed() >= TRY_AGAIN_AFTER);
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
            Ok(_) => Some(Problem::key("tls_server_config", "TLS cannot be switched on or off while running; restart")),
            Err(problem) => Some(problem),
        };
        state.count(problem.as_ref());
        let Some(problem) = problem else {
            if state.failing.take().is_some() {
                info!(file = %self.path.display(), "the web configuration can be used again");
            }
            return;
        };
        let problem = WebConfigError::new(&self.path, problem).to_string();
        if state.failing.as_ref().is_none_or(|(old, _)| *old != problem) {
            error!(error = %problem, "a changed web configuration cannot be used; what was in force stays in force");
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

/// A configuration, with what is wrong with a part of it that stays as it was.
type Loaded = Result<(WebConfig, Option<Problem>), Problem>;

/// Reads the file and what it names; the snapshots are there also when something is wrong. Certificates that cannot be used
/// are an error, or, if there is a configuration before, those of that one stay.
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
                assert!(watched.current().users.is_none());
            }
            let failures = source.reloads(WebConfigFile::WebConfig).failures;
            assert!(failures >= 3, "each try is counted: {failures}");
            std::fs::write(&path, "").unwrap();
            watched.current();
            assert_eq!(source.reloads(WebConfigFile::WebConfig).failures, failures);
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
