//! Clerk's webhooks on the gateway's port. A webhook invalidates the caches of all instances.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Body;
use futures_util::future::join_all;
use http::{Request, Response};

use crate::gateway::accounting::access_log::AccessLog;
use clerk_client::cache::Cache;
use clerk_client::webhook::{
    Invalidate, InvalidateError, Tag, WebhookConfigError, WebhookOptions, WebhookStats, Webhooks,
};

/// The caches of all instances. The instance of a webhook need not be known: invalidating too much costs only requests.
#[derive(Debug, Clone, Default)]
pub(in crate::gateway) struct CacheSet {
    caches: Arc<ArcSwap<Vec<Cache>>>,
    log: Option<AccessLog>,
}

impl CacheSet {
    /// An empty set whose invalidations are logged.
    pub(in crate::gateway) fn new(log: Option<AccessLog>) -> Self {
        Self { caches: Arc::default(), log }
    }

    pub(in crate::gateway) fn set(&self, caches: Vec<Cache>) {
        self.caches.store(Arc::new(caches));
    }
}

impl Invalidate for CacheSet {
    async fn invalidate(&self, tags: &[Tag]) -> Result<(), InvalidateError> {
        let caches = self.caches.load_full();
        if let Some(log) = self.log.as_ref().filter(|_| !tags.is_empty()) {
            log.webhook(tags);
        }
        // Invalidate all caches, even if one fails.
        join_all(caches.iter().map(|cache| cache.invalidate(tags))).await.into_iter().collect()
    }
}

/// The webhook endpoint.
#[derive(Debug)]
pub(in crate::gateway) struct WebhookEndpoint {
    path: String,
    webhooks: Webhooks<CacheSet>,
}

impl WebhookEndpoint {
    pub(in crate::gateway) fn new(
        path: String,
        options: WebhookOptions,
        caches: CacheSet,
    ) -> Result<Self, WebhookConfigError> {
        Ok(Self { path, webhooks: Webhooks::new(options, caches)? })
    }

    /// The path of the endpoint.
    pub(in crate::gateway) fn path(&self) -> &str {
        &self.path
    }

    /// Whether a request is for the endpoint, and not for Clerk.
    pub(in crate::gateway) fn is_for(&self, path: &str) -> bool {
        path == self.path
    }

    pub(in crate::gateway) async fn handle(&self, request: Request<Body>) -> Response<Body> {
        self.webhooks.handle(request).await
    }

    pub(in crate::gateway) fn refresh_secrets(&self) {
        self.webhooks.refresh_secrets();
    }

    pub(in crate::gateway) fn stats(&self) -> WebhookStats {
        self.webhooks.stats()
    }
}
