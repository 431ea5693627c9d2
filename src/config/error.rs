//! What is said when a configuration cannot be used.

use std::fmt;
use std::path::PathBuf;

/// A place in the configuration file, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

/// One thing that is wrong, or questionable, in the configuration.
///
/// Printed as `file:line:column: key: what is wrong; what to write instead`. Values are never repeated: the one that is
/// wrong may be a key that was pasted into the wrong line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file, if the configuration is one.
    pub file: Option<PathBuf>,
    /// Where in the file; unknown for the file as a whole.
    pub place: Option<Position>,
    /// The full name of the key, as `instances[0].probe.interval`, or the name of an environment variable. Empty for
    /// the configuration as a whole.
    pub key: String,
    /// What is wrong, and what to write instead.
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

/// A configuration that cannot be used. Prints every problem on a line of its own, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(problems))]
pub struct ConfigError {
    /// Never empty.
    pub problems: Vec<ConfigProblem>,
}

fn lines(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ConfigProblem::to_string).collect::<Vec<_>>().join("\n")
}
