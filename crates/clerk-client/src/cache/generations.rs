//! How this process tells answers from before an invalidation from those after it.
//!
//! Each tag has a generation, which an invalidation raises. Whoever is about to fetch an answer notes the generations of
//! its tags; the answer is good as long as they are the same. So nothing has to be searched for and removed, and an
//! answer whose fetch began before an invalidation is known to be old whenever it arrives.
//!
//! Tags are unlimited in number and share a fixed number of counters by their hash: two tags that meet make each other's
//! answers old now and then, which costs a fetch and nothing else.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustc_hash::FxBuildHasher;

use crate::webhook::Tag;
use clerk_quota::Moment;

/// How many counters there are. At 24 bytes each they take 384 KiB.
const SLOTS: u64 = 1 << 14;

#[derive(Debug)]
pub(super) struct Generations {
    slots: Box<[Slot]>,
    /// The generation of everything, also of answers without tags.
    epoch: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    generation: AtomicU64,
    /// When it was last raised, in milliseconds since 1970; 0 if never.
    raised_at: AtomicU64,
    /// Until when a write of which the end is not known may be carried out, in milliseconds since 1970; 0 if there is none.
    doubtful_until: AtomicU64,
}

/// The generations of an answer's tags before its fetch began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    epoch: u64,
    tags: Box<[(u32, u64)]>,
}

impl Generations {
    pub(super) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Self { slots, epoch: AtomicU64::new(0) }
    }

    pub(super) fn snapshot(&self, tags: &[Tag]) -> Snapshot {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let tags = tags.iter().map(Self::index).map(|index| (index, self.generation(index))).collect();
        Snapshot { epoch, tags }
    }

    /// Whether none of the tags was invalidated since.
    pub(super) fn is_valid(&self, snapshot: &Snapshot) -> bool {
        snapshot.tags.iter().all(|(index, generation)| self.generation(*index) == *generation)
    }

    /// Whether it is valid, and nothing may have been missed since.
    pub(super) fn is_current(&self, snapshot: &Snapshot) -> bool {
        self.epoch.load(Ordering::SeqCst) == snapshot.epoch && self.is_valid(snapshot)
    }

    /// Makes everything old that has one of the tags.
    pub(super) fn invalidate(&self, tags: &[Tag], now: Moment) {
        for tag in tags {
            let slot = self.slot(Self::index(tag));
            slot.raised_at.fetch_max(millis(now).max(1), Ordering::SeqCst);
            slot.generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A write that may change these tags may still be carried out until then.
    pub(super) fn doubt(&self, tags: &[Tag], until: Moment) {
        for tag in tags {
            self.slot(Self::index(tag)).doubtful_until.fetch_max(millis(until), Ordering::SeqCst);
        }
    }

    /// How long such writes may still be carried out.
    pub(super) fn doubt_left(&self, tags: &[Tag], now: Moment) -> Duration {
        let until = |tag: &Tag| self.slot(Self::index(tag)).doubtful_until.load(Ordering::SeqCst);
        let longest = tags.iter().map(until).max().unwrap_or_default();
        Duration::from_millis(longest.saturating_sub(millis(now)))
    }

    /// Whether a write may change one of the tags, or could have until less than `within` before `moment`.
    pub(super) fn is_doubtful(&self, snapshot: &Snapshot, moment: Moment, within: Duration) -> bool {
        let earliest = millis(moment.before(within));
        let until = |index| self.slot(index).doubtful_until.load(Ordering::SeqCst);
        snapshot.tags.iter().any(|(index, _)| until(*index) > earliest)
    }

    /// Makes everything old, for memory only: something may have been missed.
    #[cfg(feature = "redis")]
    pub(super) fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether one of the tags was invalidated less than `within` before `moment`.
    pub(super) fn is_recent(&self, snapshot: &Snapshot, moment: Moment, within: Duration) -> bool {
        let earliest = millis(moment.before(within));
        let raised_at = |index| self.slot(index).raised_at.load(Ordering::SeqCst);
        !within.is_zero() && snapshot.tags.iter().any(|(index, _)| raised_at(*index) > earliest)
    }

    /// Not random: whether two tags meet is not to change from run to run. Nobody gains by making tags meet.
    fn index(tag: &Tag) -> u32 {
        u32::try_from(FxBuildHasher.hash_one(tag) % SLOTS).unwrap_or_default()
    }

    fn slot(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    fn generation(&self, index: u32) -> u64 {
        self.slot(index).generation.load(Ordering::SeqCst)
    }
}

fn millis(moment: Moment) -> u64 {
    super::millis(moment.since_epoch())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1_795_608_000 + seconds))
    }

    #[test]
    fn an_invalidation_makes_old_what_has_the_tag() {
        let generations = Generations::new();
        let [user, list] = [Tag::User("user_1".into()), Tag::UserList];
        let both = generations.snapshot(&[user.clone(), list.clone()]);
        let none = generations.snapshot(&[]);
        generations.invalidate(&[list], at(0));
        assert!(!generations.is_valid(&both) && generations.is_valid(&none));
        assert!(generations.is_current(&generations.snapshot(&[user])));
    }

    #[test]
    fn a_new_epoch_makes_everything_old_for_memory_only() {
        let generations = Generations::new();
        let none = generations.snapshot(&[]);
        generations.begin_epoch();
        assert!(generations.is_valid(&none) && !generations.is_current(&none));
    }

    #[test]
    fn a_write_whose_end_is_not_known_is_in_doubt_for_a_while() {
        let generations = Generations::new();
        let snapshot = generations.snapshot(&[Tag::UserList]);
        assert!(!generations.is_doubtful(&snapshot, at(0), Duration::from_secs(60)));
        generations.doubt(&[Tag::UserList], at(11));
        generations.doubt(&[Tag::UserList], at(5));
        let is_doubtful = |moment, within| generations.is_doubtful(&snapshot, at(moment), Duration::from_secs(within));
        assert!(is_doubtful(10, 0) && !is_doubtful(11, 0));
        assert!(is_doubtful(70, 60) && !is_doubtful(71, 60));
    }

    #[test]
    fn a_recent_invalidation_is_remembered_for_a_while() {
        let generations = Generations::new();
        generations.invalidate(&[Tag::UserList], at(0));
        let snapshot = generations.snapshot(&[Tag::UserList]);
        let five = Duration::from_secs(5);
        assert!(generations.is_recent(&snapshot, at(4), five));
        assert!(!generations.is_recent(&snapshot, at(5), five));
        assert!(!generations.is_recent(&snapshot, at(0), Duration::ZERO));
    }
}
