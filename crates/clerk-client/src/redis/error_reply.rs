//! Meaning of the server's errors. Their texts differ between versions and inside scripts;
//! `tests/data/redis-errors.tsv` contains the known ones.

use redis::{RedisError, ServerErrorKind};

use super::permissions;
use super::{ErrorReply, MissingRight, RedisClientError};

/// Whether the connection must not be used again after this error.
pub(super) fn breaks_connection(error: &RedisError) -> bool {
    !is_replica(error) && (error.is_unrecoverable_error() || error.is_io_error())
}

/// Whether the server has become a replica: a new connection may reach the new primary.
pub(super) fn is_replica(error: &RedisError) -> bool {
    line(error).is_some_and(|line| classify(&line) == RedisClientError::Refused(ErrorReply::ReadOnly))
}

/// Whether a node of a cluster serves nothing now.
pub(super) fn is_unfit(error: &RedisError) -> bool {
    let line = line(error).unwrap_or_default();
    ["CLUSTERDOWN", "LOADING", "MASTERDOWN"].iter().any(|code| line.starts_with(code))
        || line.contains("cluster is down")
}

/// Whether a script failed because it may not run `TIME`, which only this line of it does.
pub(super) fn refuses_time(error: &RedisError, time_line: usize) -> bool {
    let Some(text) = line(error) else { return false };
    let RedisClientError::Refused(refusal) = classify(&text) else { return false };
    let is_named = matches!(&refusal, ErrorReply::Permission(MissingRight::Command(names)) if matches!(&names[..], [name] if **name == *"time"));
    is_named || script_line(&text).map_or_else(|| text.contains("not allowed from script"), |line| line == time_line)
}

/// Whether the connection closed before the response, as after a server closed an idle one.
pub(super) fn is_dropped(error: &RedisError) -> bool {
    error.is_io_error() && !error.is_timeout()
}

impl From<RedisError> for RedisClientError {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            redis::ErrorKind::AuthenticationFailed => return Self::Refused(ErrorReply::Credentials),
            redis::ErrorKind::Io => return Self::unavailable("connection lost"),
            redis::ErrorKind::Parse | redis::ErrorKind::RESP3NotSupported => {
                return Self::unavailable("the server does not speak the Redis protocol");
            }
            _ => {}
        }
        line(&error)
            .map_or_else(|| Self::Refused(ErrorReply::Other("unexpected response".into())), |line| classify(&line))
    }
}

/// The server's error line, without the dash.
fn line(error: &RedisError) -> Option<String> {
    let code = match error.kind() {
        // The client has parsed the code into a kind of its own.
        redis::ErrorKind::Server(ServerErrorKind::ExecAbort) => "EXECABORT",
        _ => error.code()?,
    };
    Some(error.detail().map_or_else(|| code.to_owned(), |detail| format!("{code} {detail}")))
}

/// Classifies an error line.
pub(super) fn classify(line: &str) -> RedisClientError {
    use RedisClientError::Refused;
    let (code, rest) = line.split_once(' ').unwrap_or((line, ""));
    if code != "ERR" && is_code(code) {
        return by_code(code, rest).unwrap_or_else(|| Refused(ErrorReply::Other(code.into())));
    }
    if let Some(meaning) = by_phrase(rest) {
        return meaning;
    }
    // Redis before version 7 wraps errors in scripts: "ERR Error running script (...): ...: -OOM command ...".
    let words = rest.split_ascii_whitespace().map(|word| word.trim_start_matches('-'));
    let wrapped = words.filter(|word| is_code(word)).find_map(|word| by_code(word, rest));
    let other = if is_code(code) { code } else { "unexpected response" };
    wrapped.unwrap_or_else(|| Refused(ErrorReply::Other(other.into())))
}

