//! Flags of `check`.

use clap::{Args, ValueEnum};

use crate::cli::args::{ConfigFlags, LogFlags};

/// Flags of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Format of the result
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: CheckFormat,

    /// Show each probe step by step, below the table or as `steps`
    #[arg(long)]
    pub(crate) verbose: bool,

    /// The configuration.
    #[command(flatten)]
    pub(crate) config: ConfigFlags,

    /// The log.
    #[command(flatten)]
    pub(crate) log: LogFlags,
}

/// Format of the result of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// For people
    Table,
    /// For programs
    Json,
}
