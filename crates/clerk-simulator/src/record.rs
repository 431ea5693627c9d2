//! A bounded record of every window with a request and of the latest requests.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::clock::Epoch;
use super::limiter::{Verdict, grid_start};
use super::meters::MeterKey;

/// One window of one budget with at least one request.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) key: Arc<MeterKey>,
    pub(super) start: Epoch,
    pub(super) length: Duration,
    pub(super) limit: u32,
    pub(super) allowed: u64,
    pub(super) refused: u64,
    pub(super) least_remaining: u32,
}

/// One admitted or rejected request.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) key: Arc<MeterKey>,
    pub(super) at: Epoch,
    pub(super) remaining_after: u32,
    pub(super) refused: bool,
}

/// The newest windows and events; the oldest are evicted.
#[derive(Debug)]
pub(super) struct Record {
    windows: VecDeque<Window>,
    /// Number of evicted windows: a window's serial number minus this is its index in `windows`.
    dropped_windows: u64,
    /// Serial number of the newest window of each budget.
    newest: HashMap<Arc<MeterKey>, u64>,
    events: VecDeque<Event>,
    max_windows: usize,
    max_events: usize,
    truncated: bool,
}

impl Record {
    pub(super) fn new(max_windows: usize, max_events: usize) -> Self {
        Self {
            windows: VecDeque::new(),
            dropped_windows: 0,
            newest: HashMap::new(),
            events: VecDeque::new(),
            max_windows,
            max_events,
            truncated: false,
        }
    }

    pub(super) fn add(&mut self, key: &Arc<MeterKey>, now: Epoch, verdict: &Verdict) {
        let remaining = if verdict.allowed { verdict.remaining } else { 0 };
        let start = grid_start(now, verdict.window);
        let known = self.newest.get(key).and_then(|serial| {
            let place = usize::try_from(serial - self.dropped_windows).ok()?;
            self.windows.get_mut(place).filter(|window| window.start == start)
        });
        if let Some(window) = known {
            window.allowed += u64::from(verdict.allowed);
            window.refused += u64::from(!verdict.allowed);
            window.least_remaining = window.least_remaining.min(remaining);
        } else {
            self.newest.insert(Arc::clone(key), self.dropped_windows + self.windows.len() as u64);
            self.windows.push_back(Window {
                key: Arc::clone(key),
                start,
                length: verdict.window,
                limit: verdict.limit,
                allowed: u64::from(verdict.allowed),
                refused: u64::from(!verdict.allowed),
                least_remaining: remaining,
            });
        }
        self.events.push_back(Event {
            key: Arc::clone(key),
            at: now,
            remaining_after: remaining,
            refused: !verdict.allowed,
        });
        self.evict_oldest();
    }

    pub(super) fn windows(&self) -> impl DoubleEndedIterator<Item = &Window> {
        self.windows.iter()
    }

    pub(super) fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.events.iter()
    }

    /// Returns whether anything was evicted.
    pub(super) fn is_truncated(&self) -> bool {
        self.truncated
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.max_windows, self.max_events);
    }

    fn evict_oldest(&mut self) {
        while self.events.len() > self.max_events {
            self.events.pop_front();
            self.truncated = true;
        }
        while self.windows.len() > self.max_windows {
            if let Some(window) = self.windows.pop_front()
                && self.newest.get(&window.key) == Some(&self.dropped_windows)
            {
                self.newest.remove(&window.key);
            }
            self.dropped_windows += 1;
            self.truncated = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SimulatedBucket;

    fn verdict(allowed: bool, remaining: u32) -> Verdict {
        let window = Duration::from_secs(10);
        Verdict { allowed, limit: 5, remaining, window, reset_after: window, retry_after: Duration::ZERO }
    }

    #[test]
    fn record_evicts_the_oldest_and_reports_truncation() {
        let mut record = Record::new(2, 3);
        let keys: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|user| Arc::new(MeterKey::new(0, SimulatedBucket::UserUpdate, Some(user))))
            .collect();
        record.add(&keys[0], Duration::from_secs(1), &verdict(true, 4));
        record.add(&keys[1], Duration::from_secs(2), &verdict(true, 4));
        assert!(!record.is_truncated());
        record.add(&keys[1], Duration::from_secs(12), &verdict(true, 4));
        assert!(record.is_truncated());
        assert_eq!(record.newest.len(), 1, "a budget without a window is dropped");
        // The first budget is used again after its window was evicted; the second continues its own.
        record.add(&keys[0], Duration::from_secs(13), &verdict(true, 4));
        record.add(&keys[0], Duration::from_secs(14), &verdict(false, 0));
        let windows: Vec<_> = record.windows().map(|window| (window.allowed, window.refused)).collect();
        assert_eq!(windows, [(1, 0), (1, 1)]);
        assert_eq!(record.events().count(), 3);
    }

    #[test]
    fn rejected_request_records_zero_remaining() {
        let mut record = Record::new(2, 2);
        let key = Arc::new(MeterKey::new(0, SimulatedBucket::Instance, None));
        record.add(&key, Duration::from_secs(1), &verdict(false, 3));
        assert_eq!(record.windows().next().unwrap().least_remaining, 0);
    }

    #[test]
    fn record_with_zero_capacity_stays_empty() {
        let mut record = Record::new(0, 0);
        let key = Arc::new(MeterKey::new(0, SimulatedBucket::Instance, None));
        for second in 0..3 {
            record.add(&key, Duration::from_secs(second), &verdict(true, 4));
        }
        assert_eq!((record.windows().count(), record.events().count()), (0, 0));
    }
}
