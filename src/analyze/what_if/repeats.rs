//! Reads of what was read a short time before, whatever changed in between.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::TTLS;
use clerk_quota::Moment;

/// Resources that are remembered.
const MAX_RESOURCES: usize = 1 << 17;

/// How long a read makes the next one a repetition: the longest lifetime that is tried.
const WITHIN: Duration = TTLS[TTLS.len() - 1];

/// When each resource was last read.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// In milliseconds since the epoch.
    last: FxHashMap<u64, u64>,
    count: u64,
}

impl Repeats {
    pub(super) fn read(&mut self, resource: u64, at: Moment) {
        let now = millis(at.since_epoch());
        if let Some(last) = self.last.insert(resource, now)
            && now.saturating_sub(last) <= millis(WITHIN)
        {
            self.count += 1;
        }
        if self.last.len() > MAX_RESOURCES {
            self.forget(now);
        }
    }

    /// The repeated reads.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Forgets what is too old to be repeated; if that is little, the older half, which makes the count a lower bound.
    fn forget(&mut self, now: u64) {
        let mut earliest = now.saturating_sub(millis(WITHIN));
        if self.last.values().filter(|last| **last >= earliest).count() > MAX_RESOURCES / 2 {
            let mut times: Vec<u64> = self.last.values().copied().collect();
            let middle = times.len() / 2;
            earliest = *times.select_nth_unstable(middle).1 + 1;
        }
        self.last.retain(|_, last| *last >= earliest);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
