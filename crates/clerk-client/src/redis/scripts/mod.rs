//! The Lua scripts. All of them are here, so that the rights they need are known ([`permissions`](super::permissions)).

pub(crate) mod cache;
pub(crate) mod limiter;

use std::collections::BTreeSet;
use std::fmt;

/// Start of a script that needs the time: `now`, in microseconds of the server's clock.
const SERVER_CLOCK: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
";

/// The line of [`SERVER_CLOCK`] that only the right to `TIME` concerns.
const TIME_LINE: usize = 2;

/// The same by the client's clock, which is the last argument. As many lines, so that errors name the same ones.
const CLIENT_CLOCK: &str = r"
local now = tonumber(table.remove(ARGV))

";

/// The same, but never before the newest entry of the log (a sorted set), which is the last key.
const LOG_CLOCK: &str = r"
local now = tonumber(table.remove(ARGV))
now = math.max(now, redis.call('ZRANGE', table.remove(KEYS), -1, -1, 'WITHSCORES')[2] or 0)
";

/// A Lua script. Called by its hash; loaded if the server does not know it.
pub struct Script {
    server: Form,
    /// For servers that refuse `TIME` in scripts, if the script needs the time.
    client: Option<Form>,
}

/// A text as the server knows it.
pub(super) struct Form {
    pub(super) text: Box<str>,
    pub(super) hash: Box<str>,
}

impl Form {
    fn new(text: String) -> Self {
        Self { hash: redis::Script::new(&text).get_hash().into(), text: text.into() }
    }
}

impl Script {
    /// Creates a script from its text, which must write its commands in the form `redis.call('GET', …)`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { server: Form::new(text.to_owned()), client: None }
    }

    /// Creates a script that needs the time. `now` in its text is in microseconds of the server's clock; where the server
    /// refuses `TIME` in scripts, of the clock of this process.
    #[must_use]
    pub fn timed(text: &str) -> Self {
        Self::with_clocks(text, CLIENT_CLOCK)
    }

    /// [`Script::timed`], but the clock of this process is not behind the newest entry of a log. To be run by
    /// [`RedisClient::run_by_log`](super::RedisClient::run_by_log).
    pub(crate) fn timed_by_log(text: &str) -> Self {
        Self::with_clocks(text, LOG_CLOCK)
    }

    fn with_clocks(text: &str, client: &str) -> Self {
        let [server, client] = [SERVER_CLOCK, client].map(|clock| Form::new([clock, text].concat()));
        Self { server, client: Some(client) }
    }

    /// The commands that it may run, in lower case: those in this line, if given and not empty. Lines start at 1.
    pub(super) fn commands(&self, line: Option<usize>) -> BTreeSet<Box<str>> {
        let text = &self.server.text;
        let line = line.and_then(|line| text.split('\n').nth(line.checked_sub(1)?)).map(commands);
        line.filter(|commands| !commands.is_empty()).unwrap_or_else(|| self.all_commands())
    }

    fn all_commands(&self) -> BTreeSet<Box<str>> {
        [&self.server].into_iter().chain(&self.client).flat_map(|form| commands(&form.text)).collect()
    }

    pub(super) fn hash(&self) -> &str {
        &self.server.hash
    }

    /// The text for a server that allows `TIME`, or for one that refuses it.
    pub(super) fn form(&self, refuses_time: bool) -> &Form {
        self.client.as_ref().filter(|_| refuses_time).unwrap_or(&self.server)
    }

    /// The line that runs `TIME`.
    pub(super) fn time_line(&self) -> Option<usize> {
        self.client.as_ref().map(|_| TIME_LINE)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.hash()).finish()
    }
}

/// All scripts of this library.
pub(super) fn all() -> [Script; 7] {
    let [look, keep, invalidate] = [cache::LOOK, cache::KEEP, cache::INVALIDATE].map(Script::new);
    [look, keep, invalidate, limiter::take(), limiter::end(), limiter::claim(), limiter::usage()]
}

/// The commands of all scripts, in lower case.
pub(super) fn all_commands() -> BTreeSet<Box<str>> {
    all().iter().flat_map(Script::all_commands).collect()
}

/// The commands in a script's calls, in lower case.
pub(super) fn commands(text: &str) -> BTreeSet<Box<str>> {
    let calls = ["redis.call(", "redis.pcall("];
    let behind = calls.iter().flat_map(|call| text.split(call).skip(1));
    let quoted = behind.filter_map(|rest| rest.strip_prefix('\'')?.split('\'').next());
    quoted.map(|name| name.to_ascii_lowercase().into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_line_has_fewer_commands_than_the_whole() {
        let script = Script::new("\nlocal x = redis.call('GET', 'k')\nredis.call('SET', 'k', x)\nreturn x");
        let of = |line| script.commands(line).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!([Some(2), Some(3)].map(of), ["get", "set"]);
        assert_eq!([None, Some(0), Some(1), Some(4), Some(5)].map(of), ["get set"; 5]);
    }

    #[test]
    fn every_call_of_every_script_names_its_command() {
        for script in all() {
            for text in [&script.server].into_iter().chain(&script.client).map(|form| &form.text) {
                let calls = text.matches("redis.call(").count() + text.matches("redis.pcall(").count();
                let named = text.matches("redis.call('").count() + text.matches("redis.pcall('").count();
                assert!(calls > 0 && calls == named, "{text}");
            }
        }
        let found = commands("x = redis.call('GET', k) if redis.pcall('PUBLISH', c) then redis.call('GET') end");
        assert_eq!(found, ["get", "publish"].map(Box::from).into());
    }

    #[test]
    fn only_one_line_of_one_form_runs_time() {
        for script in all() {
            let runs_time = |text: &str| commands(text).contains("time");
            let lines = script.server.text.split('\n').zip(1..).filter(|(line, _)| runs_time(line));
            let lines: Vec<_> = lines.map(|(_, number)| number).collect();
            assert_eq!(lines, script.time_line().into_iter().collect::<Vec<_>>());
            let Some(client) = &script.client else { continue };
            assert!(!runs_time(&client.text));
            assert_eq!(client.text.lines().count(), script.server.text.lines().count());
            assert_eq!(script.commands(Some(TIME_LINE)), ["time".into()].into());
        }
    }
}
