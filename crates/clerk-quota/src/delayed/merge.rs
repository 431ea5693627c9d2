//! Combines current numbers with those of windows that run behind.

use crate::snapshot::{Basis, BucketSnapshot};

/// Combines the numbers of one bucket.
///
/// `live` knows what may be left now, from headers and from the requests of this process. `behind` has seen all
/// requests, and is older by the lateness. `None`: only reported requests use the bucket.
pub(super) fn merge(
    live: Option<BucketSnapshot>,
    behind: BucketSnapshot,
    is_sampled: bool,
    is_unreliable: bool,
) -> BucketSnapshot {
    let live = live.unwrap_or_else(|| BucketSnapshot {
        remaining: None,
        reset_at: None,
        blocked_until: None,
        to_exhaustion: None,
        throttled: Default::default(),
        basis: None,
        ..behind.clone()
    });
    let is_named = live.basis == Some(Basis::Headers);
    let basis = match (live.basis, behind.basis) {
        _ if is_named => live.basis,
        _ if is_sampled => Some(Basis::Sampled),
        (Some(Basis::Configured) | None, basis) => basis,
        (_, Some(basis)) if basis.knows_use() => Some(basis),
        (basis, _) => basis,
    };
    let peak = behind.usage_peak.filter(|_| !is_unreliable && (is_named || !is_sampled));
    let live_peak = live.usage_peak.filter(|_| live.basis.is_some_and(Basis::knows_use));
    BucketSnapshot {
        bucket: live.bucket,
        limit: if is_named { live.limit } else { behind.limit.or(live.limit) },
        remaining: live.remaining,
        reset_at: live.reset_at,
        window: if is_named { live.window } else { behind.window },
        basis,
        // Reports must not hide that probes stopped.
        sampled_at: live.sampled_at.or(behind.sampled_at),
        unseen: behind.unseen,
        usage_peak: [peak, live_peak].into_iter().flatten().reduce(f64::max),
        refused_at: live.refused_at.max(behind.refused_at),
        low_at: behind.low_at,
        blocked_until: live.blocked_until,
        to_exhaustion: live.to_exhaustion,
        windows: behind.windows,
        low_windows: behind.low_windows,
        exhausted_windows: behind.exhausted_windows,
        last_window: behind.last_window,
        window_usage: behind.window_usage,
        throttled: live.throttled,
    }
}
