//! What the exporter's own jobs found: probes, and counts of users.

use std::time::Duration;

use super::InstanceLedger;
use crate::Moment;
use crate::condition::Trouble;
use crate::probe_stats::{ProbeFailure, ProbeSkip};

impl InstanceLedger {
    /// Records the end of a probe: when it succeeded, or why it failed.
    pub fn record_probe(&mut self, duration: Duration, outcome: Result<Moment, ProbeFailure>) {
        self.probes.total += 1;
        self.probes.duration_seconds.observe(duration.as_secs_f64());
        match outcome {
            Ok(at) => self.probes.last_success = self.probes.last_success.max(Some(at)),
            Err(reason) => {
                self.probes.failures[reason as usize] += 1;
                // A 429 is a usable response: it shows how much is left.
                if reason != ProbeFailure::Throttled {
                    self.up = Some(false);
                    self.trouble = Trouble::of_failure(reason).or(self.trouble);
                }
            }
        }
    }

    /// Counts probes that were due but not made.
    pub const fn record_skipped_probes(&mut self, reason: ProbeSkip, count: u64) {
        self.probes.skipped[reason as usize] += count;
    }

    /// Records the number of users, and of those active in the last 30 days.
    pub fn record_users(&mut self, users: Option<u64>, active_30d: Option<u64>) {
        self.users = users.or(self.users);
        self.users_active_30d = active_30d.or(self.users_active_30d);
    }
}
