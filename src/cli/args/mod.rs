//! The command line: commands here, flags that several commands share in [`flags`].

mod flags;
mod value;

use clap::{Parser, Subcommand};

pub(crate) use super::analyze::args::AnalyzeArgs;
pub(crate) use super::check::args::CheckArgs;
pub(crate) use super::demo::args::DemoArgs;
pub(crate) use super::man::args::ManArgs;
pub(crate) use super::simulate::args::SimulateArgs;
pub(crate) use super::test::args::TestArgs;
pub(crate) use super::users::args::UsersArgs;
pub(crate) use flags::{ConfigFlags, ExporterFlags, LogFlags, LogFormat, LogLevel, WebFlags};
pub(super) use value::probe_interval;

use crate::metrics::build;

/// Watch the rate limits of Clerk's Backend API: a Prometheus exporter
///
/// With CLERK_SECRET_KEY (or CLERK_SECRET_KEY_FILE) set, no configuration is needed. `clerk-exporter demo` runs without
/// an account.
///
/// Every flag has an environment variable, shown beside it as [env: NAME], except --config.check, --help and --version.
/// A flag wins over its variable. No flag takes a key: other users of the machine could read it.
///
/// Durations have units, as in 30s, 1h 30m or 500ms; a bare number is seconds.
#[derive(Debug, Parser)]
#[command(name = "clerk-exporter", version, long_version = long_version(), max_term_width = 100)]
#[command(subcommand_value_name = "COMMAND", after_help = "Documentation: README.md and docs/ of the project.")]
pub(crate) struct Cli {
    /// The command; without one, the exporter runs.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Flags of the exporter.
    #[command(flatten)]
    pub(crate) exporter: ExporterFlags,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a self-contained demo: exporter, gateway, simulated Clerk API and generated load
    Demo(DemoArgs),
    /// Probe each instance once and print its quota
    ///
    /// Exits with 0 if all is well, 1 if less than the threshold is left or Clerk answers 429, 2 if the quota is unknown.
    Check(CheckArgs),
    /// Say from recorded logs who spends the quota, which windows were low, and what each policy would have saved
    ///
    /// Reads JSON access logs of nginx, Envoy, Caddy and this program's gateway, HAR, and OTLP JSON lines. The format of
    /// each line is known by its content. Nothing is sent anywhere, and no path, id or user is shown.
    Analyze(AnalyzeArgs),
    /// Run the simulated Clerk API alone, for tests of applications
    Simulate(SimulateArgs),
    /// Run a test suite against the simulated Clerk API, and say which requests it sent
    ///
    /// The command gets CLERK_API_URL and made-up keys. Exits as the command does; with 1 if it succeeded but sent more
    /// requests than allowed.
    Test(TestArgs),
    /// Write users of an instance to a file or a pipe, within Clerk's rate limit
    Users(UsersArgs),
    /// Write a shell's completions to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages
    ///
    /// Without arguments, writes the page of the program to standard output.
    Man(ManArgs),
}

/// In the manner of Prometheus' programs.
fn long_version() -> String {
    format!(
        "{version} (revision: {revision})\n  rust version:     {rust}\n  platform:         {os}/{arch}",
        version = build::VERSION,
        revision = build::REVISION,
        rust = build::RUST_VERSION,
        os = std::env::consts::OS,
        arch = std::env::consts::ARCH,
    )
}
