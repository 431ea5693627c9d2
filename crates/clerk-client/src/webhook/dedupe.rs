//! Which messages were already worked off.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::signature::Tolerance;

/// Ids of messages whose work is done, for as long as a copy of the delivery could still pass the check of its time.
///
/// That is twice the tolerance: a timestamp may lie that far ahead when it first comes and that far back when it comes
/// last. An id is put in *after* its work, so that an attempt which failed half-way is done again when Svix repeats it.
///
/// The set is there for honest counters. What is forgotten too early, because the set is full, is done twice, and doing
/// it twice is harmless.
#[derive(Debug)]
pub struct SeenDeliveries {
    capacity: usize,
    retention: Duration,
    seen: HashSet<Arc<str>>,
    /// Oldest first.
    order: VecDeque<(Instant, Arc<str>)>,
}

impl SeenDeliveries {
    /// Most ids that are remembered; then the oldest goes. About 10 MB of Svix's ids.
    pub const CAPACITY: usize = 100_000;

    /// An empty set for deliveries that are checked with `tolerance`.
    #[must_use]
    pub fn new(tolerance: Tolerance) -> Self {
        Self::with_capacity(tolerance, Self::CAPACITY)
    }

    /// An empty set that remembers at most `capacity` ids.
    #[must_use]
    pub fn with_capacity(tolerance: Tolerance, capacity: usize) -> Self {
        // One second more, because ages count in whole seconds.
        let retention = tolerance.duration() * 2 + Duration::from_secs(1);
        Self { capacity, retention, seen: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether the work for `id` was done within the time that is remembered.
    pub fn contains(&mut self, id: &str, now: Instant) -> bool {
        self.forget_old(now);
        self.seen.contains(id)
    }

    /// Notes that the work for `id` is done. Returns whether that is new.
    pub fn insert(&mut self, id: &str, now: Instant) -> bool {
        self.forget_old(now);
        if self.seen.contains(id) {
            return false;
        }
        let id: Arc<str> = id.into();
        self.seen.insert(Arc::clone(&id));
        self.order.push_back((now, id));
        while self.order.len() > self.capacity {
            self.forget_oldest();
        }
        true
    }

    /// How many ids are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no id is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn forget_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(then, _)| now.saturating_duration_since(*then) > self.retention) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.seen.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tolerance() -> Tolerance {
        Tolerance::from_secs(300).unwrap()
    }

    #[test]
    fn an_id_is_remembered_for_twice_the_tolerance_and_then_forgotten() {
        let start = Instant::now();
        let mut set = SeenDeliveries::new(tolerance());
        assert!(!set.contains("msg_1", start), "not before its work is done");
        assert!(set.insert("msg_1", start));
        let last = start + Duration::from_secs(600) + Duration::from_millis(999);
        assert!(set.contains("msg_1", last));
        assert!(!set.insert("msg_1", last));
        assert!(!set.contains("msg_1", start + Duration::from_secs(602)));
        assert!(set.is_empty());
    }

    #[test]
    fn a_full_set_drops_the_oldest() {
        let now = Instant::now();
        let mut set = SeenDeliveries::new(tolerance());
        for number in 0..=SeenDeliveries::CAPACITY {
            assert!(set.insert(&format!("msg_{number}"), now));
        }
        assert_eq!(set.len(), SeenDeliveries::CAPACITY);
        assert!(!set.contains("msg_0", now));
        assert!(set.contains("msg_1", now));
        assert!(set.contains(&format!("msg_{}", SeenDeliveries::CAPACITY), now));
    }

    #[test]
    fn a_set_without_room_remembers_nothing() {
        let now = Instant::now();
        let mut set = SeenDeliveries::with_capacity(tolerance(), 0);
        assert!(set.insert("msg_1", now));
        assert!(!set.contains("msg_1", now));
    }
}
