//! Environment variables: their names, and what is wrong with them. An empty variable counts as unset.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::ContextKind;
use clap::{Arg, ArgAction, Command};

use super::command_line::command;
use clerk_client::secret::EnvLookup;

/// Flags without a variable: one that stays set would keep the exporter from starting.
const WITHOUT_VARIABLE: [&str; 1] = ["config.check"];

/// Gives every flag its variable. Flags of the exporter have the name of the flag, also where other commands share them:
/// `CLERK_EXPORTER_LOG_LEVEL`. The others have the name of their command in front, since several have a `--format`:
/// `CLERK_EXPORTER_CHECK_FORMAT`.
pub(super) fn with_variables(command: Command) -> Command {
    let exporter = command.get_arguments().filter_map(|flag| flag.get_long().map(str::to_owned)).collect();
    named(command, "", &exporter)
}

fn named(command: Command, prefix: &str, exporter: &BTreeSet<String>) -> Command {
    let command = command.mut_args(|flag| match flag.get_long() {
        Some(long) if !WITHOUT_VARIABLE.contains(&long) => {
            let prefix = if exporter.contains(long) { "" } else { prefix };
            let name = variable(&format!("{prefix}{long}"));
            flag.env(name)
        }
        _ => flag,
    });
    command.mut_subcommands(|command| {
        let prefix = format!("{prefix}{}-", command.get_name());
        named(command, &prefix, exporter)
    })
}

fn variable(flag: &str) -> String {
    format!("CLERK_EXPORTER_{}", flag.to_ascii_uppercase().replace(['.', '-'], "_"))
}

/// Compose files and charts pass unset variables as empty ones, and switches that are off as `false`.
pub(super) fn without_blank_variables(command: Command, env: EnvLookup<'_>) -> Command {
    let command = command.mut_args(|flag| {
        let is_off = |value: &OsString| matches!(flag.get_action(), ArgAction::SetTrue) && value == "false";
        let value = flag.get_env().and_then(|name| env(name.to_str()?));
        if value.is_some_and(|value| is_blank(&value) || is_off(&value)) { flag.env(Resettable::Reset) } else { flag }
    });
    command.mut_subcommands(|command| without_blank_variables(command, env))
}

fn is_blank(value: &OsString) -> bool {
    value.as_encoded_bytes().trim_ascii().is_empty()
}

