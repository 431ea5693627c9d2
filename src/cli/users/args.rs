//! Flags of `users`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cli::args::{ConfigFlags, LogFlags};

/// Flags of `users`.
#[derive(Debug, Args)]
pub(crate) struct UsersArgs {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: UsersCommand,

    /// The configuration.
    #[command(flatten)]
    pub(crate) config: ConfigFlags,

    /// The log.
    #[command(flatten)]
    pub(crate) log: LogFlags,
}

/// Commands of `users`.
#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Write all users of an instance, oldest first, as fast as the rate limit allows
    ///
    /// Leaves a tenth of the limit to other clients and causes no 429. With --output, --resume continues an export that
    /// ended early: a file beside the output, with .resume after its name, records the position. Only their owner can
    /// read the files, since they hold personal data. On a terminal, progress is shown on standard error.
    ///
    /// Exits with 0 if all users were written, by this run or, with --resume, by an earlier one, or if the reader of a
    /// pipe closed it; 1 if not; 2 if the command line is wrong.
    Export(ExportArgs),
    /// Write the users with these ids, a hundred per request
    ///
    /// Users are written in the order of the ids, each once: first the arguments, then the file. Ids without a user are
    /// listed on standard error.
    ///
    /// Exits with 0 if all users were found or the reader of a pipe closed it, 1 on failure, 2 if the command line is
    /// wrong, 3 if some users do not exist.
    Get(GetArgs),
}

/// Flags of `users export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Where to write.
    #[command(flatten)]
    pub(crate) target: TargetArgs,

    /// Continue an earlier export to this --output; start if there was none, do nothing if it is complete
    #[arg(long, requires = "output", conflicts_with = "force")]
    pub(crate) resume: bool,
}

/// Flags of `users get`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").args(["ids", "ids_file"]).required(true).multiple(true))]
pub(crate) struct GetArgs {
    /// Ids of users
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,

    /// File with ids, one per line; empty lines and lines that begin with # are skipped; - is standard input
    #[arg(long = "ids-file", value_name = "PATH")]
    pub(crate) ids_file: Option<PathBuf>,

    /// Where to write.
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// Instance, format and output.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Format of users
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    pub(crate) format: UserFormat,

    /// File to write to, which must not exist; by default standard output
    #[arg(long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,

    /// Overwrite an existing --output
    #[arg(long, requires = "output")]
    pub(crate) force: bool,

    /// Name of the instance in the configuration; required if there are several
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<String>,
}

/// Format of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UserFormat {
    /// One JSON object per line, unchanged from Clerk
    Jsonl,
    /// A header and fixed columns, metadata as JSON. Text is unchanged: import all columns into a spreadsheet as text,
    /// since a user's name that begins with = would be a formula there
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
