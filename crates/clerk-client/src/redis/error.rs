//! Errors of the Redis client.
//!
//! Messages contain no URL, key or value. Redis repeats arguments in some of its errors, so only their first word, the
//! code, is shown.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Invalid options of a Redis client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConfigError {
    /// The URL is invalid.
    #[error(
        "invalid Redis URL; write redis://[user:password@]host[:port][/database], rediss:// for TLS, unix:///path, \
        redis+sentinel://host,host/name or redis+cluster://host,host, and percent-encode special characters in the password"
    )]
    Url,
    /// The URL of sentinels is invalid.
    #[error(
        "invalid URL of Redis sentinels; write redis+sentinel://[user:password@]host[:port][,host…]/name[/database]\
        [?sentinel_username=…&sentinel_password=…], rediss+sentinel:// for TLS, and percent-encode special characters"
    )]
    SentinelUrl,
    /// The URL of a cluster is invalid.
    #[error(
        "invalid URL of a Redis cluster; write redis+cluster://[user:password@]host[:port][,host…], rediss+cluster:// for \
        TLS, without a database, and percent-encode special characters in the password"
    )]
    ClusterUrl,
    /// `rediss://...#insecure`.
    #[error(
        "the Redis URL disables certificate verification (#insecure); \
        configure the CA certificate of the server instead"
    )]
    Insecure,
    /// The URL contains a password, and there is another source of it.
    #[error("the Redis URL contains a password, and another source of it is configured; keep one of them")]
    TwoPasswords,
    /// The command that prints the password is empty.
    #[error("empty command for the Redis password; write a program and its arguments")]
    PasswordCommand,
    /// The prefix would break the names after it.
    #[error("invalid character in the Redis key prefix; use printable ASCII without {{")]
    Prefix,
    /// The CA certificates are invalid.
    #[error("invalid CA certificates for Redis: {0}; use certificates in PEM format")]
    Authorities(String),
}

impl From<std::convert::Infallible> for RedisConfigError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// An operation that failed, or whose result is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisClientError {
    /// There is no working connection, or the server cannot respond yet.
    #[error("Redis is unavailable: {reason}")]
    Unavailable {
        /// The cause, without the address.
        reason: Arc<str>,
    },
    /// The server failed repeatedly and is not tried for a moment.
    #[error("Redis is not used for the next {} ms after repeated failures", left.as_millis())]
    Resting {
        /// Time until it is tried again.
        left: Duration,
    },
    /// No response in time. The operation may have been done.
    #[error("Redis did not respond within {} ms", after.as_millis())]
    Timeout {
        /// The timeout.
        after: Duration,
    },
    /// The server refused the operation.
    #[error("Redis refused: {0}")]
    Refused(ErrorReply),
}

/// Why the server refused an operation.
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
    /// An unknown command: renamed or disabled. The name, if it is one of those used here.
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

/// The right that a user lacks, as far as the server names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingRight {
    /// To run a command: one of these, in lower case.
    Command(Vec<Box<str>>),
    /// To run a command that the server does not name, in this line of a script if known.
    Unnamed {
        /// Starts at 1.
        line: Option<usize>,
    },
    /// To a key.
    Key,
    /// To a channel.
    Channel,
}

/// Class of an [`ErrorReply`], as a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// The user lacks a right.
    Permission,
    /// User or password is wrong.
    Credentials,
    /// The server is out of memory.
    OutOfMemory,
    /// The server is a replica.
    ReadOnly,
    /// The server cannot write to its disk.
    CannotPersist,
    /// The server does not know a command.
    UnknownCommand,
    /// The cluster names no node that can be used.
    Cluster,
    /// The server has too few replicas.
    TooFewReplicas,
    /// The server accepts local connections only.
    ProtectedMode,
    /// Any other error.
    Other,
}

impl RefusalClass {
    /// All classes.
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

    /// Returns the label value.
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
    /// Returns the class.
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

    /// Whether it applies to every operation on the connection.
    pub(super) const fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Credentials | Self::ProtectedMode)
    }

    /// Replaces an unnamed right by the commands that were to be run, in that line if known.
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

/// The document about the requirements for the server.
pub(super) const DOCUMENT: &str = "https://github.com/clerk-exporter/clerk-exporter/blob/main/docs/redis.md";

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => {
                "out of memory (OOM); raise maxmemory, or set maxmemory-policy to one that evicts, such as volatile-lru"
            }
            Self::ReadOnly => "read-only replica (READONLY); point the URL to the primary",
            Self::CannotPersist => {
                "the disk is not writable (MISCONF); free disk space, or see stop-writes-on-bgsave-error"
            }
            Self::Credentials => "missing or wrong user or password (NOAUTH, WRONGPASS); check the URL",
            Self::Permission(right) => {
                return write!(f, "the user lacks the right {right} (NOPERM); see {DOCUMENT}#access-rights");
            }
            Self::UnknownCommand(Some(name)) => {
                return write!(f, "unknown command {name}; do not rename or disable it");
            }
            Self::UnknownCommand(None) => {
                return write!(f, "unknown command, possibly renamed; see {DOCUMENT}#access-rights");
            }
            Self::Cluster => {
                return write!(
                    f,
                    "the cluster names no node that can be used (MOVED, ASK, CROSSSLOT); see {DOCUMENT}#which-server"
                );
            }
            Self::TooFewReplicas => {
                "too few replicas for writes (NOREPLICAS); repair them, or see min-replicas-to-write"
            }
            Self::ProtectedMode => {
                "only local connections are accepted (DENIED, protected mode); set a password for the user"
            }
            Self::Other(code) => return write!(f, "{code}; see the Redis log"),
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

    /// Names the missing right, see [`ErrorReply::named`].
    pub(super) fn named(self, commands: impl FnOnce(Option<usize>) -> Vec<Box<str>>) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(refusal.named(commands)),
            other => other,
        }
    }

    /// Whether the server failed. A refusal is a response, except for wrong credentials: they make every operation fail
    /// and cost a connection each time.
    pub(crate) const fn is_outage(&self) -> bool {
        !matches!(self, Self::Refused(refusal) if !matches!(refusal, ErrorReply::Credentials))
    }
}
