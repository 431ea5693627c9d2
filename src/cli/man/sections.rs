//! The sections of manual pages that clap does not know.

use super::Page;

/// A section: entries of a term and its text. An empty term is a paragraph.
#[derive(Debug)]
pub(super) struct PageSection {
    pub(super) title: &'static str,
    pub(super) entries: Vec<(String, String)>,
}

impl PageSection {
    fn new<'a>(title: &'static str, entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let entries = entries.into_iter().map(|(term, text)| (term.to_owned(), text.to_owned()));
        Self { title, entries: entries.collect() }
    }
}

/// The sections of a page, in the order of man-pages(7).
pub(super) fn of(page: &Page) -> Vec<PageSection> {
    let path: Vec<&str> = page.path.iter().map(String::as_str).collect();
    let exit_status = PageSection::new("EXIT STATUS", exit_status(&path));
    let optional = [files(&path), signals(&path)];
    let see_also = PageSection { title: "SEE ALSO", entries: vec![(String::new(), see_also(page))] };
    let sections = [exit_status, environment(page)].into_iter();
    sections.chain(optional.into_iter().flatten()).chain([see_also]).collect()
}

const WRONG_COMMAND_LINE: (&str, &str) = ("2", "The command line is wrong.");

fn exit_status(path: &[&str]) -> Vec<(&'static str, &'static str)> {
    match path {
        [] => vec![
            ("0", "A signal stopped the exporter, or --config.check found the configuration valid."),
            ("1", "The configuration is invalid, an address cannot be bound, or a second signal ended the exporter."),
            WRONG_COMMAND_LINE,
        ],
        ["check"] => vec![
            ("0", "All instances are within their limits."),
            ("1", "An instance has less than the threshold left, or Clerk answers 429."),
            ("2", "The quota of an instance is unknown, or the configuration or the command line is wrong."),
        ],
        ["analyze"] => vec![
            ("0", "The result was printed."),
            ("1", "A log cannot be opened, or no request to Clerk was found."),
            WRONG_COMMAND_LINE,
        ],
        ["users", "export"] => vec![
            ("0", "All users were written, or the reader of the pipe closed it."),
            ("1", "Not all users were written."),
            WRONG_COMMAND_LINE,
        ],
        ["users", "get"] => vec![
            ("0", "All users were found, or the reader of the pipe closed it."),
            ("1", "Not all ids could be looked up."),
            WRONG_COMMAND_LINE,
            ("3", "Some users do not exist; all others were written."),
        ],
        ["test"] => vec![
            ("0", "The command succeeded within the bounds."),
            ("1", "The command succeeded but sent more requests than allowed, or the simulator or the report failed."),
            WRONG_COMMAND_LINE,
            ("126, 127", "The command cannot be run, or does not exist."),
            ("Others", "The status of the command: 128 and the signal's number if a signal ended it."),
        ],
        ["demo" | "simulate"] => vec![
            ("0", "A signal stopped the command."),
            ("1", "An address cannot be bound, a file cannot be read, or a second signal ended the command."),
            WRONG_COMMAND_LINE,
        ],
        _ => vec![("0", "The command succeeded."), ("1", "It failed."), WRONG_COMMAND_LINE],
    }
}

const ONE_INSTANCE: [(&str, &str); 3] = [
    ("CLERK_SECRET_KEY", "Secret key of the instance, without --config.file."),
    ("CLERK_SECRET_KEY_FILE", "File with the secret key, instead of CLERK_SECRET_KEY."),
    ("CLERK_API_URL", "URL of Clerk's API, without --config.file. Default: https://api.clerk.com."),
];

const NETWORK: [(&str, &str); 5] = [
    (
        "HTTPS_PROXY, HTTP_PROXY",
        "Proxy for https and http URLs. HTTP_PROXY is ignored where REQUEST_METHOD is set (CGI).",
    ),
    ("ALL_PROXY", "Proxy for all URLs without a proxy of their own."),
    ("NO_PROXY", "Hosts that are reached without a proxy, separated by commas. All four names may be in lower case."),
    (
        "SSL_CERT_FILE",
        "PEM file with the certificate authorities to trust, instead of the system's. An empty value trusts none.",
    ),
    ("SSL_CERT_DIR", "Folders with such files."),
];

