//! What coalescing and caching would save, from recorded requests in simulated time.
//!
//! The simulation holds no responses and does no I/O: it remembers when each resource was fetched and when its tags were
//! invalidated. Whether a response may be stored, for how long, and whether an invalidation outdates it is decided by the
//! code that the cache itself runs (`expiry`, `generations`), without the random part of a TTL.
//!
//! Time must not run backwards: pass reads and invalidations in the order in which they happened.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustc_hash::FxHashMap;

use super::CachePolicy;
use super::expiry::FetchedResponse;
use super::generations::{Generations, Snapshot};
use crate::webhook::Tag;
use clerk_quota::Moment;

/// The tags of a response or a change, without the ids that they name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagSlots(Box<[u32]>);

impl TagSlots {
    /// Returns the slots of these tags.
    #[must_use]
    pub fn of(tags: &[Tag]) -> Self {
        Self(tags.iter().map(Generations::index).collect())
    }

    /// Returns the slots of tags that are known by a hash only.
    #[must_use]
    pub fn of_hashes(hashes: impl IntoIterator<Item = u64>) -> Self {
        Self(hashes.into_iter().map(Generations::index_of_hash).collect())
    }

    /// Returns whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}

/// A recorded read.
#[derive(Debug, Clone, Copy)]
pub struct RecordedRead<'a> {
    /// What it reads: equal for reads that have the same response.
    pub resource: u64,
    /// The tags of its response.
    pub tags: &'a TagSlots,
    /// When it started.
    pub started: Moment,
    /// When it ended.
    pub ended: Moment,
    /// The status of the response; `None` if none came.
    pub status: Option<StatusCode>,
}

/// What a policy would have made of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Sent to Clerk.
    Fetched,
    /// Answered by a stored response.
    Hit,
    /// Answered by a fetch in flight.
    Coalesced,
}

impl ReadOutcome {
    /// Returns whether no request to Clerk was needed.
    #[must_use]
    pub const fn is_saved(self) -> bool {
        !matches!(self, Self::Fetched)
    }
}

/// A fetch of a resource, in flight or ended.
#[derive(Debug, Clone)]
struct Fetch {
    begun: Moment,
    ended: Moment,
    status: Option<StatusCode>,
    snapshot: Arc<Snapshot>,
}

/// Simulates several policies side by side, each as if it were the only one.
#[derive(Debug)]
pub struct ReadSimulation<const N: usize> {
    policies: [CachePolicy; N],
    grace: Duration,
    generations: Generations,
    /// The last fetch of each resource, by policy.
    fetches: FxHashMap<u64, [Option<Fetch>; N]>,
    max_resources: usize,
    dropped: u64,
}

impl<const N: usize> ReadSimulation<N> {
    /// Creates a simulation that remembers this many resources. `grace` is that of
    /// [`CacheOptions::read_after_write_grace`](super::CacheOptions::read_after_write_grace).
    #[must_use]
    pub fn new(policies: [CachePolicy; N], grace: Duration, max_resources: usize) -> Self {
        Self {
            policies,
            grace,
            generations: Generations::new(),
            fetches: FxHashMap::default(),
            max_resources: max_resources.max(1),
            dropped: 0,
        }
    }

    /// Returns what each policy would have made of the read. A policy that does not apply, by `applies`, is not touched.
    pub fn read(&mut self, read: &RecordedRead<'_>, applies: [bool; N]) -> [ReadOutcome; N] {
        if self.fetches.len() >= self.max_resources && !self.fetches.contains_key(&read.resource) {
            self.make_room(read.started);
        }
        let (generations, policies, grace) = (&self.generations, &self.policies, self.grace);
        let mut snapshot = None;
        let fetches = self.fetches.entry(read.resource).or_insert_with(|| [const { None }; N]);
        let mut outcomes = [ReadOutcome::Fetched; N];
        for (((fetch, policy), outcome), applies) in fetches.iter_mut().zip(policies).zip(&mut outcomes).zip(applies) {
            if !applies {
                continue;
            }
            let (found, joins) = match fetch {
                Some(fetch) => fetch.answer(read.started, *policy, generations, grace),
                None => (ReadOutcome::Fetched, false),
            };
            *outcome = found;
            if found == ReadOutcome::Fetched && !joins {
                let snapshot = snapshot.get_or_insert_with(|| {
                    // Most often nothing has changed since the last fetch.
                    let last = fetch.as_ref().map(|fetch| &fetch.snapshot);
                    let last = last.filter(|last| generations.is_snapshot_of(last, read.tags.iter()));
                    last.map_or_else(|| Arc::new(generations.snapshot_of(read.tags.iter())), Arc::clone)
                });
                let snapshot = Arc::clone(snapshot);
                *fetch = Some(Fetch { begun: read.started, ended: read.ended, status: read.status, snapshot });
            }
        }
        outcomes
    }

