//! The command that runs the tests: its environment, its signals, its exit status.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::process::ExitStatus;

use tokio::process::{Child, Command};

/// Made-up keys. The simulator accepts any; these are of one instance.
const SECRET_KEY: &str = "sk_test_simulatedBYclerkEXPORTER0000000000000";
const MACHINE_KEY: &str = "ak_simulatedBYclerkEXPORTER000000000000000000";
/// The key of a Frontend API at `clerk.example.com`, which nothing answers.
const PUBLISHABLE_KEY: &str = "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k";

/// Exit statuses of shells for a command that cannot be run, and that does not exist.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Why a command did not start.
#[derive(Debug)]
pub(super) struct StartError {
    /// The exit status, as of a shell.
    pub(super) status: u8,
    pub(super) message: String,
}

/// Starts the command with the simulator's address. It has the standard streams of this process.
///
/// # Errors
/// Returns an error if there is no such command, or it cannot be run.
pub(super) fn start(command: &[OsString], address: SocketAddr) -> Result<Child, StartError> {
    let (program, arguments) = command.split_first().map_or((OsStr::new(""), command), |(first, rest)| (first, rest));
    let mut command = Command::new(program);
    command.args(arguments).envs(environment(address)).envs(proxies(address, &|name| std::env::var_os(name)));
    own_group(&mut command);
    command.spawn().map_err(|error| StartError::of(program, &error))
}

impl StartError {
    fn of(program: &OsStr, error: &io::Error) -> Self {
        let (status, why) = match error.kind() {
            ErrorKind::NotFound => (NOT_FOUND, "no such command; write a program of PATH, or a path".to_owned()),
            ErrorKind::PermissionDenied => (NOT_EXECUTABLE, "not executable; chmod +x makes it so".to_owned()),
            _ => (NOT_EXECUTABLE, error.to_string()),
        };
        Self { status, message: format!("cannot run {}: {why}", program.display()) }
    }
}

/// What Clerk's SDKs read. `@clerk/backend` takes these as options, `@clerk/nextjs`, `@clerk/express` and others from the
/// environment; the Python SDK takes `server_url` in code.
fn environment(address: SocketAddr) -> [(&'static str, String); 6] {
    let url = format!("http://{address}");
    [
        ("CLERK_API_URL", url.clone()),
        ("CLERK_SECRET_KEY", SECRET_KEY.to_owned()),
        ("CLERK_MACHINE_SECRET_KEY", MACHINE_KEY.to_owned()),
        ("CLERK_PUBLISHABLE_KEY", PUBLISHABLE_KEY.to_owned()),
        ("NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY", PUBLISHABLE_KEY.to_owned()),
        ("CLERK_SIMULATOR_URL", format!("{url}/_simulator/")),
    ]
}

/// Where a proxy is set, requests to the simulator must not go there.
fn proxies(address: SocketAddr, env: &dyn Fn(&str) -> Option<OsString>) -> Vec<(&'static str, OsString)> {
    let set = |name: &&str| env(name).is_some_and(|value| !value.is_empty());
    if !["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].iter().any(set) {
        return Vec::new();
    }
    let mut hosts = env("NO_PROXY").or_else(|| env("no_proxy")).unwrap_or_default();
    if !hosts.is_empty() {
        hosts.push(",");
    }
    hosts.push(address.ip().to_string());
    vec![("NO_PROXY", hosts.clone()), ("no_proxy", hosts)]
}

/// The exit status of this process for that of the command: 128 and the signal's number if a signal ended it.
#[cfg(unix)]
pub(super) fn exit_status(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    const SIGNALLED: i32 = 128;
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The exit status of this process for that of the command.
#[cfg(not(unix))]
pub(super) fn exit_status(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Gives the command a process group, so that signals reach its children, too. Not on a terminal: there, the group of this
/// process may read from it, and gets the terminal's signals.
#[cfg(unix)]
fn own_group(command: &mut Command) {
    if !is_on_terminal() {
        command.process_group(0);
    }
}

#[cfg(not(unix))]
fn own_group(_: &mut Command) {}

#[cfg(unix)]
fn is_on_terminal() -> bool {
    use std::io::IsTerminal as _;
    io::stdin().is_terminal()
}

/// Waits for the end of the command, and passes signals to it.
///
/// # Errors
/// Returns an error if signals cannot be handled.
#[cfg(unix)]
pub(super) async fn wait(child: &mut Child, signals: Signals) -> io::Result<ExitStatus> {
    signals.pass_until(child).await
}

/// The signals that are passed to the command. Without Unix there are none: the system passes what the console sends.
#[derive(Debug)]
pub(super) struct Signals {
    #[cfg(unix)]
    received: Vec<(rustix::process::Signal, tokio::signal::unix::Signal)>,
}

#[cfg(unix)]
impl Signals {
    /// Handles signals from now on: none may end this process before the command ends.
    ///
    /// # Errors
    /// Returns an error if the handlers cannot be installed.
    pub(super) fn handle() -> io::Result<Self> {
        use rustix::process::Signal;
        use tokio::signal::unix::{SignalKind, signal};
        let all = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
        let received = all.into_iter().map(|kind| {
            let received = signal(SignalKind::from_raw(kind.as_raw()))?;
            Ok((kind, received))
        });
        Ok(Self { received: received.collect::<io::Result<_>>()? })
    }

    async fn pass_until(mut self, child: &mut Child) -> io::Result<ExitStatus> {
        let id = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        loop {
            let next = std::future::poll_fn(|context| {
                let ready = self
                    .received
                    .iter_mut()
                    .find_map(|(kind, received)| received.poll_recv(context).is_ready().then_some(*kind));
                ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
            });
            tokio::select! {
                status = child.wait() => return status,
                signal = next => if let Some(id) = id { pass(id, signal) },
            }
        }
    }
}

#[cfg(unix)]
fn pass(id: rustix::process::Pid, signal: rustix::process::Signal) {
    use rustix::process::{Signal, kill_process, kill_process_group};
    let is_of_terminal = matches!(signal, Signal::INT | Signal::QUIT);
    // The command may have ended meanwhile.
    let _ = match (is_on_terminal(), is_of_terminal) {
        // The terminal sends these to the whole group.
        (true, true) => Ok(()),
        (true, false) => kill_process(id, signal),
        (false, _) => kill_process_group(id, signal),
    };
}

#[cfg(not(unix))]
impl Signals {
    /// # Errors
    /// Never.
    #[expect(clippy::unnecessary_wraps, reason = "as on other platforms")]
    pub(super) fn handle() -> io::Result<Self> {
        Ok(Self {})
    }
}

/// Waits for the end of the command.
///
/// # Errors
/// Returns an error if it cannot be waited for.
#[cfg(not(unix))]
pub(super) async fn wait(child: &mut Child, _: Signals) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            // The console sends it to the command, too.
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulator_is_never_behind_a_proxy() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let with = |set: &'static [(&'static str, &'static str)]| {
            let env = move |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            proxies(address, &env).into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert!(with(&[]).is_empty() && with(&[("HTTP_PROXY", "")]).is_empty());
        assert_eq!(with(&[("http_proxy", "http://p")]), ["127.0.0.1", "127.0.0.1"]);
        assert_eq!(with(&[("ALL_PROXY", "http://p"), ("no_proxy", "a.example")]), ["a.example,127.0.0.1"; 2]);
    }
}
