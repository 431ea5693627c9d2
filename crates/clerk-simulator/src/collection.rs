//! A bounded set of resources in the order of their creation.

use std::collections::{BTreeMap, HashMap};

/// Resources by identifier, at most [`Collection::CAPACITY`].
#[derive(Debug)]
pub(super) struct Collection<T> {
    by_id: HashMap<String, u64>,
    items: BTreeMap<u64, (String, T)>,
    next: u64,
}

impl<T> Default for Collection<T> {
    fn default() -> Self {
        Self { by_id: HashMap::new(), items: BTreeMap::new(), next: 0 }
    }
}

impl<T> Collection<T> {
    /// So that clients cannot exhaust the memory.
    pub(super) const CAPACITY: usize = 20_000;

    pub(super) fn get(&self, id: &str) -> Option<&T> {
        self.items.get(self.by_id.get(id)?).map(|(_, item)| item)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        self.items.get_mut(self.by_id.get(id)?).map(|(_, item)| item)
    }

    /// Adds an item. Beyond the capacity, the oldest one goes.
    pub(super) fn insert(&mut self, id: String, item: T) {
        self.by_id.insert(id.clone(), self.next);
        self.items.insert(self.next, (id, item));
        self.next += 1;
        if self.items.len() > Self::CAPACITY
            && let Some((_, (oldest, _))) = self.items.pop_first()
        {
            self.by_id.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<T> {
        self.items.remove(&self.by_id.remove(id)?).map(|(_, item)| item)
    }

    /// The items, newest first, as Clerk's lists have them.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &T> {
        self.items.values().rev().map(|(_, item)| item)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.values_mut().map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_keeps_the_newest_within_its_capacity() {
        let mut collection = Collection::default();
        for number in 0..Collection::<usize>::CAPACITY + 2 {
            collection.insert(number.to_string(), number);
        }
        assert_eq!(collection.items.len(), Collection::<usize>::CAPACITY);
        assert_eq!((collection.get("1"), collection.get("2")), (None, Some(&2)));
        assert_eq!(collection.newest_first().next(), Some(&(Collection::<usize>::CAPACITY + 1)));
        assert_eq!(collection.remove("2"), Some(2));
        assert_eq!(collection.get("2"), None);
    }
}
