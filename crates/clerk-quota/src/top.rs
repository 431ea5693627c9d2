//! Who uses the budget: a count of the last seconds, the last minute and the last hour. Pure: time is passed in.

use std::collections::HashMap;
use std::hash::Hash;

use super::Moment;

/// Slots of each ring: sixty seconds, and sixty minutes.
const SLOTS: usize = 60;

/// Keys that are kept apart. With all slots full of them this is a quarter of a megabyte.
const MAX_KEYS: usize = 512;

/// A time that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Span {
    /// Clerk's window: the last 10 seconds.
    Window,
    /// The last minute.
    Minute,
    /// The last hour, to the minute.
    Hour,
}

impl Span {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Window, Self::Minute, Self::Hour];

    /// A word for pages and labels.
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
    places: HashMap<K, usize>,
    keys: Vec<K>,
    seconds: Ring,
    minutes: Ring,
}

impl<K> Default for TopCounter<K> {
    fn default() -> Self {
        Self { places: HashMap::default(), keys: Vec::new(), seconds: Ring::default(), minutes: Ring::default() }
    }
}

/// The requests of each of the last [`SLOTS`] times.
#[derive(Debug, Clone, Default)]
struct Ring {
    slots: Vec<Slot>,
}

#[derive(Debug, Default, Clone)]
struct Slot {
    /// Which second or minute since the epoch this is.
    number: u64,
    /// By place of the key; the last one is for keys without a place.
    counts: Vec<u32>,
    homeless: u32,
}

impl Ring {
    fn add(&mut self, number: u64, place: Option<usize>, requests: u32) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, Slot::default());
        }
        let index = index(number);
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.number > number {
            // Too late for a slot that has gone round.
            return;
        }
        if slot.number < number {
            slot.number = number;
            slot.counts.clear();
            slot.homeless = 0;
        }
        let count = match place {
            None => &mut slot.homeless,
            Some(place) => {
                if slot.counts.len() <= place {
                    slot.counts.resize(place + 1, 0);
                }
                &mut slot.counts[place]
            }
        };
        *count = count.saturating_add(requests);
    }

    fn take_back(&mut self, number: u64, place: Option<usize>, requests: u32) {
        let slot = self.slots.get_mut(index(number)).filter(|slot| slot.number == number);
        let count = slot.and_then(|slot| match place {
            None => Some(&mut slot.homeless),
            Some(place) => slot.counts.get_mut(place),
        });
        if let Some(count) = count {
            *count = count.saturating_sub(requests);
        }
    }

    /// The slots of the last `count` numbers up to this one.
    fn last(&self, number: u64, count: u64) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |slot| slot.number <= number && slot.number + count > number)
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number % SLOTS as u64).unwrap_or(0)
}

impl<K: Copy + Eq + Hash> TopCounter<K> {
    /// Counts requests at `now`.
    pub(super) fn record(&mut self, now: Moment, key: K, requests: u32) {
        let second = now.since_epoch().as_secs();
        let place = self.place(key, second);
        self.seconds.add(second, place, requests);
        self.minutes.add(second / 60, place, requests);
    }

    /// Takes back requests that were counted at `at`.
    pub(super) fn take_back(&mut self, at: Moment, key: K, requests: u32) {
        let second = at.since_epoch().as_secs();
        let place = self.places.get(&key).copied();
        self.seconds.take_back(second, place, requests);
        self.minutes.take_back(second / 60, place, requests);
    }

    fn place(&mut self, key: K, second: u64) -> Option<usize> {
        if let Some(place) = self.places.get(&key) {
            return Some(*place);
        }
        if self.keys.len() >= MAX_KEYS && !self.forget_unused(second) {
            return None;
        }
        let place = self.keys.len();
        self.keys.push(key);
        self.places.insert(key, place);
        Some(place)
    }

    /// Makes room by forgetting the keys that no slot counts any more; false if there are none.
    fn forget_unused(&mut self, second: u64) -> bool {
        let mut used = vec![false; self.keys.len()];
        for slot in self.minutes.last(second / 60, SLOTS as u64) {
            for (used, count) in used.iter_mut().zip(&slot.counts) {
                *used |= *count > 0;
            }
        }
        if used.iter().all(|used| *used) {
            return false;
        }
        for slot in self.seconds.slots.iter_mut().chain(&mut self.minutes.slots) {
            let mut used = used.iter();
            slot.counts.retain(|_| used.next().copied().unwrap_or(false));
        }
        let mut used = used.iter();
        self.keys.retain(|_| used.next().copied().unwrap_or(false));
        self.places = self.keys.iter().enumerate().map(|(place, key)| (*key, place)).collect();
        true
    }

    /// Requests by key in a time that ends at `now`, most first; `None` stands for keys without a place.
    pub(super) fn shares(&self, now: Moment, span: Span) -> Vec<(Option<K>, u64)> {
        let second = now.since_epoch().as_secs();
        let (ring, number, count) = match span {
            Span::Window => (&self.seconds, second, 10),
            Span::Minute => (&self.seconds, second, SLOTS as u64),
            Span::Hour => (&self.minutes, second / 60, SLOTS as u64),
        };
        let mut counts = vec![0_u64; self.keys.len()];
        let mut homeless = 0;
        for slot in ring.last(number, count) {
            homeless += u64::from(slot.homeless);
            for (sum, count) in counts.iter_mut().zip(&slot.counts) {
                *sum += u64::from(*count);
            }
        }
        let mut shares: Vec<_> = self.keys.iter().copied().map(Some).zip(counts).collect();
        shares.push((None, homeless));
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
    fn each_span_counts_what_lies_in_it() {
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
    fn what_is_taken_back_was_not_used() {
        let mut top = TopCounter::default();
        top.record(at(0), "a", 2);
        top.take_back(at(0), "a", 1);
        assert_eq!(top.shares(at(5), Span::Minute), [(Some("a"), 1)]);
        assert_eq!(top.shares(at(5), Span::Hour), [(Some("a"), 1)]);
    }

    #[test]
    fn a_slot_that_went_round_holds_nothing_of_the_last_round() {
        let mut top = TopCounter::default();
        top.record(at(0), "a", 5);
        top.record(at(60), "a", 1);
        top.record(at(0), "a", 7);
        assert_eq!(top.shares(at(60), Span::Minute), [(Some("a"), 1)]);
    }

    #[test]
    fn keys_are_bounded_and_make_room_once_they_are_old() {
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
    fn a_key_keeps_its_counts_when_others_are_forgotten() {
        let mut top = TopCounter::default();
        for key in 0..MAX_KEYS {
            top.record(at(0), key, 1);
        }
        top.record(at(3600), 7, 2);
        top.record(at(3600), 5000, 1);
        assert_eq!(top.shares(at(3600), Span::Minute), [(Some(7), 2), (Some(5000), 1)]);
    }
}