    /// Outdates what a change at `at` may have changed. `doubt` is how long from then it may still take effect.
    pub fn invalidate(&self, changes: &TagSlots, at: Moment, doubt: Duration) {
        if !doubt.is_zero() {
            self.generations.doubt_slots(changes.iter(), at.after(doubt));
        }
        self.generations.invalidate_slots(changes.iter(), at);
    }

    /// Returns how many resources were forgotten although a policy may have had use for them.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets expired resources; if that is less than half, the oldest ones, too.
    fn make_room(&mut self, now: Moment) {
        let (generations, policies, grace) = (&self.generations, &self.policies, self.grace);
        let is_useful = |fetches: &[Option<Fetch>; N]| {
            let mut pairs = fetches.iter().zip(policies);
            pairs.any(|(fetch, policy)| {
                fetch.as_ref().is_some_and(|fetch| fetch.is_useful(now, *policy, generations, grace))
            })
        };
        self.fetches.retain(|_, fetches| is_useful(fetches));
        let room = self.max_resources / 2;
        if self.fetches.len() <= room {
            return;
        }
        let newest = |fetches: &[Option<Fetch>; N]| fetches.iter().flatten().map(|fetch| fetch.begun).max();
        let mut ages: Vec<_> = self.fetches.values().map(newest).collect();
        let place = ages.len() - room.max(1);
        let (_, oldest, _) = ages.select_nth_unstable(place);
        let oldest = *oldest;
        let before = self.fetches.len();
        self.fetches.retain(|_, fetches| newest(fetches) > oldest);
        self.dropped += (before - self.fetches.len()) as u64;
    }
}

impl Fetch {
    /// Returns what a read at `at` gets, and whether it joined the fetch and is sent all the same.
    fn answer(
        &self,
        at: Moment,
        policy: CachePolicy,
        generations: &Generations,
        grace: Duration,
    ) -> (ReadOutcome, bool) {
        if at < self.ended {
            return match self.status.map(|status| status.as_u16()) {
                _ if !generations.is_valid(&self.snapshot) => (ReadOutcome::Fetched, false),
                // A rejected key says nothing about other keys of the same instance.
                Some(401 | 403) => (ReadOutcome::Fetched, true),
                _ => (ReadOutcome::Coalesced, false),
            };
        }
        let is_fresh = self.fresh_until(policy, generations, grace).is_some_and(|until| at < until);
        (if is_fresh { ReadOutcome::Hit } else { ReadOutcome::Fetched }, false)
    }

    fn fresh_until(&self, policy: CachePolicy, generations: &Generations, grace: Duration) -> Option<Moment> {
        if !policy.keeps() {
            return None;
        }
        let fetched = FetchedResponse { begun: self.begun, snapshot: &self.snapshot, status: self.status? };
        Some(fetched.times(policy, generations, grace, 1000)?.fresh_until)
    }

    fn is_useful(&self, now: Moment, policy: CachePolicy, generations: &Generations, grace: Duration) -> bool {
        now < self.ended || self.fresh_until(policy, generations, grace).is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::super::{Cache, CacheKeyParts, CacheOptions, CachedResponse, Hit};
    use super::*;
    use crate::webhook::Invalidate;
    use clerk_quota::clock::Clock;

    const TTL: Duration = Duration::from_secs(10);
    const GRACE: Duration = Duration::from_secs(5);

    fn at(millis: u64) -> Moment {
        Moment::from_unix(Duration::from_millis(1_000_000_000_000 + millis))
    }

    fn simulation() -> ReadSimulation<2> {
        ReadSimulation::new([CachePolicy::coalesce_only(), CachePolicy::fresh_for(TTL)], GRACE, 100)
    }

    fn read(resource: u64, tags: &TagSlots, started: u64, took: u64) -> RecordedRead<'_> {
        let (started, ended) = (at(started), at(started + took));
        RecordedRead { resource, tags, started, ended, status: Some(StatusCode::OK) }
    }

    #[test]
    fn reads_join_a_fetch_in_flight_and_hit_until_the_ttl() {
        use ReadOutcome::{Coalesced, Fetched, Hit};
        let (mut simulation, tags) = (simulation(), TagSlots::of(&[Tag::UserList]));
        for (started, expected) in [
            (0, [Fetched, Fetched]),
            (999, [Coalesced, Coalesced]),
            (1000, [Fetched, Hit]),
            (9_999, [Fetched, Hit]),
            // Coalescing alone fetched at 9,999.
            (10_000, [Coalesced, Fetched]),
        ] {
            assert_eq!(simulation.read(&read(1, &tags, started, 1000), [true; 2]), expected, "{started}");
        }
        assert_eq!(simulation.read(&read(2, &tags, 10_001, 10), [true, false]), [Fetched, Fetched]);
    }

