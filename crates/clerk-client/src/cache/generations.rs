//! Generations: distinguish responses fetched before an invalidation from later ones.
//!
//! Each tag has a generation, which an invalidation increments. A fetch records the generations of its tags when it
//! begins; its response is valid while they are unchanged. So an invalidation searches and removes nothing, and a
//! response whose fetch began before it is outdated whenever it arrives.
//!
//! Tags hash into a fixed number of slots. Two tags in one slot invalidate each other's responses, which only costs a
//! fetch.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustc_hash::FxBuildHasher;

use crate::webhook::Tag;
use clerk_quota::Moment;

/// Number of slots. At 32 bytes each they take 512 KiB.
const SLOTS: u64 = 1 << 14;

#[derive(Debug)]
pub(super) struct Generations {
    slots: Box<[Slot]>,
    /// Generation of all entries, including those without tags.
    epoch: AtomicU64,
    /// Number of increments so far.
    sequence: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    generation: AtomicU64,
    /// [`Generations::sequence`] of the last increment.
    raised_in: AtomicU64,
    /// Time of the last increment, in milliseconds since 1970; 0 if none.
    raised_at: AtomicU64,
    /// Until when a write with unknown outcome may take effect, in milliseconds since 1970; 0 if there is none.
    doubtful_until: AtomicU64,
}

/// Generations of a response's tags, taken before its fetch began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    epoch: u64,
    /// Increments before it was taken.
    sequence: u64,
    tags: Box<[(u32, u64)]>,
}

