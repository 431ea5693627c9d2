//! What can go wrong with the server, and what to do about it.
//!
//! No text holds the URL, a key or a value: Redis repeats arguments in some of its messages, so only their first word,
//! the code, is passed on.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

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
    /// The prefix would break the names behind it.
    #[error("the prefix of keys in Redis holds a character that it must not; write printable ASCII without {{")]
    Prefix,
    /// The certificates of the authorities cannot be used.
    #[error("the certificates that vouch for Redis cannot be used: {0}; give certificates in PEM form")]
    Authorities(String),
}

impl From<std::convert::Infallible> for RedisConfigError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
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
    Permission(MissingRight),
    /// A command that the server does not know: it was renamed or is disabled. The name, if it is one of ours.
    UnknownCommand(Option<Box<str>>),
    /// `MOVED`, `ASK`, `CROSSSLOT`
    Cluster,
    /// `NOREPLICAS`
    TooFewReplicas,
    /// `DENIED`: protected mode.
    ProtectedMode,
    /// Another code.
    Other(Box<str>),
}

/// Which right a user lacks, as far as the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingRight {
    /// To run a command: one of these, in lower case.
    Command(Vec<Box<str>>),
    /// To run a command that the server does not name, in this line of a script if it says so.
    Unnamed {
        /// The first is 1.
        line: Option<usize>,
    },
    /// To a key.
    Key,
    /// To a channel.
    Channel,
}

/// What [`ErrorReply`]s have in common, as a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// The user lacks a right.
    Permission,
    /// User or password are wrong.
    Credentials,
    /// Memory is full.
    OutOfMemory,
    /// It is a replica.
    ReadOnly,
    /// It cannot write to its disk.
    CannotPersist,
    /// It does not know a command.
    UnknownCommand,
    /// It is part of a cluster.
    Cluster,
    /// It has too few replicas.
    TooFewReplicas,
    /// It takes local connections only.
    ProtectedMode,
    /// Anything else.
    Other,
}

impl RefusalClass {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Permission,
        Self::Credentials,
        Self::OutOfMemory,
        Self::ReadOnly,
        Self::CannotPersist,
        Self::UnknownCommand,
        Self::Cluster,
        Self::TooFewReplicas,
        Self::ProtectedMode,
        Self::Other,
    ];

    /// The value of the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::Credentials => "credentials",
            Self::OutOfMemory => "out_of_memory",
            Self::ReadOnly => "read_only",
            Self::CannotPersist => "cannot_persist",
            Self::UnknownCommand => "unknown_command",
            Self::Cluster => "cluster",
            Self::TooFewReplicas => "too_few_replicas",
            Self::ProtectedMode => "protected_mode",
            Self::Other => "other",
        }
    }
}

impl ErrorReply {
    /// Its class.
    #[must_use]
    pub const fn class(&self) -> RefusalClass {
        match self {
            Self::OutOfMemory => RefusalClass::OutOfMemory,
            Self::ReadOnly => RefusalClass::ReadOnly,
            Self::CannotPersist => RefusalClass::CannotPersist,
            Self::Credentials => RefusalClass::Credentials,
            Self::Permission(_) => RefusalClass::Permission,
            Self::UnknownCommand(_) => RefusalClass::UnknownCommand,
            Self::Cluster => RefusalClass::Cluster,
            Self::TooFewReplicas => RefusalClass::TooFewReplicas,
            Self::ProtectedMode => RefusalClass::ProtectedMode,
            Self::Other(_) => RefusalClass::Other,
        }
    }

    /// Whether nothing at all can be done on such a connection.
    pub(super) const fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Credentials | Self::ProtectedMode)
    }

    /// Names what may be missing where the server did not: one of the commands that were to be run, in that line if it is
    /// known.
    pub(super) fn named(self, commands: impl FnOnce(Option<usize>) -> Vec<Box<str>>) -> Self {
        match self {
            Self::Permission(MissingRight::Unnamed { line }) => Self::Permission(MissingRight::Command(commands(line))),
            other => other,
        }
    }
}

impl fmt::Display for MissingRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(names) => match &names[..] {
                [name] => write!(f, "+{name}"),
                names => write!(f, "to a command, one of +{}", names.join(" +")),
            },
            Self::Unnamed { .. } => f.write_str("to a command"),
            Self::Key => f.write_str("to the keys of the prefix (~<prefix>*)"),
            Self::Channel => f.write_str("to the channels of the prefix (&<prefix>*)"),
        }
    }
}

/// Where it is described what is needed of the server.
pub(super) const DOCUMENT: &str = "https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/redis.md";

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
            Self::Permission(right) => {
                return write!(f, "the user lacks the right {right} (NOPERM); see {DOCUMENT}#access-rights");
            }
            Self::UnknownCommand(Some(name)) => {
                return write!(f, "it does not know the command {name}; do not rename or disable it");
            }
            Self::UnknownCommand(None) => {
                return write!(f, "it does not know a command, which may be renamed; see {DOCUMENT}#access-rights");
            }
            Self::Cluster => "it is part of a Redis Cluster, which is not supported; use a single primary",
            Self::TooFewReplicas => {
                "it has too few replicas to take writes (NOREPLICAS); repair them, or see min-replicas-to-write"
            }
            Self::ProtectedMode => {
                "it takes connections from its own machine only (DENIED, protected mode); give its user a password"
            }
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

    /// Names what may be missing where the server did not.
    pub(super) fn named(self, commands: impl FnOnce(Option<usize>) -> Vec<Box<str>>) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(refusal.named(commands)),
            other => other,
        }
    }

    /// Whether the server did not do its part. A refusal is an answer, but for a wrong password, which fails whatever is
    /// asked and costs a connection each time.
    pub(crate) const fn is_outage(&self) -> bool {
        !matches!(self, Self::Refused(refusal) if !matches!(refusal, ErrorReply::Credentials))
    }
}
