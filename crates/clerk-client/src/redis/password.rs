//! A password that is read again at each connect: from a file, or from a command.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{RedisClientError, RedisConfigError};
use crate::secret::{Secret, SecretSource};

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest output of a command.
const MAX_OUTPUT: usize = 4096;

/// Where the password is read at each connect, instead of the URL: for passwords that change, such as tokens that expire.
///
/// ```
/// use clerk_client::redis::{RedisClient, RedisOptions, RedisPassword};
///
/// # fn main() -> Result<(), clerk_client::redis::RedisConfigError> {
/// let password = RedisPassword::file("/run/secrets/redis-password");
/// let redis = RedisClient::new(RedisOptions::new("redis://app@cache.internal".into()).password(password))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisPassword(Source);

#[derive(Clone)]
enum Source {
    File(SecretSource),
    Command(Arc<PasswordCommand>),
}

struct PasswordCommand {
    program: OsString,
    arguments: Vec<OsString>,
    /// One at a time.
    turn: Mutex<()>,
}

impl RedisPassword {
    /// A file that contains only the password. White space around it is ignored.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(SecretSource::File(path.into())))
    }

    /// A command, as a program and its arguments, that prints only the password. White space around it is ignored.
    ///
    /// It runs without a shell and without input, at most once at a time. It has 5 seconds and may print up to 4 KiB; what
    /// it writes to the standard error is discarded. An empty list is an error of [`RedisClient::new`](super::RedisClient::new).
    #[must_use]
    pub fn command<A: Into<OsString>>(program_and_arguments: impl IntoIterator<Item = A>) -> Self {
        let mut words = program_and_arguments.into_iter().map(Into::into);
        let program = words.next().unwrap_or_default();
        Self(Source::Command(Arc::new(PasswordCommand { program, arguments: words.collect(), turn: Mutex::new(()) })))
    }

    pub(super) fn check(&self) -> Result<(), RedisConfigError> {
        match &self.0 {
            Source::Command(command) if command.program.is_empty() => Err(RedisConfigError::PasswordCommand),
            _ => Ok(()),
        }
    }

    pub(super) async fn read(&self) -> Result<Secret, RedisClientError> {
        match &self.0 {
            Source::File(file) => {
                let file = file.clone();
                // A file system that hangs must not keep others from connecting.
                let read = timeout(COMMAND_TIMEOUT, tokio::task::spawn_blocking(move || file.read())).await;
                let read =
                    read.map_err(|_| RedisClientError::unavailable("the password's file was not read within 5 s"))?;
                let read = read.map_err(|_| RedisClientError::unavailable("reading the password was cancelled"))?;
                read.map_err(|error| RedisClientError::Unavailable { reason: chain(&error).into() })
            }
            Source::Command(command) => {
                let _turn = command.turn.lock().await;
                let output = timeout(COMMAND_TIMEOUT, command.run()).await;
                let output = output.unwrap_or(Err("did not end within 5 s".to_owned()));
                output.map_err(|fault| {
                    let reason = format!("the password command {fault}; run it by hand to see its messages");
                    RedisClientError::Unavailable { reason: reason.into() }
                })
            }
        }
    }
}

impl PasswordCommand {
    async fn run(&self) -> Result<Secret, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let started = command.kill_on_drop(true).spawn();
        let mut child = started.map_err(|error| format!("could not be started: {}", error.kind()))?;
        let mut output = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            let limit = MAX_OUTPUT as u64 + 1;
            let read = pipe.take(limit).read_to_end(&mut output).await;
            read.map_err(|error| format!("could not be read: {}", error.kind()))?;
        }
        let text = Secret::new(String::from_utf8(output).map_err(|_| "printed something else than text")?);
        if text.len() > MAX_OUTPUT {
            return Err("printed more than 4 KiB".to_owned());
        }
        let status = child.wait().await.map_err(|error| format!("could not be awaited: {}", error.kind()))?;
        if !status.success() {
            return Err(status
                .code()
                .map_or_else(|| "was killed".to_owned(), |code| format!("ended with code {code}")));
        }
        match text.expose().trim() {
            "" => Err("printed nothing".to_owned()),
            password => Ok(password.into()),
        }
    }
}

/// Shows the source, never the password; nor the arguments, which may contain one.
impl fmt::Debug for RedisPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(file) => f.debug_tuple("File").field(file).finish(),
            Source::Command(_) => f.debug_tuple("Command").finish_non_exhaustive(),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| text + ": " + &source.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> RedisPassword {
        RedisPassword::command(["sh", "-c", script])
    }

    async fn failure(password: &RedisPassword) -> String {
        let error = password.read().await.unwrap_err();
        assert!(error.is_outage());
        let text = format!("{error} {password:?}");
        assert!(!text.contains("CANARY"), "{text}");
        text
    }

    #[tokio::test]
    async fn files_are_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let password = RedisPassword::file(&path);
        assert!(failure(&password).await.contains("password"));
        for text in ["first", "second\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(password.read().await.unwrap().expose(), text.trim());
        }
    }

    #[tokio::test]
    async fn commands_print_the_password() {
        assert_eq!(shell("echo ' p@ss word '").read().await.unwrap().expose(), "p@ss word");
        // No shell reads the arguments.
        let password = RedisPassword::command(["printf", "%s", "$(id);`id`"]);
        assert_eq!(password.read().await.unwrap().expose(), "$(id);`id`");
        let largest = shell("head -c 4096 /dev/zero | tr '\\0' x").read().await.unwrap();
        assert_eq!(largest.len(), MAX_OUTPUT);
    }

    #[tokio::test]
    async fn failed_commands_are_errors_that_show_nothing() {
        for (script, expected) in [
            ("echo CANARY; echo CANARY >&2; exit 3", "ended with code 3"),
            ("kill -9 $$ # CANARY", "was killed"),
            ("true CANARY", "printed nothing"),
            ("head -c 4097 /dev/zero | tr '\\0' x", "more than 4 KiB"),
            ("yes CANARY", "more than 4 KiB"),
            ("printf '\\377'", "else than text"),
        ] {
            assert!(failure(&shell(script)).await.contains(expected), "{script}");
        }
        let missing = RedisPassword::command(["/CANARY/missing"]);
        assert!(failure(&missing).await.contains("could not be started"));
        assert_eq!(RedisPassword::command([""; 0]).check(), Err(RedisConfigError::PasswordCommand));
        assert_eq!(missing.check(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn commands_have_five_seconds() {
        // In simulated time, which moves on while the command runs.
        let started = tokio::time::Instant::now();
        assert!(failure(&shell("exec sleep 1000")).await.contains("within 5 s"));
        assert_eq!(started.elapsed(), COMMAND_TIMEOUT);
    }

    #[tokio::test]
    async fn commands_run_one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join("lock");
        // Fails if another one runs.
        let lock = lock.display();
        let password = shell(&format!("mkdir {lock} && sleep 0.05 && rmdir {lock} && echo secret"));
        let reads = (0..4).map(|_| password.read());
        for read in futures_util::future::join_all(reads).await {
            assert_eq!(read.unwrap().expose(), "secret");
        }
    }
}
