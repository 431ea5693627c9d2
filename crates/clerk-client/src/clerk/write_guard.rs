//! What a write through the client invalidates in its cache.

use std::sync::Arc;
use std::time::Duration;

use super::cached_reads::ReadCache;
use crate::outbound::{ApiRequest, WriteOutcome};
use crate::webhook::{Tag, tags_of_write};

/// How much longer than its attempt's timeout a write may still be executed.
const AFTER_TIMEOUT: Duration = Duration::from_secs(1);

/// A write in flight. A write whose caller stops waiting may be executed all the same, and later: dropping the guard
/// invalidates what the write may change and keeps it out of the cache for a while.
pub(super) struct WriteGuard {
    cache: Arc<ReadCache>,
    changes: Vec<Tag>,
    /// How long a write of unknown outcome may still be executed.
    doubt: Duration,
}

impl WriteGuard {
    /// `None` if the request changes nothing.
    pub(super) fn new(cache: &Arc<ReadCache>, request: &ApiRequest, attempt_timeout: Duration) -> Option<Self> {
        let path = request.path.split('?').next().unwrap_or_default();
        let changes = tags_of_write(&request.method, request.route().template, path);
        let doubt = attempt_timeout.saturating_add(AFTER_TIMEOUT);
        (!changes.is_empty()).then(|| Self { cache: Arc::clone(cache), changes, doubt })
    }

    /// Invalidates what the write may have changed, before its caller sees the result.
    pub(super) async fn finish(mut self, outcome: WriteOutcome) {
        let doubt = match outcome {
            WriteOutcome::NotExecuted => None,
            WriteOutcome::Executed => Some(Duration::ZERO),
            WriteOutcome::Unknown => Some(self.doubt),
        };
        if let Some(doubt) = doubt
            && let Err(error) = self.cache.cache.invalidate_in_doubt(&self.changes, doubt).await
        {
            tracing::warn!(%error, "failed to invalidate Redis after a write; retrying");
        }
        self.changes.clear();
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if !self.changes.is_empty() {
            self.cache.cache.invalidate_in_doubt_soon(&self.changes, self.doubt);
        }
    }
}
