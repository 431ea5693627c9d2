//! Which lookups would share a request if batching were on. Pure: time is passed in.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use clerk_client::clerk::{LoaderOptions, MAX_IDS};
use clerk_quota::Moment;

/// A batch that would still accept lookups.
#[derive(Debug)]
struct ShadowBatch<K> {
    opened: Moment,
    keys: HashSet<K>,
    look_ups: u32,
}

/// The open batch of each kind of lookups, with keys of type `K`.
#[derive(Debug)]
pub(crate) struct ShadowBatches<T, K> {
    batches: HashMap<T, ShadowBatch<K>>,
    max_kinds: usize,
}

impl<T: Eq + Hash, K: Eq + Hash> ShadowBatches<T, K> {
    /// Lookups of more than this many kinds are not batched.
    pub(crate) fn new(max_kinds: usize) -> Self {
        Self { batches: HashMap::new(), max_kinds }
    }

    /// Adds a lookup to the batch that it would share. Returns how many lookups are now known to be batched: 0 for a
    /// batch's first, 2 for its second (both), 1 for each further one.
    pub(crate) fn look_up(&mut self, kind: T, key: K, now: Moment) -> u32 {
        let window = LoaderOptions::default().window;
        if let Some(batch) = self.batches.get_mut(&kind)
            && now.since(batch.opened) < window
            && batch.keys.len() < MAX_IDS
        {
            batch.keys.insert(key);
            batch.look_ups += 1;
            return if batch.look_ups == 2 { 2 } else { 1 };
        }
        if self.batches.len() < self.max_kinds || self.batches.contains_key(&kind) {
            self.batches.insert(kind, ShadowBatch { opened: now, keys: HashSet::from([key]), look_ups: 1 });
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_unix(Duration::from_millis(1_000_000_000_000 + millis))
    }

    #[test]
    fn lookups_share_a_batch_for_its_window() {
        let mut batches = ShadowBatches::new(1);
        let steps = [(1, 0, 0), (2, 1, 2), (1, 4, 1), (3, 5, 0), (4, 6, 2), (5, 100, 0)];
        for (key, millis, expected) in steps {
            assert_eq!(batches.look_up("a", key, at(millis)), expected, "{key} at {millis} ms");
        }
        assert_eq!((batches.look_up("b", 1, at(100)), batches.look_up("b", 2, at(100))), (0, 0), "too many kinds");
    }

    #[test]
    fn full_batch_accepts_no_further_lookup() {
        let mut batches = ShadowBatches::new(1);
        let shared = (0..=MAX_IDS).filter(|id| batches.look_up((), *id, at(0)) > 0).count();
        assert_eq!(shared, MAX_IDS - 1);
    }
}
