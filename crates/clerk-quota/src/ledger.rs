//! The ledger of all configured instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::Moment;
use super::instance::InstanceLedger;
use super::settings::Settings;
use super::snapshot::{BucketSnapshot, InstanceSnapshot};

/// Distinct unused buckets that a snapshot shares: about the number of buckets times a few limits.
const UNUSED_KINDS: usize = 64;

/// One instance's ledger, shared between writers and readers. Locks are held for microseconds only.
pub type Handle = Arc<Mutex<InstanceLedger>>;

/// The instances' ledgers by alias. Lookups never block; each instance has its own lock.
#[derive(Debug, Default)]
pub struct Ledger {
    instances: ArcSwap<BTreeMap<Arc<str>, Handle>>,
}

impl Ledger {
    /// Creates a ledger for these instances.
    #[must_use]
    pub fn new(instances: impl IntoIterator<Item = Settings>) -> Self {
        let ledger = Self::default();
        ledger.configure(instances);
        ledger
    }

    /// Replaces the configured instances. Instances that stay keep their counters; the others are dropped.
    pub fn configure(&self, instances: impl IntoIterator<Item = Settings>) {
        let current = self.instances.load();
        let mut next = BTreeMap::new();
        for settings in instances {
            let name = Arc::clone(&settings.name);
            let handle = match current.get(&name) {
                Some(handle) => {
                    handle.lock().reconfigure(settings);
                    Arc::clone(handle)
                }
                None => Arc::new(Mutex::new(InstanceLedger::new(settings))),
            };
            next.insert(name, handle);
        }
        self.instances.store(Arc::new(next));
    }

    /// Returns the ledger of an instance. Frequent writers should store the handle.
    #[must_use]
    pub fn instance(&self, name: &str) -> Option<Handle> {
        self.instances.load().get(name).map(Arc::clone)
    }

    /// Returns the ledgers of all instances, by alias.
    #[must_use]
    pub fn instances(&self) -> Vec<(Arc<str>, Handle)> {
        self.instances.load().iter().map(|(name, handle)| (Arc::clone(name), Arc::clone(handle))).collect()
    }

    /// Returns the numbers of all instances at `now`, by alias.
    #[must_use]
    pub fn snapshot(&self, now: Moment) -> Vec<InstanceSnapshot> {
        let mut unused: Vec<Arc<BucketSnapshot>> = Vec::new();
        let snapshot = |handle: &Handle| {
            let mut instance = handle.lock().snapshot(now);
            for bucket in instance.buckets.iter_mut().filter(|bucket| bucket.is_unused()) {
                match unused.iter().find(|known| *known == bucket) {
                    Some(known) => *bucket = Arc::clone(known),
                    None if unused.len() < UNUSED_KINDS => unused.push(Arc::clone(bucket)),
                    None => {}
                }
            }
            instance
        };
        self.instances.load().values().map(snapshot).collect()
    }
}
