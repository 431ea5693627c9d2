//! Flags from the environment: an empty variable is one that is not set, and what is wrong with a value names its variable.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::ContextKind;
use clap::{Arg, Command, CommandFactory, FromArgMatches};

use super::args::Cli;
use clerk_client::secret::EnvLookup;

/// A command line that cannot be used, with what there is to say of the environment.
#[derive(Debug)]
pub(super) struct RefusedArguments {
    pub(super) error: clap::Error,
    /// One line for each variable that the refused value came from.
    pub(super) variables: Vec<String>,
}

/// Reads the command line. Flags that it does not have are taken from the environment.
///
/// # Errors
/// When there is something wrong, or help or version was asked for.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    env: EnvLookup<'_>,
) -> Result<Cli, RefusedArguments> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = without_blank_variables(Cli::command(), env);
    let refused = |error: clap::Error| {
        let variables = variables_of(&error, &arguments, env);
        RefusedArguments { error, variables }
    };
    let matches = command.try_get_matches_from(&arguments).map_err(refused)?;
    Cli::from_arg_matches(&matches).map_err(refused)
}

/// Compose files and charts pass variables that nobody set as empty ones.
fn without_blank_variables(command: Command, env: EnvLookup<'_>) -> Command {
    let command = command.mut_args(|argument| {
        let is_blank = argument.get_env().and_then(|name| env(name.to_str()?)).is_some_and(|value| is_blank(&value));
        if is_blank { argument.env(Resettable::Reset) } else { argument }
    });
    command.mut_subcommands(|command| without_blank_variables(command, env))
}

fn is_blank(value: &OsString) -> bool {
    value.as_encoded_bytes().trim_ascii().is_empty()
}

/// The variables that the refused value may have come from: those of the flag, where the command line does not have it.
fn variables_of(error: &clap::Error, arguments: &[OsString], env: EnvLookup<'_>) -> Vec<String> {
    let flag = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    let is_given = |argument: &Arg| {
        let long = argument.get_long().map(|long| format!("--{long}")).unwrap_or_default();
        let is_it = |given: &OsString| {
            given.to_str().is_some_and(|given| given == long || given.starts_with(&format!("{long}=")))
        };
        arguments.iter().any(is_it)
    };
    let command = Cli::command();
    let refused = command.get_arguments().filter(|argument| {
        let long = argument.get_long().map(|long| format!("--{long}"));
        // As clap shows it: the flag, and then perhaps the name of its value.
        long.is_some_and(|long| flag.split([' ', '=']).next() == Some(&*long)) && !is_given(argument)
    });
    let names = refused.filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
    names
        .filter(|name| env(name).is_some_and(|value| !is_blank(&value)))
        .map(|name| format!("The value comes from the environment variable {name}: correct it, or unset it."))
        .collect()
}

/// Threads of the runtime. tokio reads the variable itself, and panics when it is none that it can use.
///
/// # Errors
/// When `TOKIO_WORKER_THREADS` is no number above 0.
pub(super) fn worker_threads(env: EnvLookup<'_>) -> anyhow::Result<usize> {
    const NAME: &str = "TOKIO_WORKER_THREADS";
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    let Some(value) = env(NAME).filter(|value| !is_blank(value)) else { return Ok(available()) };
    let number = value.to_str().and_then(|text| text.trim().parse().ok()).filter(|number| (1..=1024).contains(number));
    number.ok_or_else(|| anyhow::anyhow!("{NAME}: not a number of threads: write one from 1 to 1024, or unset it"))
}

/// The first of the folders that systemd names.
pub(super) fn state_directory(env: EnvLookup<'_>) -> Option<PathBuf> {
    let folders = env("STATE_DIRECTORY")?;
    std::env::split_paths(&folders).find(|folder| !folder.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> impl Fn(&str) -> Option<OsString> {
        move |asked| (asked == name).then(|| OsString::from(value))
    }

    /// All flags of all commands that may come from the environment.
    fn flags(command: &Command) -> Vec<(String, String)> {
        let own = command
            .get_arguments()
            .filter_map(|argument| Some((argument.get_long()?.to_owned(), argument.get_env()?.to_str()?.to_owned())));
        own.chain(command.get_subcommands().flat_map(flags)).collect()
    }

    #[test]
    fn every_variable_may_be_empty() {
        let all = flags(&Cli::command());
        assert!(all.len() >= 14, "{all:?}");
        for (long, name) in all {
            for value in ["", " ", "\n"] {
                let env = |asked: &str| (asked == name).then(|| OsString::from(value));
                let command = without_blank_variables(Cli::command(), &env);
                let left: Vec<_> = flags(&command).into_iter().map(|(long, _)| long).collect();
                assert!(!left.contains(&long), "{name}={value:?} counts as set");
            }
        }
    }

    #[test]
    fn the_variable_of_a_refused_value_is_named_unless_the_command_line_has_the_flag() {
        // clap itself asks the environment of the process, in which none is set: the value is given as an argument here, and
        // the part that names the variable is asked as if it were not.
        for (flag, name) in [
            ("--log.level", "CLERK_EXPORTER_LOG_LEVEL"),
            ("--web.max-connections", "CLERK_EXPORTER_WEB_MAX_CONNECTIONS"),
            ("--web.telemetry-path", "CLERK_EXPORTER_WEB_TELEMETRY_PATH"),
        ] {
            let error = Cli::command().try_get_matches_from(["clerk-exporter", flag, "?"]).unwrap_err();
            let env = |asked: &str| (asked == name).then(|| OsString::from("?"));
            let told = variables_of(&error, &["clerk-exporter".into()], &env);
            assert!(told.len() == 1 && told[0].contains(name), "{flag}: {told:?}");
            for given in [flag.to_owned(), format!("{flag}=?")] {
                assert!(variables_of(&error, &["clerk-exporter".into(), given.into()], &env).is_empty());
            }
        }
    }

    #[test]
    fn threads_are_a_number_or_those_of_the_machine() {
        let threads = |value| worker_threads(&with("TOKIO_WORKER_THREADS", value));
        assert_eq!((threads("3").unwrap(), threads(" 2\n").unwrap()), (3, 2));
        assert!(threads("").unwrap() >= 1 && worker_threads(&|_| None).unwrap() >= 1);
        for value in ["0", "-1", "two", "1e9", "4096"] {
            assert!(threads(value).unwrap_err().to_string().contains("TOKIO_WORKER_THREADS"), "{value}");
        }
    }

    #[test]
    fn the_first_folder_for_state_counts() {
        let folder = |value| state_directory(&with("STATE_DIRECTORY", value));
        assert_eq!(folder("/var/lib/a:/var/lib/b"), Some(PathBuf::from("/var/lib/a")));
        assert_eq!((folder(""), folder(":/x")), (None, Some(PathBuf::from("/x"))));
    }
}
