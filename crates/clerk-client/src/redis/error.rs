//! What can go wrong with the server, and what to do about it.
//!
//! No text holds the URL, a key or a value: Redis repeats arguments in some of its messages, so only their first word,
//! the code, is passed on.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, ServerErrorKind};

/// A store that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisConfigError {
    /// The URL cannot be read.
    #[error(
        "the URL of Redis cannot be read; write redis://[user:password@]host[:port][/database], rediss:// for TLS, \
         or unix:///path, and percent-encode special characters of the password"
    )]
    Url,
    /// `rediss://...#insecure`.
    #[error(
        "the URL of Redis asks for TLS without a check of the certificate (#insecure); \
         trust the server's authority instead"
    )]
    Insecure,
    /// The certificates of the authorities cannot be used.
    #[error("the certificates that vouch for Redis cannot be used: {0}; give certificates in PEM form")]
    Authorities(String),
}

/// An operation that was not done, or whose answer is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisClientError {
    /// There is no working connection, or the server cannot answer yet.
    #[error("Redis is not available: {reason}")]
    Unavailable {
        /// Why, without the address.
        reason: Arc<str>,
    },
    /// The server failed repeatedly and is not asked again for a moment.
    #[error("Redis is not asked for the next {} ms because it failed repeatedly", left.as_millis())]
    Resting {
        /// How long until it is asked again.
        left: Duration,
    },
    /// No answer in time. The operation may have been done.
    #[error("Redis did not answer within {} ms", after.as_millis())]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// The server answered, and said no.
    #[error("Redis refused: {0}")]
    Refused(ErrorReply),
}

/// Why the server said no.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorReply {
    /// `OOM`
    OutOfMemory,
    /// `READONLY`
    ReadOnly,
    /// `MISCONF`
    CannotPersist,
    /// `NOAUTH`, `WRONGPASS`
    Credentials,
    /// `NOPERM`
    Permission,
    /// `MOVED`, `ASK`, `CROSSSLOT`
    Cluster,
    /// Another code.
    Other(Box<str>),
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => {
                "its memory is full (OOM); raise maxmemory, or set maxmemory-policy to one that evicts, such as \
                 volatile-ttl"
            }
            Self::ReadOnly => "it is a read-only replica (READONLY); the URL has to lead to the primary",
            Self::CannotPersist => {
                "it cannot write to its disk and therefore takes no writes (MISCONF); make room on its disk, or see \
                 stop-writes-on-bgsave-error"
            }
            Self::Credentials => "user or password are missing or wrong (NOAUTH, WRONGPASS); check the URL",
            Self::Permission => {
                "the user may not do this (NOPERM); it needs get, set, del, unlink, mget, pexpire, pttl, publish, \
                 subscribe, ping, eval, evalsha and script load on the keys and channels of the prefix"
            }
            Self::Cluster => "it is part of a Redis Cluster, which is not supported; use a single primary",
            Self::Other(code) => return write!(f, "{code}; see the log of Redis"),
        })
    }
}

impl RedisClientError {
    pub(super) fn unavailable(reason: &str) -> Self {
        Self::Unavailable { reason: reason.into() }
    }

    pub(super) fn io(error: &io::Error) -> Self {
        Self::Unavailable { reason: error.kind().to_string().into() }
    }

    /// Whether the server did not do its part. A refusal is an answer, but for a wrong password, which fails whatever is
    /// asked and costs a connection each time.
    pub(super) const fn is_outage(&self) -> bool {
        !matches!(self, Self::Refused(refusal) if !matches!(refusal, ErrorReply::Credentials))
    }
}

/// Whether the connection that gave this error must not be used again.
pub(super) fn breaks_connection(error: &RedisError) -> bool {
    !is_replica(error) && (error.is_unrecoverable_error() || error.is_io_error())
}

/// Whether the server has become a replica: a new connection may lead to the new primary.
pub(super) fn is_replica(error: &RedisError) -> bool {
    refusal(error) == Some(ErrorReply::ReadOnly)
}

/// Whether the connection was gone before the command could be answered, as after a server closed an idle one.
pub(super) fn is_dropped(error: &RedisError) -> bool {
    error.is_io_error() && !error.is_timeout()
}

