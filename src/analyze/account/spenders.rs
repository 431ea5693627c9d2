//! Who sent how many requests, in all and in each window.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::analyze::input::LogCall;
use clerk_quota::{Bucket, CallerId, MethodLabel, Moment, Route};

/// Callers and routes that are counted separately; further ones are folded into one.
const MAX_SPENDERS: usize = 4000;

/// Windows that are remembered until the ledger closes them.
const OPEN_WINDOWS: usize = 8;

/// A caller and a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SpenderKey {
    pub(crate) caller: CallerId,
    pub(crate) method: MethodLabel,
    /// The route's template.
    pub(crate) route: &'static str,
    pub(crate) bucket: Bucket,
}

impl SpenderKey {
    const FOLDED: Self = Self {
        caller: CallerId::OTHER,
        method: MethodLabel::Other,
        route: Route::UNKNOWN.template,
        bucket: Bucket::Instance,
    };

    fn of(call: &LogCall) -> Self {
        Self { caller: call.caller, method: call.method, route: call.route.template, bucket: call.route.bucket }
    }
}

/// Requests by how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All of them.
    pub(crate) requests: u64,
    /// 429.
    pub(crate) throttled: u64,
    /// 500 and above.
    pub(crate) failed: u64,
    /// Without a response.
    pub(crate) unanswered: u64,
}

impl Counts {
    fn of(call: &LogCall) -> Self {
        let is = |yes| u64::from(yes);
        Self {
            requests: 1,
            throttled: is(call.status == Some(429)),
            failed: is(call.status.is_some_and(|status| status >= 500)),
            unanswered: is(call.status.is_none()),
        }
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.throttled += other.throttled;
        self.failed += other.failed;
        self.unanswered += other.unanswered;
    }
}

type ByKey = FxHashMap<SpenderKey, Counts>;

/// What was sent in one window of the grid.
#[derive(Debug, Default)]
struct Cell {
    start: Moment,
    by_key: ByKey,
}

/// The requests by sender.
#[derive(Debug)]
pub(crate) struct Spenders {
    length: Duration,
    cells: VecDeque<Cell>,
    all: ByKey,
    /// Requests that are counted under another caller and route because there were too many.
    pub(crate) folded: u64,
}

impl Spenders {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, cells: VecDeque::new(), all: ByKey::default(), folded: 0 }
    }

    pub(super) fn add(&mut self, call: &LogCall) {
        let is_inside = |cell: &Cell| call.started >= cell.start && call.started < cell.start.after(self.length);
        if !self.cells.back().is_some_and(is_inside) {
            let start = call.started.rounded_down(self.length);
            self.cells.push_back(Cell { start, by_key: ByKey::default() });
            if self.cells.len() > OPEN_WINDOWS {
                self.close_oldest();
            }
        }
        if let Some(cell) = self.cells.back_mut() {
            self.folded += insert(&mut cell.by_key, SpenderKey::of(call), &Counts::of(call));
        }
    }

    pub(super) fn add_late(&mut self, call: &LogCall) {
        self.folded += insert(&mut self.all, SpenderKey::of(call), &Counts::of(call));
    }

    /// The requests to the instance's bucket that started in the window from `start`, by sender; `None` for a window that
    /// is not on the grid, since a server named its end.
    pub(super) fn window(&self, start: Moment) -> Option<Vec<(SpenderKey, u64)>> {
        let cell = self.cells.iter().find(|cell| cell.start == start)?;
        let counted = cell.by_key.iter().filter(|(key, _)| key.bucket == Bucket::Instance);
        let mut content: Vec<_> = counted.map(|(key, counts)| (*key, counts.requests)).collect();
        content.sort_unstable_by(|(a, one), (b, other)| other.cmp(one).then_with(|| a.cmp(b)));
        Some(content)
    }

    pub(super) fn finish(&mut self) {
        while !self.cells.is_empty() {
            self.close_oldest();
        }
    }

    /// All requests by sender, the most first.
    pub(crate) fn all(&self) -> Vec<(SpenderKey, Counts)> {
        let mut all: Vec<_> = self.all.iter().map(|(key, counts)| (*key, *counts)).collect();
        all.sort_unstable_by(|(a, one), (b, other)| other.requests.cmp(&one.requests).then_with(|| a.cmp(b)));
        all
    }

    fn close_oldest(&mut self) {
        for (key, counts) in self.cells.pop_front().into_iter().flat_map(|cell| cell.by_key) {
            self.folded += insert(&mut self.all, key, &counts);
        }
    }
}

/// Returns how many requests were folded.
fn insert(all: &mut ByKey, key: SpenderKey, counts: &Counts) -> u64 {
    if let Some(known) = all.get_mut(&key) {
        known.add(counts);
        return 0;
    }
    let is_full = all.len() >= MAX_SPENDERS;
    all.entry(if is_full { SpenderKey::FOLDED } else { key }).or_default().add(counts);
    if is_full { counts.requests } else { 0 }
}
