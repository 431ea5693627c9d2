//! Counts requests by key over the last seconds, the last minute and the last hour. Time is passed in.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::Moment;

/// Slots of each ring: sixty seconds, and sixty minutes.
const SLOTS: u64 = 60;

/// Keys that are counted separately. With all slots full, this is a megabyte.
const MAX_KEYS: usize = 512;

/// A time span that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Span {
    /// The last 10 seconds, Clerk's window.
    Window,
    /// The last minute.
    Minute,
    /// The last hour, with a resolution of one minute.
    Hour,
}

impl Span {
    /// All time spans.
    pub const ALL: [Self; 3] = [Self::Window, Self::Minute, Self::Hour];

    /// Returns the name that pages and labels use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Window => "10s",
            Self::Minute => "1m",
            Self::Hour => "1h",
        }
    }
}

/// Counts by key in rings of time slots.
#[derive(Debug, Clone)]
pub(super) struct TopCounter<K> {
    places: FxHashMap<K, u16>,
    keys: Vec<K>,
    seconds: Ring,
    minutes: Ring,
}

impl<K> Default for TopCounter<K> {
    fn default() -> Self {
        Self { places: FxHashMap::default(), keys: Vec::new(), seconds: Ring::default(), minutes: Ring::default() }
    }
}

/// The requests of the last [`SLOTS`] slots. Empty slots take no memory: most instances are probed a few times a
/// minute.
#[derive(Debug, Clone, Default)]
struct Ring {
    /// Sorted by slot number, then by key index.
    entries: VecDeque<Entry>,
}

/// Requests of one key in one slot.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The second or minute since the epoch.
    number: u64,
    place: u16,
    requests: u32,
}

/// The index of keys beyond [`MAX_KEYS`].
const OVERFLOW: u16 = u16::MAX;

impl Ring {
    fn add(&mut self, number: u64, place: u16, requests: u32) {
        let newest = self.entries.back().map_or(number, |entry| entry.number.max(number));
        let is_over = |number: u64| number + SLOTS <= newest;
        if is_over(number) {
            return;
        }
        while self.entries.front().is_some_and(|entry| is_over(entry.number)) {
            self.entries.pop_front();
        }
        let is_same = |entry: &Entry| (entry.number, entry.place) == (number, place);
        if let Some(entry) = self.entries.back_mut().filter(|entry| is_same(entry)) {
            entry.requests = entry.requests.saturating_add(requests);
            return;
        }
        let index = self.index(number, place);
        match self.entries.get_mut(index) {
            Some(entry) if is_same(entry) => entry.requests = entry.requests.saturating_add(requests),
            _ => self.entries.insert(index, Entry { number, place, requests }),
        }
    }

    fn refund(&mut self, number: u64, place: u16, requests: u32) {
        let index = self.index(number, place);
        let entry = self.entries.get_mut(index).filter(|entry| (entry.number, entry.place) == (number, place));
        if let Some(entry) = entry {
            entry.requests = entry.requests.saturating_sub(requests);
        }
    }

    /// Returns the position of an entry, or where to insert it.
    fn index(&self, number: u64, place: u16) -> usize {
        self.entries.partition_point(|entry| (entry.number, entry.place) < (number, place))
    }

    /// Returns the entries of the last `count` slots up to this one.
    fn last(&self, number: u64, count: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.number <= number && entry.number + count > number)
    }

    /// Assigns new indexes to keys and drops the entries of keys without one.
    fn replace(&mut self, places: &[Option<u16>]) {
        self.entries.retain_mut(|entry| {
            if entry.place == OVERFLOW {
                return true;
            }
            let place = places.get(usize::from(entry.place)).copied().flatten();
            entry.place = place.unwrap_or(entry.place);
            place.is_some()
        });
    }
}

impl<K: Copy + Eq + Hash> TopCounter<K> {
    /// Counts requests at `now`.
    pub(super) fn record(&mut self, now: Moment, key: K, requests: u32) {
        let second = now.since_epoch().as_secs();
        let place = self.place(key, second);
        self.seconds.add(second, place, requests);
        self.minutes.add(second / 60, place, requests);
    }

    /// Removes requests that were counted at `at`.
    pub(super) fn refund(&mut self, at: Moment, key: K, requests: u32) {
        let second = at.since_epoch().as_secs();
        let place = self.places.get(&key).copied().unwrap_or(OVERFLOW);
        self.seconds.refund(second, place, requests);
        self.minutes.refund(second / 60, place, requests);
    }

    fn place(&mut self, key: K, second: u64) -> u16 {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        if self.keys.len() >= MAX_KEYS && !self.evict_unused(second) {
            return OVERFLOW;
        }
        let Ok(place) = u16::try_from(self.keys.len()) else { return OVERFLOW };
        self.keys.push(key);
        self.places.insert(key, place);
        place
    }

