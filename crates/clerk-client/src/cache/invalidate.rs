//! Invalidation: Redis first, then memory; retried if Redis fails.

use std::sync::Arc;
use std::time::Duration;

use super::Cache;
use super::lookup::Inner;
use crate::webhook::{ExplainedError, Invalidate, InvalidateError, Tag};

/// First and longest delay between retries. A refusal tends to last, and each attempt also invalidates entries stored
/// since.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

impl Cache {
    /// Same as [`invalidate`](Invalidate::invalidate), with memory at once and Redis in the background.
    pub fn invalidate_soon(&self, tags: &[Tag]) {
        self.invalidate_in_doubt_soon(tags, Duration::ZERO);
    }

    /// Same as [`invalidate_in_doubt`](Self::invalidate_in_doubt), with memory at once and Redis in the background.
    pub fn invalidate_in_doubt_soon(&self, tags: &[Tag], doubt: Duration) {
        self.0.invalidate_here(tags, doubt);
        if self.is_shared() {
            let (cache, tags) = (self.clone(), tags.to_vec());
            // `invalidate_in_doubt` counts the failures.
            self.0.in_background(async move { cache.invalidate_in_doubt(&tags, doubt).await.unwrap_or_default() });
        }
    }

    /// Invalidates for a write with unknown outcome: one that timed out, was cancelled or got no response.
    ///
    /// Such a write may still take effect within `doubt`. Until then, responses with these tags are not stored, because
    /// they may predate the change. For a minute after that, they are stored for
    /// [`CacheOptions::read_after_write_grace`](super::CacheOptions::read_after_write_grace) at most, as after any
    /// change. Other processes on the same Redis do the same once they receive the message.
    ///
    /// # Errors
    ///
    /// Same as [`invalidate`](Invalidate::invalidate).
    pub async fn invalidate_in_doubt(&self, tags: &[Tag], doubt: Duration) -> Result<(), InvalidateError> {
        self.subscribe();
        let inner = &self.0;
        inner.counters.invalidations.add();
        // Before Redis: responses fetched meanwhile must not be stored.
        inner.doubt_here(tags, doubt);
        let result = match &inner.redis_tier {
            Some(shared) => shared.invalidate(tags, doubt).await.inspect_err(|_| {
                inner.counters.redis.errors.add();
                self.retry_invalidation(tags);
            }),
            None => Ok(()),
        };
        // After Redis: otherwise a lookup could copy an outdated entry from Redis into memory meanwhile.
        inner.invalidate_here(tags, doubt);
        // Redis errors contain no secrets and no values, so they may be shown to the sender of the webhook.
        result.map_err(|error| InvalidateError::from(ExplainedError::new(error.to_string())))
    }

    /// Retries in the background until Redis accepts the invalidation.
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
    /// Invalidates memory in any case.
    ///
    /// # Errors
    ///
    /// Returns an error if Redis did not accept it. The invalidation is then retried in the background; until it
    /// succeeds, this process does not read these tags from Redis.
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

    /// Remaining time of the longest doubt of these tags.
    fn doubt_left(&self, tags: &[Tag]) -> Duration {
        self.generations.doubt_left(tags, self.clock.now())
    }
}
