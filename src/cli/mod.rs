//! The commands. Results go to standard output, everything else to the log on standard error.

mod analyze;
mod args;
mod check;
mod command_line;
mod demo;
mod environment;
mod exporter;
mod log_format;
mod logging;
mod man;
mod simulate;
mod test;
mod users;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use command_line::command;

use crate::app::{ConfigSource, on_termination};
use args::{Cli, Command, ConfigFlags, LogFlags, LogLevel};
use clerk_client::secret::{mask_secrets, process_env};
use clerk_client::transport::environment_warnings;
use command_line::RefusedArguments;

/// Runs the command line. Exits with 0 on success, 1 on failure, 2 if the command line is wrong; commands may have others.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match command_line::parse(std::env::args_os(), &process_env) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let log = log_flags(&cli);
    logging::start(log.log_level, log.log_format);
    let runtime = environment::worker_threads(&process_env).and_then(|threads| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads).enable_all().build().context("cannot start the runtime")
    });
    let done = runtime.and_then(|runtime| {
        let done = runtime.block_on(run(cli));
        // A lookup at a name server that does not respond blocks a thread that cannot be ended.
        runtime.shutdown_background();
        done
    });
    done.unwrap_or_else(|error| {
        report(&error);
        ExitCode::FAILURE
    })
}

/// The flags of the log, of the command or of the exporter.
fn log_flags(cli: &Cli) -> LogFlags {
    match &cli.command {
        None => cli.exporter.log,
        Some(Command::Demo(args)) => args.log,
        Some(Command::Analyze(args)) => args.log,
        Some(Command::Check(args)) => args.log,
        Some(Command::Simulate(args)) => args.log,
        // The suite's own output is on the same stream.
        Some(Command::Test(_)) => LogFlags { log_level: LogLevel::Warn, ..LogFlags::default() },
        Some(Command::Users(args)) => args.log,
        Some(Command::Completions { .. } | Command::Man(_)) => LogFlags::default(),
    }
}

/// Prints an error. It may contain an argument, such as a path.
fn report(error: &anyhow::Error) {
    let _ = writeln!(anstream::stderr(), "clerk-exporter: {}", mask_secrets(&format!("{error:#}")));
}

/// Prints what is wrong with the command line, or the help or version it asks for. A key among the arguments is masked.
fn refuse(refused: &RefusedArguments) -> ExitCode {
    let RefusedArguments { error, notes } = refused;
    let text = error.render().to_string();
    let masked = mask_secrets(&text);
    if error.use_stderr() && masked != text {
        let _ = write!(anstream::stderr(), "{masked}");
    } else {
        // With clap's colours.
        let _ = error.print();
    }
    let notes: String = notes.iter().map(|note| format!("{note}\n")).collect();
    let _ = write!(anstream::stderr(), "{notes}");
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { command, exporter: flags } = cli;
    if command.is_none() && flags.config_check {
        return exporter::check(&flags);
    }
    if matches!(command, None | Some(Command::Check(_) | Command::Users(_))) {
        for warning in environment_warnings() {
            tracing::warn!("{warning}");
        }
    }
    match command {
        None => exporter::run(&flags).await,
        Some(Command::Demo(args)) => demo::run(&args).await,
        Some(Command::Check(args)) => Ok(check::run(&args).await.unwrap_or_else(|error| {
            report(&error);
            ExitCode::from(check::UNKNOWN)
        })),
        Some(Command::Analyze(args)) => analyze::run(&args).await,
        Some(Command::Simulate(args)) => simulate::run(&args).await,
        Some(Command::Test(args)) => test::run(&args).await,
        Some(Command::Users(args)) => users::run(&args).await,
        Some(Command::Completions { shell }) => completions(shell),
        Some(Command::Man(args)) => man::run(&args),
    }
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "clerk-exporter", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs to the end, or until a signal has stopped the work.
async fn until_stopped(
    stop: CancellationToken,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<ExitCode> {
    let mut signals = JoinSet::new();
    signals.spawn(on_termination(stop).context("cannot listen for signals")?);
    work.await?;
    Ok(ExitCode::SUCCESS)
}

fn config_source(flags: &ConfigFlags) -> ConfigSource {
    flags.config_file.clone().map_or(ConfigSource::Environment, ConfigSource::File)
}

/// Writes a result. A reader that closed the pipe, as `head` does, is not a failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
