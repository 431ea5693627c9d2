//! The `clerk-exporter` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    clerk_exporter::cli::main()
}
