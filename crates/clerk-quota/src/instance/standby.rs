//! Instances that another process probes.

use super::InstanceLedger;
use crate::probe_stats::ProbeStats;
use crate::snapshot::InstanceSnapshot;
use crate::{Moment, Source};

impl InstanceLedger {
    /// Sets whether another process probes the instance, and this one does not.
    ///
    /// If only probes observe the instance, a standby knows nothing of it: its numbers are those of a new ledger, and it
    /// counts from 0 when it takes over. Otherwise only the probes' numbers start over.
    pub fn set_standby(&mut self, is_standby: bool) {
        if std::mem::replace(&mut self.is_standby, is_standby) == is_standby {
            return;
        }
        if is_standby {
            self.forget_probes();
            return;
        }
        if self.is_observed_by_probes_only() {
            let restarts = self.restarts.wrapping_add(1);
            let metered = std::mem::take(&mut self.metered);
            *self = Self { restarts, metered, ..Self::new(self.settings.clone()) };
        } else {
            self.probes = ProbeStats::default();
        }
    }

    /// What only probes find, or found last, is outdated soon.
    fn forget_probes(&mut self) {
        (self.users, self.users_active_30d) = (None, None);
        let newest = self.observed_at.iter().flatten().max();
        if self.observed_at[Source::Probe.index()].as_ref() == newest {
            (self.up, self.key_valid, self.trouble, self.clock_offset_seconds) = (None, None, None, None);
        }
    }

    fn is_observed_by_probes_only(&self) -> bool {
        self.settings.sources.iter().all(|source| *source == Source::Probe)
    }

    /// Of a standby that knows nothing of the instance.
    pub(super) fn snapshot_of_standby(&self, now: Moment) -> Option<InstanceSnapshot> {
        let is_unaware = self.is_standby && self.is_observed_by_probes_only();
        let nothing = is_unaware.then(|| Self::new(self.settings.clone()).snapshot(now));
        nothing.map(|nothing| InstanceSnapshot { is_standby: true, ..nothing })
    }
}
