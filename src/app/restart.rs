//! Restores the requests sent before a restart.

use std::path::Path;
use std::sync::Arc;

use super::instances::Instances;
use crate::config::Config;
use crate::state::{Journal, JournalError};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;

/// Restores requests sent before the start and records further ones, if a folder is given. Without a folder, or if
/// another process uses it, the limiter starts empty, and the remaining quota is unknown for one window.
pub(super) fn restore(
    folder: Option<&Path>,
    config: &Config,
    instances: &mut Instances,
    ledger: &Ledger,
    clock: &Arc<Clock>,
) {
    if config.redis.is_none() && config.gateway.as_ref().is_some_and(|gateway| !gateway.sole) {
        tracing::info!(
            "the remaining quota is not shown unless Clerk sends quota headers: set gateway.sole: true if this is the \
             only gateway, or give all gateways the same Redis"
        );
    }
    let Some(folder) = folder else {
        if config.gateway.is_some() && config.redis.is_none() {
            tracing::info!(
                "no state folder (--storage.path): requests sent before this start are unknown, and the \
                 remaining quota is shown after one window"
            );
        }
        return;
    };
    match Journal::open(folder, Arc::clone(clock)) {
        Ok((journal, restored)) => {
            for instance in &config.instances {
                let Some(handle) = ledger.instance(&instance.name) else { continue };
                let mut handle = handle.lock();
                if let Some(since) = restored.since {
                    handle.count_since(since);
                }
                for (bucket, entity, sent) in restored.of(&instance.name) {
                    // The time of the response is unknown: Clerk may have counted the request at any time since.
                    handle.restore(bucket, entity, sent, clock.now());
                }
            }
            let requests = restored.len();
            tracing::info!(folder = %folder.display(), requests, "restored requests sent before this start");
            instances.journal = Some((Arc::new(journal), restored));
        }
        Err(error @ (JournalError::Locked(_) | JournalError::Unusable { .. })) => {
            tracing::warn!(%error, "running without state: requests sent before this start are unknown");
        }
    }
}
