//! What is sent to a server for an operation.

use std::time::UNIX_EPOCH;

use clerk_quota::clock::Clock;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

use super::Script;
use super::error_reply;
use super::permissions::Command;
use super::slots::slot;

/// An operation.
pub(super) enum Call<'a> {
    Command { slot: u16, command: Cmd },
    Script(ScriptCall<'a>),
}

/// A run of a script.
pub(super) struct ScriptCall<'a> {
    pub(super) script: &'a Script,
    pub(super) keys: &'a [String],
    /// The log whose newest entry is a bound of the time.
    pub(super) log: Option<String>,
    pub(super) arguments: &'a [&'a [u8]],
    pub(super) clock: &'a Clock,
}

impl Call<'_> {
    /// A command with this key or channel.
    pub(super) fn command(name: &str, command: Cmd) -> Self {
        Self::Command { slot: slot(name), command }
    }

    /// The slot of its keys.
    pub(super) fn slot(&self) -> u16 {
        match self {
            Self::Command { slot, .. } => *slot,
            Self::Script(call) => call.keys.first().map_or(0, |key| slot(key)),
        }
    }

    /// Sends it. `is_asking`: to a node that is receiving the slot.
    pub(super) async fn send(
        &self,
        mut connection: MultiplexedConnection,
        is_asking: bool,
        refuses_time: bool,
    ) -> Result<Value, RedisError> {
        match self {
            Self::Command { command, .. } => send(&mut connection, command, is_asking).await,
            Self::Script(call) => call.send(&mut connection, is_asking, refuses_time).await,
        }
    }

    pub(super) fn needs_time(&self) -> bool {
        matches!(self, Self::Script(call) if call.script.time_line().is_some())
    }

    /// Whether it failed because the server refuses `TIME` in scripts. Nothing was done then.
    pub(super) fn is_refused_time(&self, error: &RedisError) -> bool {
        match self {
            Self::Command { .. } => false,
            Self::Script(call) => call.script.time_line().is_some_and(|line| error_reply::refuses_time(error, line)),
        }
    }
}

impl ScriptCall<'_> {
    async fn send(
        &self,
        connection: &mut MultiplexedConnection,
        is_asking: bool,
        refuses_time: bool,
    ) -> Result<Value, RedisError> {
        let evaluate = self.command(refuses_time);
        match send(connection, &evaluate, is_asking).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {}
            result => return result,
        }
        // A new server, or one that has restarted.
        let mut load = Command::ScriptLoad.build();
        load.arg(&*self.script.form(refuses_time).text);
        send(connection, &load, false).await?;
        send(connection, &evaluate, is_asking).await
    }

    fn command(&self, refuses_time: bool) -> Cmd {
        let needs_clock = refuses_time && self.script.time_line().is_some();
        let log = self.log.as_ref().filter(|_| needs_clock);
        let mut command = Command::EvalSha.build();
        command.arg(&*self.script.form(refuses_time).hash);
        command.arg(self.keys.len() + usize::from(log.is_some())).arg(self.keys).arg(log).arg(self.arguments);
        if needs_clock {
            let now = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
            command.arg(now.as_micros().to_string());
        }
        command
    }
}

async fn send(connection: &mut MultiplexedConnection, command: &Cmd, is_asking: bool) -> Result<Value, RedisError> {
    if !is_asking {
        return connection.req_packed_command(command).await?.extract_error();
    }
    let mut pipeline = redis::pipe();
    pipeline.add_command(Command::Asking.build()).add_command(command.clone());
    let mut replies = connection.req_packed_commands(&pipeline, 0, 2).await?.into_iter();
    replies.next().unwrap_or(Value::Nil).extract_error()?;
    replies.next().unwrap_or(Value::Nil).extract_error()
}