    #[test]
    fn change_outdates_what_was_fetched_before() {
        let (mut simulation, tags) = (simulation(), TagSlots::of(&[Tag::UserList]));
        let is_hit = |simulation: &mut ReadSimulation<2>, started| {
            simulation.read(&read(1, &tags, started, 10), [true; 2])[1] == ReadOutcome::Hit
        };
        assert!(!is_hit(&mut simulation, 0) && is_hit(&mut simulation, 100));
        simulation.invalidate(&TagSlots::of(&[Tag::UserList]), at(200), Duration::ZERO);
        assert!(!is_hit(&mut simulation, 300) && is_hit(&mut simulation, 5_000));
        // What was fetched soon after a change is kept for the grace only.
        assert!(!is_hit(&mut simulation, 5_400));
        simulation.invalidate(&TagSlots::of(&[Tag::Roles]), at(5_500), Duration::ZERO);
        assert!(is_hit(&mut simulation, 5_600));
        simulation.invalidate(&TagSlots::of(&[Tag::UserList]), at(5_700), Duration::from_secs(11));
        assert!(!is_hit(&mut simulation, 5_800) && !is_hit(&mut simulation, 6_000));
    }

    #[test]
    fn number_of_resources_is_bounded() {
        let (mut simulation, tags) = (simulation(), TagSlots::default());
        for resource in 0..1000 {
            simulation.read(&read(resource, &tags, resource, 1), [true; 2]);
            assert!(simulation.fetches.len() <= 100);
        }
        assert!(simulation.dropped() >= 900 && simulation.dropped() < 1000);
        let before = simulation.dropped();
        for resource in 1000..1100 {
            simulation.read(&read(resource, &tags, 60_000 + resource, 1), [true; 2]);
        }
        assert_eq!(simulation.dropped(), before, "expired resources are forgotten silently");
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Read(u8),
        Change(u8),
        Wait(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u8..3).prop_map(Step::Read),
            (0_u8..3).prop_map(Step::Change),
            (1_u16..4000).prop_map(Step::Wait)
        ]
    }

    proptest! {
        /// The same reads and changes through the cache itself give the same hits.
        #[test]
        fn hits_are_those_of_the_cache(steps in proptest::collection::vec(step(), 1..120)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let (real, simulated) = runtime.block_on(async {
                let clock = Arc::new(Clock::simulated(UNIX_EPOCH + Duration::from_secs(1_795_608_000)));
                let cache = Cache::new(CacheOptions::new("prod").read_after_write_grace(GRACE), Arc::clone(&clock));
                let mut simulation = ReadSimulation::new([CachePolicy::fresh_for(TTL)], GRACE, 100);
                let (mut real, mut simulated) = (Vec::new(), Vec::new());
                let mut fetched = [Moment::default(); 3];
                for step in steps {
                    match step {
                        Step::Wait(millis) => tokio::time::advance(Duration::from_millis(millis.into())).await,
                        Step::Change(user) => {
                            let tag = [Tag::User(user.to_string().into())];
                            cache.invalidate(&tag).await.unwrap();
                            simulation.invalidate(&TagSlots::of(&tag), clock.now(), Duration::ZERO);
                        }
                        Step::Read(user) => {
                            // The TTL of the cache is random by a tenth.
                            let age = clock.now().since(fetched[usize::from(user)]).as_millis();
                            if (4_900..=11_100).contains(&age) {
                                tokio::time::advance(Duration::from_millis(11_200)).await;
                            }
                            let tags = [Tag::User(user.to_string().into())];
                            let path = format!("/v1/users/{user}");
                            let key = cache.key(&CacheKeyParts { method: "GET", path: &path, ..CacheKeyParts::default() });
                            let wall = clock.wall();
                            let answer = || async move {
                                Ok::<_, Infallible>(CachedResponse::new(StatusCode::OK, HeaderMap::new(), Bytes::new(), wall))
                            };
                            let (_, hit) = cache.get_or_fetch(key, &tags, CachePolicy::fresh_for(TTL), answer).await.unwrap();
                            real.push(hit != Hit::Fetched);
                            let now = clock.now();
                            let slots = TagSlots::of(&tags);
                            let status = Some(StatusCode::OK);
                            let read = RecordedRead { resource: user.into(), tags: &slots, started: now, ended: now, status };
                            let [outcome] = simulation.read(&read, [true]);
                            if !outcome.is_saved() {
                                fetched[usize::from(user)] = now;
                            }
                            simulated.push(outcome.is_saved());
                        }
                    }
                }
                (real, simulated)
            });
            prop_assert_eq!(real, simulated);
        }
    }
}