/// A note for each variable that the refused value may come from: those of the flag, unless the command line has it.
pub(super) fn variables_of(error: &clap::Error, arguments: &[OsString], env: EnvLookup<'_>) -> Vec<String> {
    let refused = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    // clap shows the flag, and then perhaps the name of its value.
    let refused = refused.split([' ', '=']).next().unwrap_or_default();
    let is_given = |argument: &OsString| {
        argument.to_str().is_some_and(|given| given == refused || given.starts_with(&format!("{refused}=")))
    };
    if !refused.starts_with("--") || arguments.iter().any(is_given) {
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    collect_variables(&command(), &refused[2..], &mut names);
    let set = names.into_iter().filter(|name| env(name).is_some_and(|value| !is_blank(&value)));
    set.map(|name| format!("The value comes from the environment variable {name}: correct it, or unset it.")).collect()
}

fn collect_variables(command: &Command, long: &str, names: &mut BTreeSet<String>) {
    let variable = |flag: &Arg| flag.get_env()?.to_str().map(str::to_owned);
    names.extend(command.get_arguments().filter(|flag| flag.get_long() == Some(long)).filter_map(variable));
    command.get_subcommands().for_each(|command| collect_variables(command, long, names));
}

/// Threads of the runtime. tokio reads the variable itself, and panics on a value that it cannot use.
///
/// # Errors
/// Returns an error unless `TOKIO_WORKER_THREADS` is unset or a number from 1 to 1024.
pub(super) fn worker_threads(env: EnvLookup<'_>) -> anyhow::Result<usize> {
    const NAME: &str = "TOKIO_WORKER_THREADS";
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    let Some(value) = env(NAME).filter(|value| !is_blank(value)) else { return Ok(available()) };
    let number = value.to_str().and_then(|text| text.trim().parse().ok()).filter(|number| (1..=1024).contains(number));
    number.ok_or_else(|| anyhow::anyhow!("{NAME}: not a number of threads: write one from 1 to 1024, or unset it"))
}

/// The first folder of systemd's `StateDirectory=`.
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

    /// All flags of all commands, with their variables.
    fn flags(command: &Command, path: &str) -> Vec<(String, Option<String>)> {
        let own = command.get_arguments().filter_map(|flag| {
            let name = flag.get_env().map(|name| name.to_str().unwrap().to_owned());
            Some((format!("{path} --{}", flag.get_long()?), name))
        });
        own.chain(command.get_subcommands().flat_map(|it| flags(it, &format!("{path} {}", it.get_name())))).collect()
    }

    #[test]
    fn every_flag_has_a_variable() {
        let mut command = command();
        command.build();
        let without = ["help", "version", "config.check"];
        let is_named = |flag: &str| without.iter().any(|name| flag.ends_with(&format!(" --{name}")));
        let all = flags(&command, "");
        assert!(all.len() > 40, "{all:?}");
        let mut known = std::collections::BTreeMap::new();
        for (flag, name) in all {
            let Some(name) = name else {
                assert!(is_named(&flag), "{flag} has no variable");
                continue;
            };
            assert!(!is_named(&flag) && name.starts_with("CLERK_EXPORTER_"), "{flag}: {name}");
            let long = flag.rsplit("--").next().unwrap().to_owned();
            let (first, path) = known.entry(name.clone()).or_insert_with(|| (long.clone(), flag.clone()));
            assert_eq!(*first, long, "{name} is the variable of {path} and of {flag}");
        }
        assert_eq!(known["CLERK_EXPORTER_WEB_LISTEN_ADDRESS"].0, "web.listen-address");
        assert_eq!(known["CLERK_EXPORTER_USERS_GET_IDS_FILE"].0, "ids-file");
        assert_eq!(known["CLERK_EXPORTER_SIMULATE_LISTEN_ADDRESS"].0, "listen-address");
        let text = command.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("except --config.check, --help and --version"), "{text}");
    }

    #[test]
    fn blank_variables_count_as_unset() {
        for (flag, name) in flags(&command(), "") {
            let Some(name) = name else { continue };
            for value in ["", " ", "\n"] {
                let env = |asked: &str| (asked == name).then(|| OsString::from(value));
                let left = flags(&without_blank_variables(command(), &env), "");
                assert!(left.iter().all(|(_, left)| left.as_deref() != Some(&*name)), "{flag}: {name}={value:?}");
            }
        }
    }

    #[test]
    fn refused_value_names_its_variable_unless_given() {
        // clap reads the variables of the process, which are unset here: the value is an argument, and the function that
        // names the variable does not see it.
        for (line, flag, name) in [
            (&["--log.level", "?"][..], "--log.level", "CLERK_EXPORTER_LOG_LEVEL"),
            (&["--web.max-connections", "?"], "--web.max-connections", "CLERK_EXPORTER_WEB_MAX_CONNECTIONS"),
            (&["--web.telemetry-path", "?"], "--web.telemetry-path", "CLERK_EXPORTER_WEB_TELEMETRY_PATH"),
            (&["check", "--format", "?"], "--format", "CLERK_EXPORTER_CHECK_FORMAT"),
        ] {
            let line = std::iter::once("clerk-exporter").chain(line.iter().copied());
            let error = command().try_get_matches_from(line).unwrap_err();
            let env = |asked: &str| (asked == name).then(|| OsString::from("?"));
            let notes = variables_of(&error, &["clerk-exporter".into()], &env);
            assert!(notes.len() == 1 && notes[0].contains(name), "{flag}: {notes:?}");
            for given in [flag.to_owned(), format!("{flag}=?")] {
                assert!(variables_of(&error, &["clerk-exporter".into(), given.into()], &env).is_empty());
            }
        }
    }

    #[test]
    fn worker_threads_default_to_those_of_the_machine() {
        let threads = |value| worker_threads(&with("TOKIO_WORKER_THREADS", value));
        assert_eq!((threads("3").unwrap(), threads(" 2\n").unwrap()), (3, 2));
        assert!(threads("").unwrap() >= 1 && worker_threads(&|_| None).unwrap() >= 1);
        for value in ["0", "-1", "two", "1e9", "4096"] {
            assert!(threads(value).unwrap_err().to_string().contains("TOKIO_WORKER_THREADS"), "{value}");
        }
    }

    #[test]
    fn state_directory_is_the_first_folder() {
        let folder = |value| state_directory(&with("STATE_DIRECTORY", value));
        assert_eq!(folder("/var/lib/a:/var/lib/b"), Some(PathBuf::from("/var/lib/a")));
        assert_eq!((folder(""), folder(":/x")), (None, Some(PathBuf::from("/x"))));
    }
}
