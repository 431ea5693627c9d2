//! Messages already processed.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::signature::Tolerance;

/// Ids of processed messages, stored as long as a copy of the delivery could pass the time check.
///
/// That is twice the tolerance: a timestamp may be that far ahead at the first delivery and that far back at the last.
/// An id is inserted *after* processing, so that a failed attempt is processed again when Svix retries it.
///
/// The set only keeps the counters accurate. If it is full, evicted messages are processed twice, which is harmless.
#[derive(Debug)]
pub struct SeenDeliveries {
    capacity: usize,
    retention: Duration,
    seen: HashSet<Arc<str>>,
    /// Oldest first.
    order: VecDeque<(Instant, Arc<str>)>,
}

impl SeenDeliveries {
    /// Maximum number of ids; the oldest are evicted. About 10 MB of Svix's ids.
    pub const CAPACITY: usize = 100_000;

    /// Creates an empty set for deliveries verified with `tolerance`.
    #[must_use]
    pub fn new(tolerance: Tolerance) -> Self {
        Self::with_capacity(tolerance, Self::CAPACITY)
    }

    /// Creates an empty set of at most `capacity` ids.
    #[must_use]
    pub fn with_capacity(tolerance: Tolerance, capacity: usize) -> Self {
        // One second more, because ages are in whole seconds.
        let retention = tolerance.duration() * 2 + Duration::from_secs(1);
        Self { capacity, retention, seen: HashSet::new(), order: VecDeque::new() }
    }

    /// Returns whether `id` was processed within the retention time.
    pub fn contains(&mut self, id: &str, now: Instant) -> bool {
        self.remove_expired(now);
        self.seen.contains(id)
    }

    /// Records that `id` was processed. Returns whether it is new.
    pub fn insert(&mut self, id: &str, now: Instant) -> bool {
        self.remove_expired(now);
        if self.seen.contains(id) {
            return false;
        }
        let id: Arc<str> = id.into();
        self.seen.insert(Arc::clone(&id));
        self.order.push_back((now, id));
        while self.order.len() > self.capacity {
            self.remove_oldest();
        }
        true
    }

    /// Returns the number of stored ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Returns whether no id is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn remove_expired(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(then, _)| now.saturating_duration_since(*then) > self.retention) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
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
    fn id_is_stored_for_twice_the_tolerance() {
        let start = Instant::now();
        let mut set = SeenDeliveries::new(tolerance());
        assert!(!set.contains("msg_1", start), "not before it is processed");
        assert!(set.insert("msg_1", start));
        let last = start + Duration::from_secs(600) + Duration::from_millis(999);
        assert!(set.contains("msg_1", last));
        assert!(!set.insert("msg_1", last));
        assert!(!set.contains("msg_1", start + Duration::from_secs(602)));
        assert!(set.is_empty());
    }

    #[test]
    fn full_set_evicts_the_oldest() {
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
    fn set_without_capacity_stores_nothing() {
        let now = Instant::now();
        let mut set = SeenDeliveries::with_capacity(tolerance(), 0);
        assert!(set.insert("msg_1", now));
        assert!(!set.contains("msg_1", now));
    }
}
