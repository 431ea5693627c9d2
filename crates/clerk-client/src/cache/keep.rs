//! Storing a response: in memory and in Redis, if it is cacheable and was not invalidated since its fetch began.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use super::entry::Record;
use super::expiry::FetchedResponse;
use super::generations::Snapshot;
use super::lookup::Inner;
use super::memory_tier::{MemoryTier, Times};
use super::redis_tier::TagGenerations;
use super::verification;
use super::{CacheContent, CacheKey, CachePolicy, CachedResponse};
use clerk_quota::Moment;

impl Inner {
    /// The snapshot with the tags that the response itself names, if it does. `None` if they were invalidated since.
    pub(super) fn narrowed<'a>(&self, answer: &CachedResponse, snapshot: &'a Snapshot) -> Option<Cow<'a, Snapshot>> {
        match self.content {
            CacheContent::Reads => Some(Cow::Borrowed(snapshot)),
            CacheContent::Verifications => {
                let described = verification::describe(answer)?;
                self.generations.narrowed(snapshot, &described.tags).map(Cow::Owned)
            }
        }
    }

    /// The times of an entry from Redis. Those of a verification are also counted from its response: a stalled server may
    /// have kept it too long. `None` if it is over.
    pub(super) fn capped(&self, answer: &CachedResponse, times: Times, policy: CachePolicy) -> Option<Times> {
        if self.content == CacheContent::Reads {
            return Some(times);
        }
        let at_most = verification::describe(answer)?.at_most.min(policy.ttl);
        let left = at_most.checked_sub(answer.age(self.clock.wall()))?;
        Some(times.capped(self.clock.now().after(left)))
    }

    /// Stores a response if it is cacheable and was not invalidated since its fetch began at `begun`.
    pub(super) async fn keep(
        &self,
        key: CacheKey,
        policy: CachePolicy,
        begun: Moment,
        snapshot: &Snapshot,
        seen: Option<&TagGenerations>,
        answer: &CachedResponse,
    ) {
        if policy.of(answer.status()).is_none() || !answer.may_be_kept() {
            return;
        }
        if answer.weight() > self.max_entry_bytes {
            self.counters.dropped.add();
            return;
        }
        let (narrowed, at_most);
        let snapshot = match self.content {
            CacheContent::Reads => {
                at_most = None;
                snapshot
            }
            CacheContent::Verifications => {
                let Some(described) = verification::describe(answer) else { return };
                let Some(own) = self.generations.narrowed(snapshot, &described.tags) else {
                    self.counters.outdated.add();
                    return;
                };
                (narrowed, at_most) = (own, Some(described.at_most.min(policy.ttl)));
                &narrowed
            }
        };
        let fetched = FetchedResponse { begun, snapshot, status: answer.status() };
        let permille = fastrand::u32(900..=1100);
        let Some(times) = fetched.times(policy, &self.generations, self.read_after_write_grace, permille) else {
            self.counters.outdated.add();
            return;
        };
        let times = at_most.map_or(times, |at_most| times.capped(begun.after(at_most)));
        self.remember(key, answer, times, snapshot);
        let left = times.end().since(self.clock.now());
        let (Some(shared), Some(seen)) = (&self.redis_tier, seen) else { return };
        if left.is_zero() {
            return;
        }
        let record = Record {
            answer: answer.clone(),
            stale_while_revalidate: times.stale_until.since(times.fresh_until),
            stale_if_error: times.stale_if_error_until.since(times.fresh_until),
        };
        match Box::pin(shared.keep(seen, &record, left)).await {
            Ok(true) => self.counters.redis.stored.add(),
            Ok(false) => self.counters.outdated.add(),
            Err(_) => self.counters.redis.errors.add(),
        }
    }

    pub(super) fn remember(&self, key: CacheKey, answer: &CachedResponse, times: Times, snapshot: &Snapshot) {
        if !self.memory.has_room_for(answer.weight()) {
            self.counters.dropped.add();
            return;
        }
        let is_connected = self.is_connected.load(Ordering::SeqCst);
        let now = self.clock.now();
        let times = if is_connected { times } else { times.capped(now.after(self.disconnected_ttl)) };
        if now < times.end() && self.generations.is_current(snapshot) {
            self.memory.insert(key, MemoryTier::new(answer, times, snapshot.clone()));
            self.counters.memory.stored.add();
        }
    }
}