impl Generations {
    pub(super) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Self { slots, epoch: AtomicU64::new(0), sequence: AtomicU64::new(0) }
    }

    pub(super) fn snapshot(&self, tags: &[Tag]) -> Snapshot {
        self.snapshot_of(tags.iter().map(Self::index))
    }

    /// The same for the slots of tags.
    pub(super) fn snapshot_of(&self, slots: impl Iterator<Item = u32>) -> Snapshot {
        let (epoch, sequence) = (self.epoch.load(Ordering::SeqCst), self.sequence.load(Ordering::SeqCst));
        Snapshot { epoch, sequence, tags: slots.map(|index| (index, self.generation(index))).collect() }
    }

    /// The snapshot as it would be with these tags instead, which were not known when it was taken. `None` if one of them
    /// was invalidated since.
    pub(super) fn narrowed(&self, snapshot: &Snapshot, tags: &[Tag]) -> Option<Snapshot> {
        let slots = tags.iter().map(Self::index);
        // In this order: an invalidation raises the sequence of the slot first.
        let tags: Box<[_]> = slots.map(|index| (index, self.generation(index))).collect();
        let is_older = |index| self.slot(index).raised_in.load(Ordering::SeqCst) <= snapshot.sequence;
        tags.iter().all(|(index, _)| is_older(*index)).then_some(Snapshot { tags, ..*snapshot })
    }

    /// Whether a snapshot of these slots would be the same now.
    pub(super) fn is_snapshot_of(&self, snapshot: &Snapshot, slots: impl Iterator<Item = u32>) -> bool {
        let now = slots.map(|index| (index, self.generation(index)));
        self.epoch.load(Ordering::SeqCst) == snapshot.epoch && now.eq(snapshot.tags.iter().copied())
    }

    /// Whether none of the tags was invalidated since.
    pub(super) fn is_valid(&self, snapshot: &Snapshot) -> bool {
        snapshot.tags.iter().all(|(index, generation)| self.generation(*index) == *generation)
    }

    /// Whether the snapshot is valid and no invalidation can have been missed since.
    pub(super) fn is_current(&self, snapshot: &Snapshot) -> bool {
        self.epoch.load(Ordering::SeqCst) == snapshot.epoch && self.is_valid(snapshot)
    }

    /// Outdates all responses that have one of the tags.
    pub(super) fn invalidate(&self, tags: &[Tag], now: Moment) {
        self.invalidate_slots(tags.iter().map(Self::index), now);
    }

    /// The same for the slots of tags.
    pub(super) fn invalidate_slots(&self, slots: impl Iterator<Item = u32>, now: Moment) {
        for slot in slots.map(|index| self.slot(index)) {
            let sequence = self.sequence.fetch_add(1, Ordering::SeqCst) + 1;
            slot.raised_in.fetch_max(sequence, Ordering::SeqCst);
            slot.raised_at.fetch_max(millis(now).max(1), Ordering::SeqCst);
            slot.generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Records that a write to these tags may take effect until then.
    pub(super) fn doubt(&self, tags: &[Tag], until: Moment) {
        self.doubt_slots(tags.iter().map(Self::index), until);
    }

    /// The same for the slots of tags.
    pub(super) fn doubt_slots(&self, slots: impl Iterator<Item = u32>, until: Moment) {
        for slot in slots.map(|index| self.slot(index)) {
            slot.doubtful_until.fetch_max(millis(until), Ordering::SeqCst);
        }
    }

    /// Remaining time in which such writes may take effect.
    pub(super) fn doubt_left(&self, tags: &[Tag], now: Moment) -> Duration {
        let until = |tag: &Tag| self.slot(Self::index(tag)).doubtful_until.load(Ordering::SeqCst);
        let longest = tags.iter().map(until).max().unwrap_or_default();
        Duration::from_millis(longest.saturating_sub(millis(now)))
    }

    /// Whether a write to one of the tags may take effect after `moment - within`.
    pub(super) fn is_doubtful(&self, snapshot: &Snapshot, moment: Moment, within: Duration) -> bool {
        let earliest = millis(moment.before(within));
        let until = |index| self.slot(index).doubtful_until.load(Ordering::SeqCst);
        snapshot.tags.iter().any(|(index, _)| until(*index) > earliest)
    }

    /// Outdates all entries in memory, because invalidations may have been missed.
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

    /// The hash is unseeded, so that collisions do not change from run to run. Provoking a collision gains nothing.
    pub(super) fn index(tag: &Tag) -> u32 {
        Self::index_of_hash(FxBuildHasher.hash_one(tag))
    }

    /// The same for a tag that is known by a hash.
    pub(super) fn index_of_hash(hash: u64) -> u32 {
        u32::try_from(hash % SLOTS).unwrap_or_default()
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
    fn invalidation_outdates_snapshots_with_the_tag() {
        let generations = Generations::new();
        let [user, list] = [Tag::User("user_1".into()), Tag::UserList];
        let both = generations.snapshot(&[user.clone(), list.clone()]);
        let none = generations.snapshot(&[]);
        let slots = || [&user, &list].map(Generations::index).into_iter();
        assert!(generations.is_snapshot_of(&both, slots()) && !generations.is_snapshot_of(&none, slots()));
        generations.invalidate(std::slice::from_ref(&list), at(0));
        assert!(!generations.is_snapshot_of(&both, slots()));
        assert!(!generations.is_valid(&both) && generations.is_valid(&none));
        assert!(generations.is_current(&generations.snapshot(&[user])));
    }

    #[test]
    fn late_tags_count_from_the_snapshot_on() {
        let generations = Generations::new();
        let [one, other] = ["ak_1", "ak_2"].map(|id| [Tag::Verification(id.into())]);
        generations.invalidate(&one, at(0));
        let snapshot = generations.snapshot(&[Tag::AnyVerification]);
        let known = generations.narrowed(&snapshot, &one).unwrap();
        assert!(generations.is_current(&known), "invalidated before the snapshot");
        generations.invalidate(&one, at(1));
        assert!(!generations.is_current(&known));
        assert!(generations.narrowed(&snapshot, &one).is_none(), "invalidated between snapshot and response");
        assert!(generations.narrowed(&snapshot, &other).is_some());
        generations.invalidate(&[Tag::AnyVerification], at(2));
        assert!(
            generations.is_current(&generations.narrowed(&snapshot, &other).unwrap()),
            "the early tags are replaced"
        );
    }

    #[test]
    fn new_epoch_invalidates_memory_only() {
        let generations = Generations::new();
        let none = generations.snapshot(&[]);
        generations.begin_epoch();
        assert!(generations.is_valid(&none) && !generations.is_current(&none));
    }

    #[test]
    fn write_with_unknown_outcome_is_doubtful_until_its_deadline() {
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
    fn invalidation_is_recent_within_the_window_only() {
        let generations = Generations::new();
        generations.invalidate(&[Tag::UserList], at(0));
        let snapshot = generations.snapshot(&[Tag::UserList]);
        let five = Duration::from_secs(5);
        assert!(generations.is_recent(&snapshot, at(4), five));
        assert!(!generations.is_recent(&snapshot, at(5), five));
        assert!(!generations.is_recent(&snapshot, at(0), Duration::ZERO));
    }
}
