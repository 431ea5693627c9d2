//! The way of an invalidation: Redis first, then memory, and again where Redis did not hear of it.

use std::sync::Arc;
use std::time::Duration;

use super::Cache;
use super::lookup::Inner;
use crate::webhook::{Invalidate, InvalidateError, Tag};

/// Time between attempts to tell Redis what it could not be told.
const TELL_AGAIN: Duration = Duration::from_millis(500);

impl Cache {
    /// [`invalidate`](Invalidate::invalidate) for whoever cannot wait: memory forgets at once, Redis soon.
    pub fn invalidate_soon(&self, tags: &[Tag]) {
        self.0.invalidate_here(tags);
        if self.is_shared() {
            let (cache, tags) = (self.clone(), tags.to_vec());
            // What goes wrong is counted there.
            self.0.in_background(async move { cache.invalidate(&tags).await.unwrap_or_default() });
        }
    }

    /// Sees to it that Redis is told of these tags.
    fn retry_invalidation(&self, tags: &[Tag]) {
        if !self.0.pending_invalidations.push(tags) {
            return;
        }
        let inner = Arc::downgrade(&self.0);
        self.0.in_background(async move {
            loop {
                tokio::time::sleep(TELL_AGAIN).await;
                let Some(inner) = inner.upgrade() else { return };
                let Some(shared) = &inner.redis_tier else { return };
                let tags = inner.pending_invalidations.tags();
                if shared.invalidate(&tags).await.is_ok() && inner.pending_invalidations.ack(&tags) {
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
        self.subscribe();
        let inner = &self.0;
        inner.counters.invalidations.add();
        let forgotten = match &inner.redis_tier {
            Some(shared) => shared.invalidate(tags).await.inspect_err(|_| {
                inner.counters.redis.errors.add();
                self.retry_invalidation(tags);
            }),
            None => Ok(()),
        };
        // After Redis: until then somebody could find an old answer there and take it into memory.
        inner.invalidate_here(tags);
        Ok(forgotten?)
    }
}

impl Inner {
    pub(super) fn invalidate_here(&self, tags: &[Tag]) {
        self.generations.invalidate(tags, self.clock.now());
        self.flights.detach(&self.generations);
    }
}
