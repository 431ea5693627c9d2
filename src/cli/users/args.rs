//! What may be typed after `users`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// What to do with users.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// Write all users of an instance, oldest first, as fast as the rate limit allows
    ///
    /// Leaves a tenth of the limit to others and causes no 429 by itself. With --output, an export that ended early
    /// goes on with --resume: the place is kept in a file beside the output, with .resume after its name. Files are
    /// readable by their owner only, since they hold personal data. On a terminal, progress is shown on standard error.
    ///
    /// Exits with 0 if all users were written, by this run or, with --resume, by an earlier one (or the reader of a pipe went away), 1 if not, 2 if the command line is
    /// wrong.
    Export(ExportArgs),
    /// Write the users with these ids, a request for each hundred of them
    ///
    /// In the order of the file, each once. Ids that no user has are named on standard error.
    ///
    /// Exits with 0 if all were found (or the reader of a pipe went away), 1 if it could not be done, 2 if the command
    /// line is wrong, 3 if it was done and some do not exist.
    Get(GetArgs),
}

/// Flags of `users export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Flags that both commands have.
    #[command(flatten)]
    pub target: TargetArgs,

    /// Go on where an earlier export to this --output ended; begin if there was none, and do nothing if it is complete
    #[arg(long, requires = "output", conflicts_with = "force")]
    pub resume: bool,
}

/// Flags of `users get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// File with the ids, one in a line; empty lines and those that begin with # are left out. - is standard input
    #[arg(long = "ids-file", value_name = "PATH")]
    pub ids_file: PathBuf,

    /// Flags that both commands have.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// What to write, of which instance, and where to.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// How to write users
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    pub format: UserFormat,

    /// File to write to; without it, standard output. One that exists is not overwritten
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,

    /// Overwrite the --output that exists
    #[arg(long, requires = "output")]
    pub force: bool,

    /// The instance, by its name in the configuration; needed if there are several
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
}

/// How users are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserFormat {
    /// One JSON object a line, as Clerk wrote it: nothing is lost.
    Jsonl,
    /// A fixed set of columns under a header; metadata as JSON. Text is not changed: open it in a spreadsheet only with
    /// all columns as text, since users can choose names that begin with = and are formulas there.
    Csv,
}

impl std::fmt::Display for UserFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        })
    }
}
