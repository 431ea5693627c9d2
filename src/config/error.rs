//! Errors of a configuration.

use std::fmt;
use std::path::PathBuf;

/// A position in the configuration file. Line and column start at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

/// A problem in the configuration: an error or a warning.
///
/// Printed as `file:line:column: key: cause; remedy`. Values are never repeated: a wrong value may be a key pasted into
/// the wrong line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file, if the configuration comes from one.
    pub file: Option<PathBuf>,
    /// Position in the file; `None` for the file as a whole.
    pub place: Option<Position>,
    /// Full name of the key, such as `instances[0].probe.interval`, or of an environment variable. Empty for the
    /// configuration as a whole.
    pub key: String,
    /// The cause and the remedy.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(Position { line, column }) = self.place {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// An invalid configuration. Displays one problem per line, in file order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(problems))]
pub struct ConfigError {
    /// Never empty.
    pub problems: Vec<ConfigProblem>,
}

fn lines(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ConfigProblem::to_string).collect::<Vec<_>>().join("\n")
}
