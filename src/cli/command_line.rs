//! Reads the command line: flags may stand before the command that they act on.

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, value_parser};

use super::args::Cli;
use super::environment;
use clerk_client::secret::EnvLookup;

/// A command line that cannot be used.
#[derive(Debug)]
pub(super) struct RefusedArguments {
    pub(super) error: clap::Error,
    /// One line per variable that the refused value may come from.
    pub(super) notes: Vec<String>,
}

/// The program's command with its flags, their environment variables, and its subcommands.
#[must_use]
pub fn command() -> Command {
    // Of the commands, only `users` has commands of its own: its shared flags may stand before or after those.
    let command = Cli::command().mut_subcommand("users", |users| users.mut_args(|flag| flag.global(true)));
    environment::with_variables(command)
}

/// Reads the command line, and the environment for flags that are not on it.
///
/// # Errors
/// Returns an error if the command line is wrong, or asks for help or the version.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    env: EnvLookup<'_>,
) -> Result<Cli, RefusedArguments> {
    let mut command = environment::without_blank_variables(command(), env);
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let refused = |error, arguments: &[OsString]| RefusedArguments {
        notes: environment::variables_of(&error, arguments, env),
        error,
    };
    if let Some(split) = split_at_command(&command, &arguments) {
        // Variables of flags that do not act on the command must not stop it.
        command = command.mut_args(|flag| flag.env(Resettable::Reset));
        arguments = split.with_flags_behind(&command).map_err(|error| refused(error, &[]))?;
    }
    let matches = command.clone().try_get_matches_from(&arguments);
    let matches = matches.map_err(|error| refused(explain_unknown_flag(error, command, &arguments), &arguments))?;
    Cli::from_arg_matches(&matches).map_err(|error| refused(error, &arguments))
}

/// The command line in three parts.
struct Split<'a> {
    program: &'a OsString,
    /// Flags before the command.
    flags: ArgMatches,
    name: String,
    /// Everything behind the command.
    rest: Vec<OsString>,
}

/// Splits at the command; none where there is none, or where clap's own report on the whole line is better.
fn split_at_command<'a>(command: &Command, arguments: &'a [OsString]) -> Option<Split<'a>> {
    let program = arguments.first()?;
    let flags = Command::new(command.get_name().to_owned())
        .args(command.get_arguments().map(|flag| flag.clone().env(Resettable::Reset)))
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .allow_external_subcommands(true)
        .external_subcommand_value_parser(value_parser!(OsString));
    let mut flags = flags.try_get_matches_from(arguments).ok()?;
    let (name, mut rest) = flags.remove_subcommand()?;
    command.find_subcommand(&name)?;
    let rest = rest.remove_many::<OsString>("").map(Iterator::collect).unwrap_or_default();
    Some(Split { program, flags, name, rest })
}

impl Split<'_> {
    /// The line with the flags behind the command.
    ///
    /// # Errors
    /// Returns an error if one of them does not act on the command.
    fn with_flags_behind(self, command: &Command) -> Result<Vec<OsString>, clap::Error> {
        let Self { program, flags, name, rest } = self;
        let is_given = |flag: &&Arg| flags.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
        let mut arguments = vec![program.clone(), name.clone().into()];
        for flag in command.get_arguments().filter(is_given) {
            let Some(long) = flag.get_long() else { continue };
            let acts = command.find_subcommand(&name).is_some_and(|command| has_flag(command, long));
            if !acts {
                return Err(misplaced(command.clone(), &[&name], long));
            }
            let values = flags.get_raw(flag.get_id().as_str()).into_iter().flatten();
            if flag.get_action().takes_values() {
                arguments.extend(values.map(|value| {
                    let mut argument = OsString::from(format!("--{long}="));
                    argument.push(value);
                    argument
                }));
            } else {
                arguments.push(format!("--{long}").into());
            }
        }
        arguments.extend(rest);
        Ok(arguments)
    }
}

fn has_flag(command: &Command, long: &str) -> bool {
    command.get_arguments().any(|flag| flag.get_long() == Some(long))
}

/// Says where a flag acts, if clap does not know it in its place.
fn explain_unknown_flag(error: clap::Error, command: Command, arguments: &[OsString]) -> clap::Error {
    let flag = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let long =
        flag.as_deref().and_then(|flag| flag.strip_prefix("--")).filter(|_| error.kind() == ErrorKind::UnknownArgument);
    let Some(long) = long.filter(|long| !places(&command, long).is_empty()) else { return error };
    let mut path: Vec<&str> = Vec::new();
    let mut current = &command;
    for argument in arguments.iter().skip(1).filter_map(|argument| argument.to_str()) {
        if let Some(next) = current.find_subcommand(argument) {
            path.push(argument);
            current = next;
        }
    }
    let path: Vec<String> = path.into_iter().map(str::to_owned).collect();
    misplaced(command, &path.iter().map(String::as_str).collect::<Vec<_>>(), long)
}

/// The error for a flag of another command.
fn misplaced(mut command: Command, path: &[&str], long: &str) -> clap::Error {
    let places = places(&command, long).join(", ");
    command.build();
    for part in path {
        if let Some(next) = command.find_subcommand(part).cloned() {
            command = next;
        }
    }
    let own = long.rsplit('.').next().filter(|own| *own != long && has_flag(&command, own));
    let remedy = match own {
        Some(own) => format!("here, write --{own}"),
        None => "remove it".to_owned(),
    };
    let here = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    command.error(
        ErrorKind::UnknownArgument,
        format!("--{long} does not act on `{here}`: it is a flag of {places}; {remedy}"),
    )
}

