//! What happens while a request gets its connection, for people who look for a fault.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Maximum number of steps: a server must not be able to fill the memory.
const MAX_STEPS: usize = 200;

/// A request extension: open a new connection for this request, and note each step.
///
/// Only [`ReqwestTransport`](super::ReqwestTransport) knows it; others send the request as usual and note nothing.
#[derive(Debug, Clone)]
pub struct ConnectionLog {
    started: Instant,
    steps: Arc<Mutex<Vec<ConnectionStep>>>,
}

/// A step, with the time since the log was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStep {
    /// Time since the log was created.
    pub after: Duration,
    /// What happened.
    pub event: ConnectionEvent,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// The way was chosen.
    Route {
        /// The proxy, without user and password, and the variable that names it; `None` for a direct connection.
        proxy: Option<(&'static str, Uri)>,
    },
    /// Which certificate authorities are trusted.
    Authorities {
        /// The file with authorities in addition to the system's.
        ca_file: Option<PathBuf>,
        /// The variables that replace the system's authorities.
        variables: Vec<&'static str>,
    },
    /// A name is being resolved.
    Resolving(String),
    /// The name has these addresses.
    Resolved(Vec<IpAddr>),
    /// The name could not be resolved.
    NotResolved(String),
    /// The TCP connection is established, and a TLS handshake begins with the server of this name.
    HandshakeStarted(String),
    /// The server's certificate was verified.
    Certificate {
        /// Its length in bytes.
        bytes: usize,
        /// Number of further certificates that the server sent.
        intermediates: usize,
        /// Why it is refused, if it is.
        refusal: Option<String>,
    },
    /// The version of TLS.
    TlsVersion(&'static str),
    /// The connection is ready for the request.
    Connected,
    /// There is no connection.
    NotConnected(String),
    /// The address of the server or proxy that answered.
    Peer(SocketAddr),
}

impl ConnectionLog {
    /// Creates an empty log. Its times count from now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), steps: Arc::default() }
    }

    /// Returns the time since the log was created.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the steps so far.
    #[must_use]
    pub fn steps(&self) -> Vec<ConnectionStep> {
        self.steps.lock().clone()
    }

    pub(super) fn add(&self, event: ConnectionEvent) {
        let after = self.elapsed();
        let mut steps = self.steps.lock();
        if steps.len() < MAX_STEPS {
            steps.push(ConnectionStep { after, event });
        }
    }
}

impl Default for ConnectionLog {
    fn default() -> Self {
        Self::new()
    }
}
