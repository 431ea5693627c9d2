//! What a log says of one request to Clerk.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::cache::simulation::TagSlots;
use clerk_quota::{CallerId, MethodLabel, Moment, Quota, Route};

/// A request to Clerk that a log recorded. It holds no path, query, id or header: only their keyed hashes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogCall {
    /// When it started.
    pub(crate) started: Moment,
    /// How long it took, if the log says so.
    pub(crate) took: Option<Duration>,
    /// The method.
    pub(crate) method: MethodLabel,
    /// The route.
    pub(crate) route: Route,
    /// The application that sent it.
    pub(crate) caller: CallerId,
    /// Whether it is known to repeat an attempt that failed.
    pub(crate) is_repeat: bool,
    /// The status; `None` if no response came.
    pub(crate) status: Option<u16>,
    /// What it reads, if its response can be shared.
    pub(crate) read: Option<SharedRead>,
    /// What it may change, or what its response says is gone.
    pub(crate) changes: Option<Arc<TagSlots>>,
    /// What the response's headers report, if the log has them.
    pub(crate) quota: Option<Box<Quota>>,
}

/// A read whose response other requests may share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SharedRead {
    /// Keyed hash of what decides the response, as far as the log has it.
    pub(crate) resource: u64,
    /// What changes the response.
    pub(crate) tags: Arc<TagSlots>,
    /// Whether webhooks report changes of the response.
    pub(crate) is_tagged: bool,
    /// If it looks up a single user, so that a list request can take its place: which lookups can share one.
    pub(crate) batch: Option<u64>,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LogEvent {
    /// A request to Clerk.
    Request(LogCall),
    /// A webhook, which changed something at this time.
    Webhook {
        /// When the gateway's caches took it in.
        at: Moment,
        /// What it changed.
        changes: Arc<TagSlots>,
    },
}

impl LogEvent {
    /// When it began, which orders events.
    pub(crate) const fn started(&self) -> Moment {
        match self {
            Self::Request(call) => call.started,
            Self::Webhook { at, .. } => *at,
        }
    }

    /// When it ended.
    pub(crate) fn ended(&self) -> Moment {
        match self {
            Self::Request(call) => call.ended(),
            Self::Webhook { at, .. } => *at,
        }
    }
}

impl From<LogCall> for LogEvent {
    fn from(call: LogCall) -> Self {
        Self::Request(call)
    }
}

impl LogCall {
    /// When it ended; at its start if the log does not say how long it took.
    pub(crate) fn ended(&self) -> Moment {
        self.started.after(self.took.unwrap_or_default())
    }
}
