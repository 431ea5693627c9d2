//! What can be wrong with a web configuration file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A web configuration file that cannot be used. The message names the file, the key and what to write.
///
/// It never holds a value of the file that could be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct WebConfigError {
    file: PathBuf,
    problem: Problem,
}

impl WebConfigError {
    pub(super) fn new(file: &Path, problem: Problem) -> Self {
        Self { file: file.to_owned(), problem }
    }

    /// The web configuration file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The key at fault, as in `tls_server_config.cert_file`, where it is a single one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match &self.problem {
            Problem::Key { key, .. } => Some(key),
            Problem::Unreadable(_) | Problem::Yaml(_) => None,
        }
    }
}

/// What is wrong, without the name of the file.
#[derive(Debug)]
pub(super) enum Problem {
    /// The file itself cannot be read.
    Unreadable(io::Error),
    /// No YAML, an unknown key, or a value of the wrong type.
    Yaml(String),
    /// A value that cannot be used.
    Key { key: String, reason: String },
}

impl Problem {
    pub(super) fn key(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Key { key: key.into(), reason: reason.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "the web configuration cannot be read: {error}"),
            Self::Yaml(message) => f.write_str(message),
            Self::Key { key, reason } => write!(f, "{key}: {reason}"),
        }
    }
}
