//! The budgets of all instances, and the record of their use.

use std::collections::HashMap;
use std::sync::Arc;

use super::clock::Epoch;
use super::limiter::{Meter, Verdict};
use super::limits::{Quota, SimulatedBucket};
use super::options::LimiterKind;
use super::record::Record;

/// Number of meters from which unused ones are removed.
const SWEEP_AT: usize = 8_192;

/// Maximum length of an entity's name: it comes from the path, so a client chooses its length.
const ENTITY_MAX_BYTES: usize = 128;

/// The budget that a request counts against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MeterKey {
    /// Index of the instance in the key ring.
    pub(super) instance: usize,
    pub(super) bucket: SimulatedBucket,
    /// The user, organization or membership that owns the budget; `None` for budgets of a whole instance.
    pub(super) entity: Option<Box<str>>,
}

impl MeterKey {
    pub(super) fn new(instance: usize, bucket: SimulatedBucket, entity: Option<&str>) -> Self {
        let entity = entity.map(|entity| {
            let end = (0..=ENTITY_MAX_BYTES.min(entity.len())).rev().find(|end| entity.is_char_boundary(*end));
            Box::from(&entity[..end.unwrap_or(0)])
        });
        Self { instance, bucket, entity }
    }
}

/// All budgets that were used recently.
#[derive(Debug)]
pub(super) struct Meters {
    kind: LimiterKind,
    meters: HashMap<Arc<MeterKey>, Meter>,
    sweep_at: usize,
    record: Record,
}

impl Meters {
    pub(super) fn new(kind: LimiterKind, record: Record) -> Self {
        Self { kind, meters: HashMap::new(), sweep_at: SWEEP_AT, record }
    }

    /// Counts one request at `now` and records the result. `quota` is used if the budget is new.
    pub(super) fn take(&mut self, key: MeterKey, quota: Quota, now: Epoch) -> Verdict {
        if self.meters.len() >= self.sweep_at {
            self.meters.retain(|_, meter| !meter.is_untouched(now));
            self.sweep_at = SWEEP_AT.max(self.meters.len() * 2);
        }
        let key = match self.meters.get_key_value(&key) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(key),
        };
        let meter = self.meters.entry(Arc::clone(&key)).or_insert_with(|| Meter::new(self.kind, quota, now));
        let verdict = meter.take(now);
        self.record.add(&key, now, &verdict);
        verdict
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Fills every budget and clears the record.
    pub(super) fn reset(&mut self) {
        self.meters.clear();
        self.sweep_at = SWEEP_AT;
        self.record.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn meters() -> Meters {
        Meters::new(LimiterKind::FixedWindow, Record::new(100, 100))
    }

    #[test]
    fn entities_instances_and_buckets_have_separate_budgets() {
        let mut meters = meters();
        let quota = Quota::new(1, Duration::from_secs(10));
        let now = Duration::from_secs(100);
        for (instance, bucket, entity) in [
            (0, SimulatedBucket::UserUpdate, Some("a")),
            (0, SimulatedBucket::UserUpdate, Some("b")),
            (1, SimulatedBucket::UserUpdate, Some("a")),
            (0, SimulatedBucket::OrganizationUpdate, Some("a")),
            (0, SimulatedBucket::Instance, None),
        ] {
            assert!(meters.take(MeterKey::new(instance, bucket, entity), quota, now).allowed);
            assert!(!meters.take(MeterKey::new(instance, bucket, entity), quota, now).allowed);
        }
    }

    #[test]
    fn unused_entity_budgets_are_removed() {
        let mut meters = meters();
        let quota = Quota::new(10, Duration::from_secs(10));
        for second in 0..100_000 {
            let key = MeterKey::new(0, SimulatedBucket::UserUpdate, Some(&format!("user_{second}")));
            meters.take(key, quota, Duration::from_secs(second));
        }
        assert!(meters.meters.len() <= SWEEP_AT, "{}", meters.meters.len());
    }

    #[test]
    fn long_entity_is_truncated_at_a_character() {
        let key = MeterKey::new(0, SimulatedBucket::UserUpdate, Some(&"é".repeat(1_000)));
        assert_eq!(key.entity.unwrap().len(), ENTITY_MAX_BYTES);
        let odd = format!("a{}", "é".repeat(1_000));
        assert_eq!(
            MeterKey::new(0, SimulatedBucket::UserUpdate, Some(&odd)).entity.unwrap().len(),
            ENTITY_MAX_BYTES - 1
        );
    }
}