impl From<RedisError> for RedisClientError {
    fn from(error: RedisError) -> Self {
        if let Some(refusal) = refusal(&error) {
            return Self::Refused(refusal);
        }
        match error.kind() {
            redis::ErrorKind::Server(
                kind @ (ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown),
            ) => Self::unavailable(match kind {
                ServerErrorKind::BusyLoading => "it is loading its data (LOADING)",
                ServerErrorKind::MasterDown => "it is a replica without a primary (MASTERDOWN)",
                _ => "its cluster is down (CLUSTERDOWN)",
            }),
            redis::ErrorKind::Io => Self::unavailable("the connection broke"),
            redis::ErrorKind::Parse | redis::ErrorKind::RESP3NotSupported => {
                Self::unavailable("what answers there does not speak the protocol of Redis")
            }
            _ => match code(&error) {
                Some("BUSY") => Self::unavailable("a script of somebody keeps it busy (BUSY)"),
                Some(code) => Self::Refused(ErrorReply::Other(code.into())),
                None => Self::Refused(ErrorReply::Other("unexpected answer".into())),
            },
        }
    }
}

/// The code of a server's error, if it looks like one.
fn code(error: &RedisError) -> Option<&str> {
    let code = error.code()?;
    let is_code = (1..=24).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_code.then_some(code)
}

fn refusal(error: &RedisError) -> Option<ErrorReply> {
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        return Some(ErrorReply::Credentials);
    }
    let known = |word: &str| match word {
        "OOM" => Some(ErrorReply::OutOfMemory),
        "READONLY" => Some(ErrorReply::ReadOnly),
        "MISCONF" => Some(ErrorReply::CannotPersist),
        "NOAUTH" | "WRONGPASS" => Some(ErrorReply::Credentials),
        "NOPERM" => Some(ErrorReply::Permission),
        "MOVED" | "ASK" | "CROSSSLOT" => Some(ErrorReply::Cluster),
        _ => None,
    };
    let code = code(error)?;
    // Redis before version 7 wraps what happened in a script: "ERR Error running script (...): ...: -OOM command ...".
    let wrapped = || {
        let words = error.detail()?.split_ascii_whitespace();
        words.map(|word| word.trim_start_matches('-')).find_map(known)
    };
    known(code).or_else(|| if code == "ERR" { wrapped() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server wrote, as the client reads it.
    fn answered(text: &str) -> RedisError {
        let line = format!("-{text}\r\n");
        redis::parse_redis_value(line.as_bytes()).unwrap().extract_error().unwrap_err()
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (text, refusal, advice) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorReply::OutOfMemory, "raise maxmemory"),
            (
                "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed",
                ErrorReply::OutOfMemory,
                "raise maxmemory",
            ),
            ("READONLY You can't write against a read only replica.", ErrorReply::ReadOnly, "primary"),
            ("MISCONF Redis is configured to save RDB snapshots", ErrorReply::CannotPersist, "room on its disk"),
            ("NOAUTH Authentication required.", ErrorReply::Credentials, "check the URL"),
            ("WRONGPASS invalid username-password pair", ErrorReply::Credentials, "check the URL"),
            ("NOPERM this user has no permissions", ErrorReply::Permission, "evalsha"),
            ("MOVED 3999 127.0.0.1:6381", ErrorReply::Cluster, "single primary"),
            ("ERR unknown command 'x', with args: CANARY", ErrorReply::Other("ERR".into()), "log of Redis"),
        ] {
            let error = RedisClientError::from(answered(text));
            assert_eq!(error, RedisClientError::Refused(refusal), "{text}");
            assert_eq!(error.is_outage(), error == RedisClientError::Refused(ErrorReply::Credentials));
            let shown = error.to_string();
            assert!(shown.contains(advice) && !shown.contains("CANARY"), "{shown}");
        }
    }

    #[test]
    fn a_server_that_cannot_answer_yet_is_not_available() {
        for text in
            ["LOADING Redis is loading the dataset", "BUSY Redis is busy", "MASTERDOWN Link with MASTER is down"]
        {
            let error = RedisClientError::from(answered(text));
            assert!(matches!(error, RedisClientError::Unavailable { .. }) && error.is_outage(), "{text}: {error}");
        }
    }

    #[test]
    fn a_replica_is_told_from_a_broken_connection() {
        let replica = answered("READONLY You can't write");
        assert!(is_replica(&replica) && !breaks_connection(&replica));
        let full = answered("OOM command not allowed");
        assert!(!is_replica(&full) && !breaks_connection(&full));
        let broken = RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(breaks_connection(&broken) && is_dropped(&broken));
    }
}
