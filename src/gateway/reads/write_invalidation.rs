//! Writes through the gateway invalidate what they may have changed: their client must not read what was before.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};

use crate::gateway::request::routing_table::InstanceRuntime;
use clerk_client::outbound::WriteOutcome;
use clerk_client::webhook::{Tag, tags_named_by, tags_of_write};

/// Whether Clerk says that the requested resource does not exist.
pub(in crate::gateway) fn is_gone(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// Clerk says that the requested resource does not exist: invalidates its cached responses, in all gateways.
pub(in crate::gateway) async fn invalidate_named(instance: &InstanceRuntime, template: &str, path: &str) {
    let tags = tags_named_by(template, path);
    if !tags.is_empty() {
        invalidate(instance, &tags, Duration::ZERO).await;
    }
}

/// How much longer than its attempt's timeout a write may still be executed.
const AFTER_TIMEOUT: Duration = Duration::from_secs(1);

/// A write in flight. A write whose client does not wait for the response may be executed all the same, and later: dropping
/// the guard invalidates what the write may change and keeps it out of the caches for a while.
pub(in crate::gateway) struct WriteGuard {
    instance: Arc<InstanceRuntime>,
    changes: Vec<Tag>,
}

impl WriteGuard {
    /// `None` if the request changes nothing.
    pub(in crate::gateway) fn of(
        instance: &Arc<InstanceRuntime>,
        method: &Method,
        template: &str,
        path: &str,
    ) -> Option<Self> {
        let changes = tags_of_write(method, template, path);
        (!changes.is_empty()).then(|| Self { instance: Arc::clone(instance), changes })
    }

    /// Invalidates what the write may have changed; call it before the response goes out.
    pub(in crate::gateway) async fn finish(mut self, outcome: WriteOutcome) {
        match outcome {
            // Clerk may say so of a token that is revoked already, by others.
            WriteOutcome::NotExecuted if self.changes.iter().any(Tag::is_of_verifications) => {
                invalidate(&self.instance, &self.changes, Duration::ZERO).await;
            }
            WriteOutcome::NotExecuted => {}
            WriteOutcome::Executed => invalidate(&self.instance, &self.changes, Duration::ZERO).await,
            WriteOutcome::Unknown => invalidate(&self.instance, &self.changes, self.doubt()).await,
        }
        self.changes.clear();
    }

    /// How long from now a write of unknown outcome may still be executed.
    fn doubt(&self) -> Duration {
        self.instance.policies.attempt_timeout + AFTER_TIMEOUT
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if !self.changes.is_empty() {
            let doubt = self.doubt();
            let caches = self.instance.state.caches_of(&self.changes);
            caches.for_each(|cache| cache.invalidate_in_doubt_soon(&self.changes, doubt));
        }
    }
}

async fn invalidate(instance: &InstanceRuntime, tags: &[Tag], doubt: Duration) {
    let caches = instance.state.caches_of(tags);
    for result in join_all(caches.map(|cache| cache.invalidate_in_doubt(tags, doubt))).await {
        if let Err(error) = result {
            tracing::warn!(
                clerk_instance = &*instance.name,
                %error,
                "failed to invalidate Redis after a write; retrying; other gateways may serve stale responses meanwhile"
            );
        }
    }
}