fn is_code(word: &str) -> bool {
    (2..=24).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

fn by_code(code: &str, rest: &str) -> Option<RedisClientError> {
    let refused = match code {
        "OOM" => ErrorReply::OutOfMemory,
        "READONLY" => ErrorReply::ReadOnly,
        "MISCONF" => ErrorReply::CannotPersist,
        "NOAUTH" | "WRONGPASS" => ErrorReply::Credentials,
        "NOPERM" => ErrorReply::Permission(missing_right(rest)),
        "MOVED" | "ASK" | "CROSSSLOT" => ErrorReply::Cluster,
        "NOREPLICAS" => ErrorReply::TooFewReplicas,
        "DENIED" => ErrorReply::ProtectedMode,
        _ => {
            let reason = match code {
                "LOADING" => "loading its data (LOADING)",
                "BUSY" => "busy with a script (BUSY)",
                "MASTERDOWN" => "replica without a primary (MASTERDOWN)",
                "CLUSTERDOWN" => "cluster is down (CLUSTERDOWN)",
                "TRYAGAIN" => "cluster is moving keys (TRYAGAIN)",
                "NOSCRIPT" => "lost a script just after loading it (NOSCRIPT)",
                _ => return None,
            };
            return Some(RedisClientError::unavailable(reason));
        }
    };
    Some(RedisClientError::Refused(refused))
}

/// Errors without a code of their own. Some of them end with client input, so those are checked first.
fn by_phrase(text: &str) -> Option<RedisClientError> {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    let refused = if says(&["nknown command", "nknown Redis command", "nknown subcommand"]) {
        let name = quoted(text).map(str::to_ascii_lowercase);
        ErrorReply::UnknownCommand(name.filter(|name| permissions::is_known(name)).map(Box::from))
    } else if says(&["ACL failure in script", "The user executing the script", "no permissions to"]) {
        ErrorReply::Permission(missing_right(text))
    } else if says(&["a non local key", "the same slot", "a slot not served"]) {
        ErrorReply::Cluster
    } else if says(&["without any password configured"]) {
        ErrorReply::Credentials
    } else {
        let reason = if says(&["max number of clients"]) {
            "client limit reached (maxclients)"
        } else if says(&["cluster is down"]) {
            "cluster is down (CLUSTERDOWN)"
        } else if says(&["on a stale replica"]) {
            "replica without a primary (MASTERDOWN)"
        } else {
            return None;
        };
        return Some(RedisClientError::unavailable(reason));
    };
    Some(RedisClientError::Refused(refused))
}

fn missing_right(text: &str) -> MissingRight {
    // The quoted part may be a key. Before it, `keys` or `key` are the server's words.
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if let Some(name) = text.split("to run the '").nth(1).and_then(|rest| rest.split('\'').next()) {
        let name = name.to_ascii_lowercase();
        // Unknown names may be user input and are not shown.
        if permissions::is_known(&name) {
            MissingRight::Command(vec![name.into()])
        } else {
            MissingRight::Unnamed { line: None }
        }
    } else if says(&["' channel", "the channel ", "of the channels", "a channel"]) {
        MissingRight::Channel
    } else if says(&["' key", "of the keys", "a key"]) {
        MissingRight::Key
    } else {
        MissingRight::Unnamed { line: script_line(text) }
    }
}

/// The line of the script where the error occurred.
fn script_line(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once("@user_script:")?;
    let rest = rest.trim_start();
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// The first word in quotation marks of any kind.
fn quoted(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(['\'', '`'])?;
    Some(rest.split(['\'', '`']).next().unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// The server's error as the client parses it.
    fn answered(text: &str) -> RedisError {
        let line = format!("-{text}\r\n");
        redis::parse_redis_value(line.as_bytes()).unwrap().extract_error().unwrap_err()
    }

    /// The class as written in the table.
    fn word(error: &RedisClientError) -> String {
        match error {
            RedisClientError::Unavailable { .. } => "unavailable".to_owned(),
            RedisClientError::Refused(ErrorReply::Permission(right)) => match right {
                MissingRight::Command(names) => format!("permission:command {}", names.join(",")),
                MissingRight::Unnamed { .. } => "permission:command".to_owned(),
                MissingRight::Key => "permission:key".to_owned(),
                MissingRight::Channel => "permission:channel".to_owned(),
            },
            RedisClientError::Refused(refusal) => refusal.class().as_str().to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn error_texts_of_all_servers_are_classified() {
        let table = include_str!("../../tests/data/redis-errors.tsv");
        let mut rows = 0;
        for row in table.lines().filter(|row| !row.starts_with('#')).skip(1) {
            let [server, version, from, line, class, source] = row.split('\t').collect::<Vec<_>>()[..] else {
                panic!("not six columns: {row}")
            };
            let error = RedisClientError::from(answered(line));
            assert_eq!(word(&error), class, "{server} {version} {from}: {line}");
            let shown = error.to_string();
            assert!(!shown.contains("CANARY") && !source.is_empty(), "{shown}");
            rows += 1;
        }
        assert!(rows > 40, "{rows} wordings");
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (text, advice) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", "raise maxmemory"),
            ("READONLY You can't write against a read only replica.", "primary"),
            ("MISCONF Redis is configured to save RDB snapshots", "free disk space"),
            ("NOAUTH Authentication required.", "check the URL"),
            ("WRONGPASS invalid username-password pair", "check the URL"),
            ("NOPERM this user has no permissions to run the 'evalsha' command", "+evalsha"),
            ("NOPERM User CANARY has no permissions to access the 'CANARY' key", "~<prefix>*"),
            ("MOVED 3999 127.0.0.1:6381", "cluster"),
            ("ERR unknown command 'evalsha', with args: CANARY", "command evalsha"),
            ("ERR unknown command 'CANARY', with args: OOM NOPERM", "renamed"),
            ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
            ("STRANGE x", "Redis log"),
        ] {
            let error = RedisClientError::from(answered(text));
            assert!(matches!(error, RedisClientError::Refused(_)), "{text}");
            assert_eq!(error.is_outage(), error == RedisClientError::Refused(ErrorReply::Credentials));
            let shown = error.to_string();
            assert!(shown.contains(advice) && !shown.contains("CANARY"), "{shown}");
        }
    }

    #[test]
    fn an_unnamed_command_is_one_of_those_in_its_line() {
        let denied = "The user executing the script can't run this command or subcommand";
        for text in [
            format!("ERR {denied} script: {}, on @user_script:12.", "a".repeat(40)),
            format!(
                "ERR Error running script (call to f_{}): @user_script:12: @user_script: 12: {denied}",
                "a".repeat(40)
            ),
        ] {
            let RedisClientError::Refused(reply) = RedisClientError::from(answered(&text)) else { panic!("{text}") };
            let named = reply.named(|line| {
                assert_eq!(line, Some(12));
                vec!["get".into(), "pttl".into()]
            });
            assert!(named.to_string().contains("one of +get +pttl"));
        }
        let named = ErrorReply::Permission(MissingRight::Command(vec!["set".into()]));
        assert_eq!(named.clone().named(|_| vec!["get".into()]), named);
    }

    #[test]
    fn refused_time_is_told_from_other_errors() {
        let hash = "a".repeat(40);
        for text in [
            // Redis 7 and 6.2 with ACLs, and what ElastiCache Serverless was seen to answer.
            format!(
                "ERR ACL failure in script: User app has no permissions to run the 'time' command script: {hash}, on @user_script:2."
            ),
            format!(
                "ERR Error running script (call to f_{hash}): @user_script:2: @user_script: 2: The user executing the script can't run this command or subcommand"
            ),
            format!("ERR This Redis command is not allowed from script script: {hash}, on @user_script:2."),
            "ERR This Redis command is not allowed from scripts".to_owned(),
        ] {
            assert!(refuses_time(&answered(&text), 2), "{text}");
        }
        for text in [
            format!(
                "ERR ACL failure in script: User app has no permissions to run the 'zadd' command script: {hash}, on @user_script:3."
            ),
            format!("OOM command not allowed when used memory > 'maxmemory'. script: {hash}, on @user_script:30."),
            "NOPERM this user has no permissions to run the 'evalsha' command".to_owned(),
            "MOVED 3999 127.0.0.1:6381".to_owned(),
            "BUSY Redis is busy running a script".to_owned(),
        ] {
            assert!(!refuses_time(&answered(&text), 2), "{text}");
        }
    }

    #[test]
    fn loading_or_busy_server_is_an_outage() {
        for text in ["LOADING Redis is loading the dataset", "BUSY Redis is busy", "ERR max number of clients reached"]
        {
            let error = RedisClientError::from(answered(text));
            assert!(matches!(error, RedisClientError::Unavailable { .. }) && error.is_outage(), "{text}: {error}");
        }
    }

    #[test]
    fn replica_is_distinguished_from_a_broken_connection() {
        let replica = answered("READONLY You can't write");
        assert!(is_replica(&replica) && !breaks_connection(&replica));
        let full = answered("OOM command not allowed");
        assert!(!is_replica(&full) && !breaks_connection(&full));
        let broken = RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(breaks_connection(&broken) && is_dropped(&broken));
    }
}
