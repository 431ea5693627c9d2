//! The way of an invalidation: Redis first, then memory, and again where Redis did not hear of it.

use std::sync::Arc;
use std::time::Duration;

use super::Cache;
use super::lookup::Inner;
use crate::webhook::{ExplainedError, Invalidate, InvalidateError, Tag};

/// First and longest time between attempts to tell Redis what it could not be told. What is refused stays so for long,
/// and each attempt invalidates what was kept since.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

impl Cache {
    /// [`invalidate`](Invalidate::invalidate) for whoever cannot wait: memory forgets at once, Redis soon.
    pub fn invalidate_soon(&self, tags: &[Tag]) {
        self.invalidate_in_doubt_soon(tags, Duration::ZERO);
    }

    /// [`invalidate_in_doubt`](Self::invalidate_in_doubt) for whoever cannot wait: memory forgets at once, Redis soon.
    pub fn invalidate_in_doubt_soon(&self, tags: &[Tag], doubt: Duration) {
        self.0.invalidate_here(tags, doubt);
        if self.is_shared() {
            let (cache, tags) = (self.clone(), tags.to_vec());
            // What goes wrong is counted there.
            self.0.in_background(async move { cache.invalidate_in_doubt(&tags, doubt).await.unwrap_or_default() });
        }
    }

    /// [`invalidate`](Invalidate::invalidate) for a change of which it is not known whether and when it is made: a write
    /// that was given up, or has no answer. For as long as `doubt` nothing with these tags is kept, since it may show what
    /// was before the change, and for a minute after that answers are kept as shortly as after any change
    /// ([`CacheOptions::read_after_write_grace`](super::CacheOptions::read_after_write_grace)). Other processes on the same
    /// Redis do the same as soon as they hear of it.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Invalidate::invalidate).
    pub async fn invalidate_in_doubt(&self, tags: &[Tag], doubt: Duration) -> Result<(), InvalidateError> {
        self.subscribe();
        let inner = &self.0;
        inner.counters.invalidations.add();
        // Before Redis: what is fetched meanwhile is not to be kept.
        inner.doubt_here(tags, doubt);
        let forgotten = match &inner.redis_tier {
            Some(shared) => shared.invalidate(tags, doubt).await.inspect_err(|_| {
                inner.counters.redis.errors.add();
                self.retry_invalidation(tags);
            }),
            None => Ok(()),
        };
        // After Redis: until then somebody could find an old answer there and take it into memory.
        inner.invalidate_here(tags, doubt);
        // What Redis says of itself holds no secret and no value: the sender may know why.
        forgotten.map_err(|error| InvalidateError::from(ExplainedError::new(error.to_string())))
    }

    /// Sees to it that Redis is told of these tags.
    fn retry_invalidation(&self, tags: &[Tag]) {
        if !self.0.pending_invalidations.push(tags) {
            return;
        }
        let inner = Arc::downgrade(&self.0);
        self.0.in_background(async move {
            let [mut wait, longest] = RETRY;
            loop {
                tokio::time::sleep(wait).await;
                wait = wait.saturating_mul(2).min(longest);
                let Some(inner) = inner.upgrade() else { return };
                let Some(shared) = &inner.redis_tier else { return };
                let tags = inner.pending_invalidations.tags();
                let doubt = inner.doubt_left(&tags);
                if shared.invalidate(&tags, doubt).await.is_ok() && inner.pending_invalidations.ack(&tags) {
                    return;
                }
            }
        });
    }
}

impl Invalidate for Cache {
    /// Memory forgets in any case.
    ///
    /// # Errors
    ///
    /// If Redis did not. It is told again until it was, and until then what it has of these tags is not used here.
    async fn invalidate(&self, tags: &[Tag]) -> Result<(), InvalidateError> {
        self.invalidate_in_doubt(tags, Duration::ZERO).await
    }
}

impl Inner {
    pub(super) fn invalidate_here(&self, tags: &[Tag], doubt: Duration) {
        self.doubt_here(tags, doubt);
        self.generations.invalidate(tags, self.clock.now());
        self.flights.detach(&self.generations);
    }

    fn doubt_here(&self, tags: &[Tag], doubt: Duration) {
        if !doubt.is_zero() {
            self.generations.doubt(tags, self.clock.now().after(doubt));
        }
    }

    /// How long the longest doubt of these tags will last.
    fn doubt_left(&self, tags: &[Tag]) -> Duration {
        self.generations.doubt_left(tags, self.clock.now())
    }
}