    /// Evicts the keys that no slot counts any more. Returns false if there are none.
    fn evict_unused(&mut self, second: u64) -> bool {
        let mut is_used = vec![false; self.keys.len()];
        for entry in self.minutes.last(second / 60, SLOTS).filter(|entry| entry.requests > 0) {
            if let Some(used) = is_used.get_mut(usize::from(entry.place)) {
                *used = true;
            }
        }
        if is_used.iter().all(|used| *used) {
            return false;
        }
        let mut next = 0..OVERFLOW;
        let places: Vec<_> = is_used.iter().map(|used| if *used { next.next() } else { None }).collect();
        self.seconds.replace(&places);
        self.minutes.replace(&places);
        let mut used = is_used.iter();
        self.keys.retain(|_| used.next().copied().unwrap_or(false));
        self.places = self.keys.iter().copied().zip(0..OVERFLOW).collect();
        true
    }

    /// Returns the requests by key in a time span that ends at `now`, most first; `None` stands for keys beyond the
    /// limit.
    pub(super) fn shares(&self, now: Moment, span: Span) -> Vec<(Option<K>, u64)> {
        let second = now.since_epoch().as_secs();
        let (ring, number, count) = match span {
            Span::Window => (&self.seconds, second, 10),
            Span::Minute => (&self.seconds, second, SLOTS),
            Span::Hour => (&self.minutes, second / 60, SLOTS),
        };
        let mut counts = vec![0_u64; self.keys.len()];
        let mut overflow = 0;
        for entry in ring.last(number, count) {
            let sum = counts.get_mut(usize::from(entry.place)).unwrap_or(&mut overflow);
            *sum += u64::from(entry.requests);
        }
        let mut shares: Vec<_> = self.keys.iter().copied().map(Some).zip(counts).collect();
        shares.push((None, overflow));
        shares.retain(|(_, requests)| *requests > 0);
        shares.sort_by_key(|(_, requests)| std::cmp::Reverse(*requests));
        shares
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1_000_000 * 60 + seconds))
    }

    #[test]
    fn span_counts_only_its_own_time() {
        let mut top = TopCounter::default();
        top.record(at(0), "a", 5);
        top.record(at(30), "b", 3);
        top.record(at(59), "a", 1);
        assert_eq!(top.shares(at(59), Span::Window), [(Some("a"), 1)]);
        assert_eq!(top.shares(at(59), Span::Minute), [(Some("a"), 6), (Some("b"), 3)]);
        assert_eq!(top.shares(at(60), Span::Minute), [(Some("b"), 3), (Some("a"), 1)]);
        assert_eq!(top.shares(at(3599), Span::Hour), [(Some("a"), 6), (Some("b"), 3)]);
        assert_eq!(top.shares(at(3660), Span::Hour), []);
    }

    #[test]
    fn refund_removes_a_counted_request() {
        let mut top = TopCounter::default();
        top.record(at(0), "a", 2);
        top.refund(at(0), "a", 1);
        assert_eq!(top.shares(at(5), Span::Minute), [(Some("a"), 1)]);
        assert_eq!(top.shares(at(5), Span::Hour), [(Some("a"), 1)]);
    }

    #[test]
    fn reused_slot_starts_empty() {
        let mut top = TopCounter::default();
        top.record(at(0), "a", 5);
        top.record(at(60), "a", 1);
        top.record(at(0), "a", 7);
        assert_eq!(top.shares(at(60), Span::Minute), [(Some("a"), 1)]);
    }

    #[test]
    fn old_keys_are_evicted_at_the_limit() {
        let mut top = TopCounter::default();
        for key in 0..1000 {
            top.record(at(0), key, 1);
        }
        assert_eq!(top.keys.len(), MAX_KEYS);
        let shares = top.shares(at(0), Span::Minute);
        assert_eq!(shares.first(), Some(&(None, 1000 - MAX_KEYS as u64)));
        top.record(at(7200), 2000, 4);
        assert_eq!(top.keys.len(), 1);
        assert_eq!(top.shares(at(7200), Span::Hour), [(Some(2000), 4)]);
    }

    #[test]
    fn key_keeps_its_counts_when_others_are_evicted() {
        let mut top = TopCounter::default();
        for key in 0..MAX_KEYS {
            top.record(at(0), key, 1);
        }
        top.record(at(3600), 7, 2);
        top.record(at(3600), 5000, 1);
        assert_eq!(top.shares(at(3600), Span::Minute), [(Some(7), 2), (Some(5000), 1)]);
    }
}
