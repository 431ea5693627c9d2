//! Takes and renews the leases of the right to probe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::metrics::{ConfigStatus, LeaseCounts};
use crate::probe::{LeaseReply, LeaseRole, ProbeLease, Probes};
use crate::state::SharedLeases;
use clerk_client::redis::{RedisClient, RedisClientError};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;

/// Questions to Redis at the same time.
const MAX_CONCURRENT: usize = 32;

/// Longest time between two looks at what is due.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Maximum wait for Redis when the leases are given up.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

/// The leases of the configured instances.
#[derive(Debug)]
pub(super) struct Leases {
    store: SharedLeases,
    clock: Arc<Clock>,
    leases: Mutex<BTreeMap<Arc<str>, Arc<ProbeLease>>>,
    /// Told when there are other instances.
    changed: Notify,
}

/// What is told of changes.
pub(super) struct Affected {
    pub(super) ledger: Arc<Ledger>,
    pub(super) probes: Arc<Probes>,
    pub(super) status: Arc<ConfigStatus>,
}

impl Leases {
    /// No leases yet.
    pub(super) fn new(client: RedisClient, clock: Arc<Clock>) -> Self {
        Self { store: SharedLeases::new(client), clock, leases: Mutex::default(), changed: Notify::new() }
    }

    /// The lease of an instance, and whether it is new.
    pub(super) fn of(&self, instance: &Arc<str>, length: Duration) -> (Arc<ProbeLease>, bool) {
        let mut leases = self.leases.lock();
        if let Some(lease) = leases.get(instance) {
            lease.set_length(length);
            return (Arc::clone(lease), false);
        }
        let lease = Arc::new(ProbeLease::new(length, self.clock.now()));
        leases.insert(Arc::clone(instance), Arc::clone(&lease));
        self.changed.notify_one();
        (lease, true)
    }

    /// Forgets the leases of instances that have none in this configuration; they end by themselves.
    pub(super) fn retain(&self, config: &Config) {
        let leased = config.instances.iter().filter(|instance| instance.probe.lease_in_use().is_some());
        let leased: BTreeSet<&Arc<str>> = leased.map(|instance| &instance.name).collect();
        self.leases.lock().retain(|name, _| leased.contains(name));
    }

    /// Keeps the leases until `stop`; then gives them up, so that another process takes over while this one leaves, until
    /// `closing`.
    pub(super) async fn run(self: Arc<Self>, affected: Affected, stop: CancellationToken, closing: CancellationToken) {
        while stop.run_until_cancelled(self.look(&affected)).await.is_some() {}
        if timeout(RELEASE_WITHIN, self.release()).await.is_err() {
            tracing::debug!("failed to give up the leases: no response; they end by themselves");
        }
        while !closing.is_cancelled() {
            self.leases.lock().values().for_each(|lease| lease.give_up(self.clock.now()));
            self.tell(&affected);
            closing.run_until_cancelled(sleep(LONGEST_SLEEP)).await;
        }
    }

    /// Asks for what is due, tells what changed, and waits until something else is due.
    async fn look(&self, affected: &Affected) {
        self.ask().await;
        self.tell(affected);
        let due = self.leases.lock().values().map(|lease| lease.due()).min();
        let wait = due.map_or(LONGEST_SLEEP, |due| due.since(self.clock.now()).min(LONGEST_SLEEP));
        tokio::select! {
            () = sleep(wait.max(Duration::from_millis(1))) => {}
            () = self.changed.notified() => {}
        }
    }

    async fn ask(&self) {
        let now = self.clock.now();
        let is_due = |(_, lease): &(&Arc<str>, &Arc<ProbeLease>)| lease.due() <= now;
        let copied = |(name, lease): (&Arc<str>, &Arc<ProbeLease>)| (Arc::clone(name), Arc::clone(lease));
        let due: Vec<_> = self.leases.lock().iter().filter(is_due).map(copied).collect();
        let asked = due.into_iter().map(|(name, lease)| async move {
            let asked = self.clock.now();
            let length = lease.length();
            let reply = match self.store.take(&name, length).await {
                Ok(None) => LeaseReply::Held(length),
                Ok(Some(left)) => LeaseReply::HeldByOther(left),
                Err(error) => {
                    tracing::debug!(clerk_instance = &*name, %error, "the lease is not known");
                    let is_late = matches!(error, RedisClientError::Timeout { .. });
                    if is_late { LeaseReply::Late } else { LeaseReply::Unknown }
                }
            };
            lease.replied(asked, self.clock.now(), reply, fastrand::f64());
        });
        futures_util::stream::iter(asked).buffer_unordered(MAX_CONCURRENT).for_each(async |()| {}).await;
    }

    /// Tells the ledger, the probes, the metrics and the log.
    fn tell(&self, affected: &Affected) {
        let now = self.clock.now();
        let mut changes = Vec::new();
        // Locked until all is told: a reload that ends a lease comes before or after.
        let leases = self.leases.lock();
        for (name, lease) in &*leases {
            let Some((before, role)) = lease.change(now) else { continue };
            if let Some(handle) = affected.ledger.instance(name) {
                handle.lock().set_standby(role == LeaseRole::Standby);
            }
            if role == LeaseRole::Standby {
                affected.probes.stand_by();
            } else if !matches!(before, LeaseRole::Holder | LeaseRole::Alone) {
                affected.probes.take_over(name);
            }
            changes.push((Arc::clone(name), role));
        }
        let of = |role| leases.values().filter(|lease| lease.role(now) == role).count();
        let counts =
            LeaseCounts { held: of(LeaseRole::Holder), standby: of(LeaseRole::Standby), alone: of(LeaseRole::Alone) };
        affected.status.set_leases((!leases.is_empty()).then_some(counts));
        drop(leases);
        log(&changes);
    }

    async fn release(&self) {
        let held: Vec<_> = self.leases.lock().keys().map(Arc::clone).collect();
        let released = held.into_iter().map(|name| async move {
            // The lease then ends by itself.
            let _ = self.store.release(&name).await;
        });
        futures_util::stream::iter(released).buffer_unordered(MAX_CONCURRENT).for_each(async |()| {}).await;
    }
}

/// One line for each kind of change: there may be thousands of instances.
fn log(changes: &[(Arc<str>, LeaseRole)]) {
    let names = |role: LeaseRole| {
        let names: Vec<&str> = changes.iter().filter(|(_, it)| *it == role).map(|(name, _)| &**name).collect();
        (!names.is_empty()).then(|| (names.len(), names[..names.len().min(MOST_NAMES)].join(" ")))
    };
    if let Some((instances, first)) = names(LeaseRole::Holder) {
        tracing::info!(instances, first, "this process probes: it has the lease");
    }
    if let Some((instances, first)) = names(LeaseRole::Standby) {
        tracing::info!(instances, first, "standby: another process probes");
    }
    if let Some((instances, first)) = names(LeaseRole::Alone) {
        tracing::warn!(
            instances,
            first,
            "Redis does not answer for the lease: this process probes, and others may too"
        );
    }
}

/// Names of instances in a line of the log.
const MOST_NAMES: usize = 10;
