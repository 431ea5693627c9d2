//! Remembers spans, so that a call counts once: however often its span arrives, and however many spans it has.
//!
//! A call may have several CLIENT spans, one for each instrumented layer. Each is the child of the next outer one and
//! goes to the same host. The innermost counts. Spans arrive in any order, so an outer span may be counted first; it is
//! replaced when the inner one arrives.
//!
//! Only hashes of ids are kept, 8 bytes each, under a random key of the process.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use super::span::{Call, HostId, SpanId, TraceId};
use clerk_quota::Moment;

/// How long a span is remembered, at least, unless the memory is full.
pub const REMEMBERED: Duration = Duration::from_secs(5 * 60);

/// How long a report may be taken back, at most. Windows close well before that.
const CANCELLABLE: Duration = Duration::from_secs(2 * 60);

/// Time that one slice covers, at most.
const SLICE: Duration = Duration::from_secs(60);

/// Number of slices that fit into the memory, at least, so that a full memory forgets little at once.
const SLICES: usize = 8;

/// The ids of a span that goes to a host of Clerk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanRef {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Its parent.
    pub parent: Option<SpanId>,
    /// The host that was called. A child that calls another host is another call.
    pub host: HostId,
}

impl From<&Call> for SpanRef {
    fn from(call: &Call) -> Self {
        Self { trace: call.trace_id, span: call.span_id, parent: call.parent_span_id, host: call.host }
    }
}

/// What the memory knows about a span that arrives. `T` names a report that can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival<T> {
    /// The span was here before.
    Duplicate,
    /// The only or the innermost span of its call so far: it counts.
    Innermost,
    /// An inner span of the same call was here before: this one does not count.
    Nested {
        /// The report of an outer span, which must not count either.
        outer: Option<T>,
    },
    /// An outer span of the same call counts. This one replaces it.
    Replaces {
        /// The report of the outer span. `None` if it cannot be taken back: then it keeps standing for the call, and
        /// this one does not count.
        outer: Option<T>,
    },
}

/// Recent spans, bounded in time and number.
#[derive(Debug)]
pub struct SpanMemory<T> {
    key: RandomState,
    /// Oldest first; never empty after the first span.
    slices: VecDeque<Slice<T>>,
    max_entries: usize,
    entries: usize,
    forgotten: u64,
}

#[derive(Debug)]
struct Slice<T> {
    begun: Moment,
    newest: Moment,
    hashes: FxHashSet<u64>,
    /// Reports that can be taken back, by the hash of their span as [`Role::Counted`].
    reports: FxHashMap<u64, T>,
}

/// What a hash says about a span. Part of the hash.
#[derive(Debug, Clone, Copy, Hash)]
enum Role {
    /// It was here.
    Seen,
    /// It has a child that calls this host.
    Parent(HostId),
    /// It stands for a call to this host.
    Counted(HostId),
}

impl<T: Clone> SpanMemory<T> {
    /// Creates a memory for this many hashes; a call needs up to three.
    #[must_use]
    pub fn new(max_entries: usize) -> Self {
        Self { key: RandomState::new(), slices: VecDeque::new(), max_entries, entries: 0, forgotten: 0 }
    }

    /// Takes in a span that arrived at `now`. Times must not decrease.
    ///
    /// Call [`SpanMemory::count`] if the span stands for its call from now on.
    pub fn arrive(&mut self, now: Moment, span: &SpanRef) -> Arrival<T> {
        self.tidy(now);
        let seen = self.hash(span.trace, span.span, Role::Seen);
        if self.contains(seen) {
            return Arrival::Duplicate;
        }
        self.insert(now, seen);
        let outer = span.parent.and_then(|parent| {
            let mark = self.hash(span.trace, parent, Role::Parent(span.host));
            if !self.contains(mark) {
                self.insert(now, mark);
            }
            let counted = self.hash(span.trace, parent, Role::Counted(span.host));
            self.remove(counted)
        });
        let has_inner = self.contains(self.hash(span.trace, span.span, Role::Parent(span.host)));
        match outer {
            _ if has_inner => Arrival::Nested { outer: outer.flatten() },
            Some(outer) => Arrival::Replaces { outer },
            None => Arrival::Innermost,
        }
    }

    /// Notes that a span stands for its call, with the report if it can be taken back.
    pub fn count(&mut self, now: Moment, span: &SpanRef, report: Option<T>) {
        let counted = self.hash(span.trace, span.span, Role::Counted(span.host));
        self.insert(now, counted);
        if let (Some(report), Some(slice)) = (report, self.slices.back_mut()) {
            slice.reports.insert(counted, report);
        }
    }

    /// Returns the number of hashes that were forgotten early because the memory was full.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Returns the number of hashes in memory.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries
    }

    /// Returns whether nothing is remembered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn hash(&self, trace: TraceId, span: SpanId, role: Role) -> u64 {
        self.key.hash_one((trace, span, role))
    }

    fn contains(&self, hash: u64) -> bool {
        self.slices.iter().rev().any(|slice| slice.hashes.contains(&hash))
    }

    /// Removes a hash. Returns its report, if it was there and has one.
    fn remove(&mut self, hash: u64) -> Option<Option<T>> {
        let slice = self.slices.iter_mut().rev().find(|slice| slice.hashes.contains(&hash))?;
        slice.hashes.remove(&hash);
        self.entries -= 1;
        Some(slice.reports.remove(&hash))
    }

    fn insert(&mut self, now: Moment, hash: u64) {
        let is_full =
            |slice: &Slice<T>| slice.hashes.len() >= self.max_entries / SLICES || now.since(slice.begun) >= SLICE;
        if self.slices.back().is_none_or(is_full) {
            self.slices.push_back(Slice {
                begun: now,
                newest: now,
                hashes: FxHashSet::default(),
                reports: FxHashMap::default(),
            });
        }
        if let Some(slice) = self.slices.back_mut() {
            slice.newest = now;
            self.entries += usize::from(slice.hashes.insert(hash));
        }
        while self.entries > self.max_entries
            && let Some(oldest) = self.slices.pop_front()
        {
            self.entries -= oldest.hashes.len();
            self.forgotten += oldest.hashes.len() as u64;
        }
    }

    /// Forgets what is too old.
    fn tidy(&mut self, now: Moment) {
        while self.slices.front().is_some_and(|slice| now.since(slice.newest) > REMEMBERED)
            && let Some(oldest) = self.slices.pop_front()
        {
            self.entries -= oldest.hashes.len();
        }
        for slice in self.slices.iter_mut().take_while(|slice| now.since(slice.newest) > CANCELLABLE) {
            slice.reports = FxHashMap::default();
        }
    }
}