/// The commands that have a flag.
fn places(command: &Command, long: &str) -> Vec<String> {
    fn visit(command: &Command, path: &str, long: &str, places: &mut Vec<String>) {
        if has_flag(command, long) {
            places.push(format!("`{path}`"));
        }
        for command in command.get_subcommands() {
            visit(command, &format!("{path} {}", command.get_name()), long, places);
        }
    }
    let mut places = Vec::new();
    visit(command, command.get_name(), long, &mut places);
    places
}

#[cfg(test)]
mod tests {
    use super::super::args::Command as Chosen;
    use super::*;

    fn read(line: &str) -> Result<Cli, RefusedArguments> {
        let arguments = std::iter::once("clerk-exporter").chain(line.split_whitespace());
        parse(arguments.map(OsString::from), &|_| None)
    }

    fn refusal(line: &str) -> String {
        read(line).err().unwrap_or_else(|| panic!("{line}: accepted")).error.to_string()
    }

    #[test]
    fn flags_act_before_and_after_the_command() {
        for line in [
            "--config.file x --log.level debug check --format=json",
            "check --config.file=x --log.level=debug --format json",
            "--config.file=x check --format=json --log.level debug",
        ] {
            let Some(Chosen::Check(args)) = read(line).unwrap().command else { panic!("{line}") };
            assert_eq!(args.config.config_file.as_deref(), Some("x".as_ref()), "{line}");
            assert_eq!(args.log.log_level, super::super::args::LogLevel::Debug, "{line}");
            assert_eq!(args.format, super::super::check::args::CheckFormat::Json, "{line}");
        }
        for line in ["--config.file x users export", "users --config.file x export", "users export --config.file x"] {
            let Some(Chosen::Users(args)) = read(line).unwrap().command else { panic!("{line}") };
            assert_eq!(args.config.config_file.as_deref(), Some("x".as_ref()), "{line}");
        }
        let line =
            "--web.listen-address 127.0.0.1:1,127.0.0.1:2 --web.listen-address [::1]:3 --web.systemd-socket demo";
        let Some(Chosen::Demo(args)) = read(line).unwrap().command else { panic!("{line}") };
        assert!(args.web.listen_addresses.len() == 3 && args.web.systemd_socket, "{args:?}");
        assert_eq!(read("--web.max-connections 7 --web.enable-lifecycle").unwrap().exporter.web.max_connections, 7);
    }

    #[test]
    fn flags_without_effect_are_refused_on_both_sides() {
        for (command, flag) in [
            ("simulate", "--web.listen-address=:9999"),
            ("simulate", "--config.file=x"),
            ("demo", "--config.file=x"),
            ("demo", "--config.enable-auto-reload"),
            ("demo", "--storage.path=x"),
            ("demo", "--web.enable-lifecycle"),
            ("check", "--config.check"),
            ("check", "--web.listen-address=:9999"),
            ("check", "--storage.path=x"),
            ("users export", "--config.check"),
            ("users export", "--web.config.file=x"),
            ("completions bash", "--log.level=debug"),
            ("man", "--log.level=debug"),
            ("man", "--config.file=x"),
        ] {
            let name = flag.split('=').next().unwrap();
            for line in [format!("{flag} {command}"), format!("{command} {flag}")] {
                let text = refusal(&line);
                assert!(text.contains(&format!("{name} does not act on `clerk-exporter {}", &command[..3])), "{text}");
                assert!(text.contains("it is a flag of `clerk-exporter"), "{text}");
            }
        }
        assert!(refusal("simulate --web.listen-address=:1").contains("write --listen-address"));
        assert!(refusal("--format=json").contains("`clerk-exporter check`"));
    }

    #[test]
    fn flags_given_twice_are_refused() {
        assert!(refusal("--config.file a check --config.file b").contains("cannot be used multiple times"));
    }

    #[test]
    fn clap_reports_what_is_wrong_with_the_whole_line() {
        assert!(refusal("--log.level loud check").contains("possible values"));
        assert!(refusal("chek").contains("'check'"));
        assert!(refusal("--config.fil x").contains("--config.file"));
        for (line, kind) in [
            ("--config.file x --help", ErrorKind::DisplayHelp),
            ("help check", ErrorKind::DisplayHelp),
            ("check --help", ErrorKind::DisplayHelp),
            ("--version", ErrorKind::DisplayVersion),
        ] {
            assert_eq!(read(line).unwrap_err().error.kind(), kind, "{line}");
        }
    }

    #[test]
    fn durations_have_units_or_are_seconds() {
        for (text, seconds) in [("90", 90), ("30s", 30), ("1h30m", 5400)] {
            let cli = read(&format!("--config.auto-reload-interval={text}")).unwrap();
            assert_eq!(cli.exporter.auto_reload_interval.as_secs(), seconds);
        }
        let spaced = ["clerk-exporter", "demo", "--probe.interval", "1m 30s"].map(OsString::from);
        let Some(Chosen::Demo(args)) = parse(spaced, &|_| None).unwrap().command else { panic!() };
        assert_eq!(args.probe_interval.as_secs(), 90);
        for bad in ["0", "0s", "500ms", "2days", "99999999999999999999", "soon", "-1"] {
            assert!(refusal(&format!("--config.auto-reload-interval={bad}")).contains("write a"), "{bad}");
        }
    }
}
