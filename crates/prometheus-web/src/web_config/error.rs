//! Errors of a web configuration file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An invalid web configuration file. The message names the file, the key and what to write.
///
/// It never contains a value of the file that could be a secret.
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

    /// Returns the path of the web configuration file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the invalid key, such as `tls_server_config.cert_file`, if it is a single one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match &self.problem {
            Problem::Key { key, .. } => Some(key),
            Problem::Unreadable(_) | Problem::Yaml(_) => None,
        }
    }
}

/// The error without the file name.
#[derive(Debug)]
pub(super) enum Problem {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// Invalid YAML, an unknown key, or a value of the wrong type.
    Yaml(String),
    /// An invalid value.
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
