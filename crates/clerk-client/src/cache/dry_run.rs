//! Dry-run lookups, which measure what a cache would save.

use super::generations::Snapshot;
use super::lookup::RedisLookup;
use super::redis_tier::TagGenerations;
use super::{Cache, CacheKey, CachePolicy, CachedResponse, Hit};
use crate::webhook::Tag;
use clerk_quota::Moment;

/// A lookup that serves nothing.
///
/// The caller sends the request to Clerk and passes the response to [`keep`](Self::keep).
#[must_use = "the response is stored only by `keep`"]
#[derive(Debug)]
pub struct DryRun {
    cache: Cache,
    key: CacheKey,
    policy: CachePolicy,
    begun: Moment,
    snapshot: Snapshot,
    seen: Option<TagGenerations>,
    hit: Option<Hit>,
}

impl Cache {
    /// Looks a response up as [`get_or_fetch`](Self::get_or_fetch) does, without serving or fetching one.
    ///
    /// Call it before the request to Clerk.
    pub async fn dry_run(&self, key: CacheKey, tags: &[Tag], policy: CachePolicy) -> DryRun {
        self.subscribe();
        let inner = &self.0;
        let snapshot = inner.generations.snapshot(tags);
        let in_memory = || self.peek(&key).map(|age| Hit::Memory { age });
        let mut hit = if self.is_connected() { in_memory() } else { None };
        let mut seen = None;
        if policy.keeps() {
            match inner.look(key, tags, policy).await {
                RedisLookup::Answered(found, place) => {
                    seen = Some(place);
                    if let Some((answer, times)) = found
                        && inner.clock.now() < times.fresh_until
                    {
                        hit = hit.or(Some(Hit::Redis { age: answer.age(inner.clock.wall()) }));
                    }
                }
                RedisLookup::Unreachable => hit = hit.or_else(in_memory),
                RedisLookup::NotAsked => {}
            }
        }
        let counters = &inner.counters.shadow;
        if hit.is_some() {
            counters.hits.add()
        } else {
            counters.misses.add()
        }
        DryRun { cache: self.clone(), key, policy, begun: inner.clock.now(), snapshot, seen, hit }
    }
}

impl DryRun {
    /// Returns where the response would have come from; `None` if from Clerk.
    #[must_use]
    pub const fn hit(&self) -> Option<Hit> {
        self.hit
    }

    /// Stores the response from Clerk, unless it was invalidated meanwhile.
    pub async fn keep(self, answer: &CachedResponse) {
        let Self { cache, key, policy, begun, snapshot, seen, hit } = self;
        // After a hit, the entry would not have been fetched again and would age.
        if hit.is_none() {
            cache.0.keep(key, policy, begun, &snapshot, seen.as_ref(), answer).await;
        }
    }
}
