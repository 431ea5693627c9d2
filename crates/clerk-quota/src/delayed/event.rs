//! The events that wait until they can be applied in order.

use std::collections::BTreeMap;

use crate::budget::AttemptEnd;
use crate::fleet::FleetUsage;
use crate::reported::ReportedRequest;
use crate::{Bucket, Moment, Observation, RequestStart};

/// Events that wait at the same time: more than a minute of ten times Clerk's largest limit.
const MAX_PENDING: usize = 200_000;

/// Something that the ledger learned.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A request of this process was sent.
    Begin(RequestStart),
    /// It ended.
    End(OwnedEnd),
    /// A reported request started.
    ReportedBegin(Box<ReportedRequest>),
    /// A reported request ended.
    ReportedEnd,
    /// The shared log was read.
    Fleet(Bucket, FleetUsage),
}

/// How a request ended, without a borrow.
#[derive(Debug, Clone)]
pub(super) enum OwnedEnd {
    Answered(Box<Observation>),
    Unanswered,
    NotSent,
}

impl OwnedEnd {
    pub(super) fn of(end: AttemptEnd<'_>) -> Self {
        match end {
            AttemptEnd::Answered(observation) => Self::Answered(Box::new(*observation)),
            AttemptEnd::Unanswered => Self::Unanswered,
            AttemptEnd::NotSent => Self::NotSent,
        }
    }

    pub(super) fn as_attempt_end(&self) -> AttemptEnd<'_> {
        match self {
            Self::Answered(observation) => AttemptEnd::Answered(observation),
            Self::Unanswered => AttemptEnd::Unanswered,
            Self::NotSent => AttemptEnd::NotSent,
        }
    }
}

/// The place of an event: its time, then the order in which it became known.
pub(super) type Key = (Moment, u64);

/// Waiting events in order of time.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    events: BTreeMap<Key, Event>,
}

impl Pending {
    /// Returns whether there is room for a reported request.
    pub(super) fn has_room(&self) -> bool {
        self.events.len() < MAX_PENDING
    }

    pub(super) fn push(&mut self, key: Key, event: Event) {
        self.events.insert(key, event);
    }

    pub(super) fn remove(&mut self, key: Key) -> bool {
        self.events.remove(&key).is_some()
    }

    /// Removes the first event, if it is before `watermark`.
    pub(super) fn pop_before(&mut self, watermark: Moment) -> Option<(Key, Event)> {
        let first = self.events.first_entry().filter(|first| first.key().0 < watermark)?;
        Some(first.remove_entry())
    }
}
