//! The access log: a line for each attempt, made here and written elsewhere.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::UNIX_EPOCH;

use serde::Serialize;
use siphasher::sip::SipHasher13;

use super::access_record::{AccessRecord, KeyedHash, VERSION, WEBHOOK, WebhookRecord};
use super::caller_registry::CallerRegistry;
use super::decision::Decision;
use crate::gateway::reads::write_invalidation::is_gone;
use clerk_client::outbound::{AttemptAnswer, AttemptEntry, AttemptLog, AttemptStart};
use clerk_client::webhook::Tag;
use clerk_quota::clock::Clock;
use clerk_quota::{MethodLabel, Moment, RequestStart};

/// What the log's writer receives.
#[derive(Debug)]
pub enum LogMessage {
    /// A line with its end.
    Line(Vec<u8>),
    /// Nothing more will come.
    Stop,
}

/// Makes the lines of the access log. Clones share the channel, the key of the hashes and the counters.
#[derive(Debug, Clone)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lines: SyncSender<LogMessage>,
    clock: Arc<Clock>,
    key: (u64, u64),
    written: AtomicU64,
    lost: AtomicU64,
}

/// Lines of the access log since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessLogStats {
    /// Lines that were written.
    pub written: u64,
    /// Lines that were lost: the channel was full, or the file could not be written.
    pub lost: u64,
}

impl AccessLog {
    /// Returns a log that sends its lines to a writer. A line is lost while the channel is full.
    #[must_use]
    pub fn new(lines: SyncSender<LogMessage>, clock: Arc<Clock>) -> Self {
        // The keys of the standard library's hasher are random.
        let random = RandomState::new();
        Self::with_key(lines, clock, (random.hash_one(0), random.hash_one(1)))
    }

    /// The same with a fixed key.
    pub(crate) fn with_key(lines: SyncSender<LogMessage>, clock: Arc<Clock>, key: (u64, u64)) -> Self {
        Self(Arc::new(Shared { lines, clock, key, written: AtomicU64::new(0), lost: AtomicU64::new(0) }))
    }

    /// Counts lines that the writer has written.
    pub fn count_written(&self, lines: u64) {
        self.0.written.fetch_add(lines, Ordering::Relaxed);
    }

    /// Counts lines that the writer could not write.
    pub fn count_lost(&self, lines: u64) {
        self.0.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> AccessLogStats {
        let Shared { written, lost, .. } = &*self.0;
        AccessLogStats { written: written.load(Ordering::Relaxed), lost: lost.load(Ordering::Relaxed) }
    }

    /// Writes that a webhook changed something.
    pub(in crate::gateway) fn webhook(&self, changed: &[Tag]) {
        let time = time(self.0.clock.now());
        let changes = self.tags(changed).into();
        self.write(&WebhookRecord { version: VERSION, time: time.into(), event: Cow::Borrowed(WEBHOOK), changes });
    }

    /// The keyed hash of a value.
    pub(in crate::gateway) fn hash(&self, value: &impl Hash) -> KeyedHash {
        let mut hasher = SipHasher13::new_with_keys(self.0.key.0, self.0.key.1);
        value.hash(&mut hasher);
        KeyedHash(hasher.finish())
    }

    /// The keyed hashes of tags.
    pub(in crate::gateway) fn tags(&self, tags: &[Tag]) -> Vec<KeyedHash> {
        tags.iter().map(|tag| self.hash(tag)).collect()
    }

    fn write(&self, record: &impl Serialize) {
        let line = serde_json::to_vec(record).map(|mut line| {
            line.push(b'\n');
            LogMessage::Line(line)
        });
        if !line.is_ok_and(|line| self.0.lines.try_send(line).is_ok()) {
            self.count_lost(1);
        }
    }
}

/// What the log says of a request besides what the ledger counts. It is an extension of the head that is sent.
#[derive(Debug, Clone, Default)]
pub(in crate::gateway) struct LoggedRequest {
    /// What decides the response, if other requests may share it.
    pub(in crate::gateway) resource: Option<KeyedHash>,
    /// Which lookups may share a batch with it.
    pub(in crate::gateway) batch: Option<KeyedHash>,
    /// What the response shows.
    pub(in crate::gateway) shows: Vec<KeyedHash>,
    /// What a write changes, or what is gone if Clerk answers a read so.
    pub(in crate::gateway) changes: Vec<KeyedHash>,
}

/// The attempts of one instance.
#[derive(Debug)]
pub(in crate::gateway) struct InstanceLog {
    pub(in crate::gateway) log: AccessLog,
    pub(in crate::gateway) instance: Arc<str>,
    pub(in crate::gateway) callers: Arc<CallerRegistry>,
}

impl AttemptLog for InstanceLog {
    fn begin(self: Arc<Self>, attempt: &AttemptStart<'_>) -> Box<dyn AttemptEntry> {
        let decision = match attempt.extensions {
            _ if attempt.number > 1 => Decision::Retried,
            None => Decision::Batched,
            Some(_) => Decision::of(attempt.number, attempt.waited),
        };
        let request = attempt.extensions.and_then(|extensions| extensions.get::<Arc<LoggedRequest>>().cloned());
        Box::new(LoggedAttempt { of: self, start: *attempt.request, decision, request })
    }
}

/// An attempt in flight.
#[derive(Debug)]
struct LoggedAttempt {
    of: Arc<InstanceLog>,
    start: RequestStart,
    decision: Decision,
    request: Option<Arc<LoggedRequest>>,
}

impl AttemptEntry for LoggedAttempt {
    fn end(self: Box<Self>, at: Moment, answer: Option<AttemptAnswer<'_>>) {
        let status = answer.map(|answer| answer.status);
        let Self { of, start, decision, request } = *self;
        let RequestStart { at: started, caller, route, method, .. } = start;
        let caller = of.callers.name(caller);
        let request = request.as_deref();
        let changes = request.filter(|_| method != MethodLabel::Get || status.is_some_and(is_gone));
        let micros = u32::try_from(at.since(started).as_micros()).unwrap_or(u32::MAX);
        of.log.write(&AccessRecord {
            version: VERSION,
            time: time(started).into(),
            instance: Cow::Borrowed(&of.instance),
            caller: Cow::Borrowed(&caller),
            route: Cow::Borrowed(route.template),
            method: Cow::Borrowed(method.as_str()),
            status: status.map(|status| status.as_u16()),
            decision: Cow::Borrowed(decision.as_str()),
            duration: f64::from(micros) / 1e6,
            resource: request.and_then(|request| request.resource),
            batch: request.and_then(|request| request.batch),
            shows: Cow::Borrowed(request.map_or(&[], |request| &request.shows)),
            changes: Cow::Borrowed(changes.map_or(&[], |request| &request.changes)),
        });
    }
}

/// Cut off, not rounded: a request must not move into the next window.
fn time(moment: Moment) -> String {
    humantime::format_rfc3339_micros(UNIX_EPOCH + moment.since_epoch()).to_string()
}