/// Flags have their variables in clap; the others are read by the program and its libraries.
fn environment(page: &Page) -> PageSection {
    let path: Vec<&str> = page.path.iter().map(String::as_str).collect();
    let mut entries = vec![(String::new(), "An empty variable counts as unset.".to_owned())];
    entries.extend(page.command.get_arguments().filter_map(|flag| {
        let name = flag.get_env()?.to_str()?;
        Some((name.to_owned(), format!("The flag --{}, if it is not given.", flag.get_long()?)))
    }));
    let mut others: Vec<(&str, &str)> = Vec::new();
    if matches!(path.as_slice(), [] | ["check"] | ["users", ..]) {
        others.extend(ONE_INSTANCE);
        others.push(("Variables of the configuration", "Those that the file names, such as secret_key_env."));
        others.extend(NETWORK);
    }
    if path.is_empty() {
        let text = "Where the gateway sends spans of its requests, such as http://localhost:4318; none by default. Further \
                    variables of OpenTelemetry are in docs/gateway.md.";
        others.push(("OTEL_EXPORTER_OTLP_ENDPOINT", text));
        others.push(("STATE_DIRECTORY", "Folder of --storage.path, set by systemd for StateDirectory=."));
    }
    if matches!(path.as_slice(), [] | ["demo"]) {
        others.push(("LISTEN_FDS, LISTEN_PID", "Sockets for --web.systemd-socket, set by systemd."));
    }
    if path == ["simulate"] {
        let text = "Secret that signs webhooks, without --webhook-secret-file and --webhook-secret.";
        others.push(("CLERK_WEBHOOK_SIGNING_SECRET", text));
        others.extend(NETWORK);
    }
    if matches!(path.as_slice(), ["check"] | ["analyze"]) {
        others.push(("COLUMNS", "Width of the table. Default: the width of the terminal, or 80."));
    }
    others.push(("TOKIO_WORKER_THREADS", "Number of threads, from 1 to 1024. Default: the number of processors."));
    others.push(("NO_COLOR", "If set, the output has no colours."));
    entries.extend(others.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())));
    PageSection { title: "ENVIRONMENT", entries }
}

fn files(path: &[&str]) -> Option<PageSection> {
    let entries = match path {
        [] => vec![
            ("--config.file", "The configuration. There is no default path."),
            ("--web.config.file", "TLS and basic auth, in the format of Prometheus' exporter toolkit."),
            (
                "--storage.path",
                "Requests of the last window. One process uses the folder at a time; a second one runs without it.",
            ),
        ],
        ["check"] | ["users"] => vec![("--config.file", "The configuration. There is no default path.")],
        ["analyze"] => vec![("FILE", "A log. It is read once, and may be compressed with gzip.")],
        ["simulate"] => {
            vec![("--keys-file", "Accepted keys."), ("--webhook-secret-file", "The secret that signs webhooks.")]
        }
        ["test"] => vec![("--output", "The report.")],
        ["users", "export"] => vec![
            ("OUTPUT", "The users. Mode 0600, since it holds personal data."),
            ("OUTPUT.resume", "The position of an export that is not complete; --resume continues there."),
        ],
        ["users", "get"] => vec![
            ("--ids-file", "Ids, one per line."),
            ("OUTPUT", "The users. Mode 0600, since it holds personal data."),
        ],
        _ => return None,
    };
    Some(PageSection::new("FILES", entries))
}

fn signals(path: &[&str]) -> Option<PageSection> {
    let stop = "Stop: in-flight requests complete first. A second signal ends the process at once, with status 1.";
    let entries = match path {
        [] => vec![
            ("SIGTERM, SIGINT", stop),
            ("SIGHUP", "Reload the configuration and the files that it names. An invalid one changes nothing."),
        ],
        ["demo" | "simulate"] => vec![("SIGTERM, SIGINT", stop)],
        ["test"] => vec![(
            "SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2",
            "Passed to the command and, without a terminal, to all that it started.",
        )],
        ["users", "export"] => {
            vec![("SIGTERM, SIGINT", "Stop with status 1. With --output, --resume continues the export.")]
        }
        ["users", "get"] => vec![("SIGTERM, SIGINT", "Stop with status 1.")],
        _ => return None,
    };
    Some(PageSection::new("SIGNALS", entries))
}

/// The program, its commands, and the neighbours of a command.
fn see_also(page: &Page) -> String {
    let own = page.name();
    let pages = super::pages();
    let names = pages.iter().map(Page::name).filter(|name| *name != own);
    names.map(|name| format!("{name}(1)")).collect::<Vec<_>>().join(", ")
}
