//! The Lua scripts. All of them are here, so that the rights they need are known ([`permissions`](super::permissions)).

pub(crate) mod cache;
pub(crate) mod limiter;

use std::collections::BTreeSet;
use std::fmt;

/// A Lua script. Called by its hash; loaded if the server does not know it.
pub struct Script {
    pub(super) script: redis::Script,
    text: Box<str>,
}

impl Script {
    /// Creates a script from its text, which must write its commands in the form `redis.call('GET', …)`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { script: redis::Script::new(text), text: text.into() }
    }

    /// The commands that it may run, in lower case: those in this line, if given and not empty. Lines start at 1.
    pub(super) fn commands(&self, line: Option<usize>) -> BTreeSet<Box<str>> {
        let line = line.and_then(|line| self.text.split('\n').nth(line.checked_sub(1)?)).map(commands);
        line.filter(|commands| !commands.is_empty()).unwrap_or_else(|| commands(&self.text))
    }

    pub(super) fn hash(&self) -> &str {
        self.script.get_hash()
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.hash()).finish()
    }
}

/// All scripts of this library.
pub(super) fn texts() -> [String; 7] {
    let [look, keep, invalidate] = [cache::LOOK, cache::KEEP, cache::INVALIDATE].map(str::to_owned);
    let [claim, usage] = [limiter::CLAIM, limiter::USAGE].map(str::to_owned);
    [look, keep, invalidate, limiter::take(), limiter::end(), claim, usage]
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
        for text in texts() {
            let calls = text.matches("redis.call(").count() + text.matches("redis.pcall(").count();
            let named = text.matches("redis.call('").count() + text.matches("redis.pcall('").count();
            assert!(calls > 0 && calls == named, "{text}");
        }
        let found = commands("x = redis.call('GET', k) if redis.pcall('PUBLISH', c) then redis.call('GET') end");
        assert_eq!(found, ["get", "publish"].map(Box::from).into());
    }
}
