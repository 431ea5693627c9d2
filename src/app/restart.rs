//! After a start: what was sent before it.

use std::path::Path;
use std::sync::Arc;

use super::instances::Instances;
use crate::config::Config;
use crate::state::{Journal, JournalError};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;

/// Takes over what was sent before the start, and writes down what is sent from now on, where a folder is given. Without
/// one, or where another process has it, the limiter starts empty, and what is left is not known for a window.
pub(super) fn restore(
    folder: Option<&Path>,
    config: &Config,
    instances: &mut Instances,
    ledger: &Ledger,
    clock: &Arc<Clock>,
) {
    if config.gateway.as_ref().is_some_and(|gateway| !gateway.sole && gateway.cache.redis_url.is_none()) {
        tracing::info!(
            "where Clerk sends no quota headers, what is left is not shown: say gateway.sole: true if this is the only \
             gateway, or give all gateways one Redis"
        );
    }
    let Some(folder) = folder else {
        if config.gateway.as_ref().is_some_and(|gateway| gateway.cache.redis_url.is_none()) {
            tracing::info!(
                "no folder for state is given (--storage.path): requests from before this start are not known, and what \
                 is left is shown once a window has passed"
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
                    // Its end is not known: it may have been counted at any time since.
                    handle.restore(bucket, entity, sent, clock.now());
                }
            }
            let requests = restored.len();
            tracing::info!(folder = %folder.display(), requests, "requests from before this start are taken over");
            instances.journal = Some((Arc::new(journal), restored));
        }
        Err(error @ (JournalError::Locked(_) | JournalError::Unusable { .. })) => {
            tracing::warn!(%error, "running without state: requests from before this start are not known");
        }
    }
}
