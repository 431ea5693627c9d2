//! The rights that the server's user needs, derived from the commands sent and those in the scripts.

use std::collections::BTreeSet;

use super::scripts;

/// All commands that this library sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Command {
    Asking,
    Auth,
    EvalSha,
    Get,
    Hello,
    Ping,
    PubSubNumSub,
    Publish,
    ScriptLoad,
    Select,
    SentinelPrimary,
    Set,
    Subscribe,
    Unlink,
}

/// When the right to a command is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Everybody.
    Always,
    /// With a database other than 0.
    OtherDatabase,
    /// In a cluster.
    Cluster,
    /// Not by the server, but by the sentinels.
    Sentinels,
    /// Never: the server requires no right, or the command only follows another refusal.
    Never,
}

impl Command {
    const ALL: [Self; 14] = [
        Self::Asking,
        Self::Auth,
        Self::EvalSha,
        Self::Get,
        Self::Hello,
        Self::Ping,
        Self::PubSubNumSub,
        Self::Publish,
        Self::ScriptLoad,
        Self::Select,
        Self::SentinelPrimary,
        Self::Set,
        Self::Subscribe,
        Self::Unlink,
    ];

    /// The name of the right, as in `ACL SETUSER … +name`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Asking => "asking",
            Self::Auth => "auth",
            Self::EvalSha => "evalsha",
            Self::Get => "get",
            Self::Hello => "hello",
            Self::Ping => "ping",
            Self::PubSubNumSub => "pubsub|numsub",
            Self::Publish => "publish",
            Self::ScriptLoad => "script|load",
            Self::Select => "select",
            Self::SentinelPrimary => "sentinel|get-master-addr-by-name",
            Self::Set => "set",
            Self::Subscribe => "subscribe",
            Self::Unlink => "unlink",
        }
    }

    const fn need(self) -> Need {
        match self {
            Self::Auth | Self::Hello | Self::PubSubNumSub => Need::Never,
            Self::Asking => Need::Cluster,
            Self::Select => Need::OtherDatabase,
            Self::SentinelPrimary => Need::Sentinels,
            _ => Need::Always,
        }
    }

    /// Whether a missing right to it need not be reported.
    pub(super) fn is_optional(self) -> bool {
        self.need() == Need::Never
    }

    /// The command without arguments.
    pub(super) fn build(self) -> redis::Cmd {
        let mut words = self.name().split('|');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        command.arg(words.collect::<Vec<_>>());
        command
    }
}

/// The commands that the user must be allowed to run, in lower case, sorted.
pub(super) fn commands() -> BTreeSet<Box<str>> {
    let sent = Command::ALL.into_iter().filter(|command| command.need() == Need::Always);
    let sent = sent.map(|command| Box::from(command.name()));
    scripts::all_commands().into_iter().chain(sent).collect()
}

/// Whether a word in a server's message is the name of a command used here.
pub(super) fn is_known(word: &str) -> bool {
    Command::ALL.iter().any(|command| command.name() == word || command.name().split('|').next() == Some(word))
        || commands().contains(word)
}

/// Returns the command that grants a user exactly the rights needed with this prefix.
///
/// For Redis 6.2 or later, or Valkey. A URL with a database other than 0 also needs `+select`, and a cluster `+asking`.
///
/// ```
/// let rule = clerk_client::redis::acl_rule("clerk-exporter:");
/// assert!(rule.starts_with("ACL SETUSER <user> on ><password> ~clerk-exporter:* &clerk-exporter:* -@all +del "));
/// ```
#[must_use]
pub fn acl_rule(prefix: &str) -> String {
    let pattern = escaped(prefix);
    let rule = format!("ACL SETUSER <user> on ><password> ~{pattern}* &{pattern}* -@all");
    commands().iter().fold(rule, |rule, command| rule + " +" + command)
}

/// Escapes a prefix for use in a pattern.
fn escaped(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len());
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_contains_each_needed_command_once() {
        let rule = acl_rule("a*b:");
        assert!(rule.starts_with("ACL SETUSER <user> on ><password> ~a\\*b:* &a\\*b:* -@all +"), "{rule}");
        for right in ["time", "evalsha", "script|load", "subscribe", "ping", "publish", "zadd"] {
            assert_eq!(
                rule.matches(&format!(" +{right} ")).count() + usize::from(rule.ends_with(&format!(" +{right}"))),
                1,
                "{rule}"
            );
        }
        for right in ["eval", "asking", "auth", "hello", "select", "pubsub|numsub", "keys"] {
            assert!(!rule.contains(&format!(" +{right} ")), "{rule}");
        }
    }

    #[test]
    fn subcommands_are_sent_as_separate_words() {
        let packed = Command::ScriptLoad.build().get_packed_command();
        assert_eq!(packed, b"*2\r\n$6\r\nscript\r\n$4\r\nload\r\n");
        assert_eq!(Command::Get.build().get_packed_command(), b"*1\r\n$3\r\nget\r\n");
    }
}
