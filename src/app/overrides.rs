//! Follows the overrides of callers: those of other gateways, and their ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;

/// How long it takes other gateways to learn of an override, and limiters of the end of a cap.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Longest wait for the overrides in Redis before the gateway's port opens.
pub(super) const FIRST_OVERRIDES: Duration = Duration::from_secs(1);

/// Follows until `stop`.
pub(super) async fn follow_overrides(gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut ticks = interval(FOLLOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if stop.run_until_cancelled(gateway.follow_overrides()).await.is_none() {
            return;
        }
    }
}
