//! Flags of `man`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Command whose page to write, such as check or users export; by default the program's
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    pub(crate) command: Vec<String>,

    /// Write the pages of all commands to this folder, which must exist
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}
