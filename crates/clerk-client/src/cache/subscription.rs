//! Subscription to the invalidations of other processes, and what happens when it breaks.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::Cache;
use super::lookup::Inner;
use crate::redis::SubscriptionEvent;

impl Cache {
    /// Starts the subscription, once there is a runtime.
    pub(super) fn subscribe(&self) {
        let Some(shared) = &self.0.redis_tier else { return };
        if self.0.is_listening.load(Ordering::Relaxed) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if self.0.is_listening.swap(true, Ordering::SeqCst) {
            return;
        }
        let (mut subscription, ear) = (shared.subscribe(), SubscriptionGuard(Arc::downgrade(&self.0)));
        self.0.tasks.lock().spawn(async move {
            loop {
                let event = subscription.next().await;
                let Some(inner) = ear.0.upgrade() else { return };
                inner.on_event(event);
            }
        });
    }
}

/// Held by the subscription task: marks the cache as disconnected if its runtime ends.
struct SubscriptionGuard(Weak<Inner>);

impl Drop for SubscriptionGuard {
    fn drop(&mut self) {
        let Some(inner) = self.0.upgrade() else { return };
        if inner.is_connected.load(Ordering::SeqCst) {
            inner.on_event(SubscriptionEvent::Lost);
        }
        inner.is_listening.store(false, Ordering::SeqCst);
    }
}

impl Inner {
    fn on_event(&self, event: SubscriptionEvent) {
        match event {
            SubscriptionEvent::Message(message) => {
                if let Some((tags, doubt)) = self.redis_tier.as_ref().and_then(|shared| shared.read(&message)) {
                    self.counters.heard.add();
                    self.invalidate_here(&tags, doubt);
                }
            }
            SubscriptionEvent::Lost => {
                self.is_connected.store(false, Ordering::SeqCst);
                self.counters.disconnects.add();
                self.clear_memory();
                tracing::warn!("lost the Redis invalidation subscription; cleared the in-memory cache");
            }
            SubscriptionEvent::Restored => {
                // Clear before setting the flag: entries stored while disconnected may have missed invalidations.
                self.clear_memory();
                self.is_connected.store(true, Ordering::SeqCst);
                tracing::info!("subscribed to invalidations in Redis");
            }
        }
    }

    fn clear_memory(&self) {
        self.generations.begin_epoch();
        self.memory.clear();
    }
}
