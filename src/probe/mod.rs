//! Probing: sends a request to Clerk periodically, so that the response headers show the remaining quota.
//!
//! `schedule` determines what is due, `state` and `lease` whether to run it, and `prober` runs it for one instance. No
//! error here ends the process.

mod advice;
mod cron_table;
mod lease;
mod prober;
mod recording;
mod schedule;
mod state;
mod story;
mod timetable;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use advice::{hint, request_hint};
pub use lease::{LeaseReply, LeaseRole, ProbeLease};
pub(crate) use prober::log_suspension;
pub use prober::{Finding, ProbeStory, probe_once, probe_recorded};
pub use schedule::{ScheduleEntry, Trigger};
pub use timetable::{Due, Task, TaskKey};

use clerk_client::outbound::Outbound;
use clerk_quota::ProbeSkip;
use prober::Prober;

/// Maximum number of concurrent probes. Each takes a connection and a file descriptor.
const MAX_CONCURRENT: usize = 256;

/// The probing options of an instance.
#[derive(Debug, Clone)]
pub struct ProbeOptions {
    /// Alias of the instance.
    pub name: Arc<str>,
    /// When probes are due; `None`: never.
    pub trigger: Option<Trigger>,
    /// Time between probes; for a cron expression, the longest.
    pub interval: Duration,
    /// Deadline of one probe, from the queue to the last byte.
    pub timeout: Duration,
    /// Path and query of the request, a GET.
    pub path: String,
    /// Whether a probe is skipped while other traffic is observed.
    pub only_when_idle: bool,
    /// When users are counted; `None`: never.
    pub count_users: Option<Trigger>,
    /// Whether the last probe is kept step by step. Each probe opens a connection of its own then.
    pub keeps_story: bool,
    /// The lease that decides whether this process probes; `None`: it does.
    pub lease: Option<Arc<ProbeLease>>,
    /// The outbound client of the instance.
    pub outbound: Arc<Outbound>,
}

/// The probing of all instances.
#[derive(Debug)]
pub struct Probes {
    probers: ArcSwap<BTreeMap<Arc<str>, Arc<Prober>>>,
    plan: watch::Sender<Arc<Vec<ScheduleEntry>>>,
    /// Tasks that are due at once, whatever the schedule says.
    extra: (mpsc::UnboundedSender<Due>, Mutex<Option<mpsc::UnboundedReceiver<Due>>>),
    polled: watch::Sender<bool>,
}

impl Probes {
    /// Returns a prober for these instances. It is idle until [`Probes::run`].
    #[must_use]
    pub fn new(instances: Vec<ProbeOptions>) -> Arc<Self> {
        let (extra, extra_due) = mpsc::unbounded_channel();
        let probes = Self {
            probers: ArcSwap::default(),
            plan: watch::Sender::new(Arc::default()),
            extra: (extra, Mutex::new(Some(extra_due))),
            polled: watch::Sender::new(false),
        };
        probes.configure(instances);
        Arc::new(probes)
    }

    /// Replaces the instances. Unchanged ones keep their phase, their backoff and a probe in flight.
    pub fn configure(&self, instances: Vec<ProbeOptions>) {
        let old = self.probers.load();
        let mut probers = BTreeMap::new();
        let mut plan = Vec::new();
        // Standbys without a lease from now on.
        let mut freed = Vec::new();
        for options in instances {
            let key = |task| TaskKey { instance: Arc::clone(&options.name), task };
            if let Some(trigger) = &options.trigger {
                plan.push(ScheduleEntry { key: key(Task::Probe), trigger: trigger.clone() });
            }
            if let Some(trigger) = &options.count_users {
                plan.push(ScheduleEntry { key: key(Task::CountUsers), trigger: trigger.clone() });
            }
            let name = Arc::clone(&options.name);
            let before = old.get(&name).map(Arc::as_ref);
            if options.lease.is_none() && before.is_some_and(|before| !before.has_lease()) {
                freed.push(Arc::clone(&name));
            }
            probers.insert(name, Arc::new(Prober::new(options, before)));
        }
        if probers.values().all(|prober| !prober.ever_probes()) {
            self.polled();
        }
        self.probers.store(Arc::new(probers));
        self.plan.send_replace(Arc::new(plan));
        freed.iter().for_each(|name| self.take_over(name));
    }

    /// Probes an instance at once, and counts its users if they are counted: this process takes over from another one.
    pub fn take_over(&self, instance: &Arc<str>) {
        let Some(prober) = self.probers.load().get(instance).cloned() else { return };
        for task in prober.tasks() {
            // Fails only if the probing has ended.
            let _ = self.extra.0.send(Due { key: TaskKey { instance: Arc::clone(instance), task }, missed: 0 });
        }
    }

    /// The last probe of an instance step by step, as text; `None` if there is no such instance. Sends nothing.
    #[must_use]
    pub fn story(&self, instance: &str) -> Option<String> {
        self.probers.load().get(instance).map(|prober| prober.story())
    }

    /// The names of the instances.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        self.probers.load().keys().cloned().collect()
    }

    /// Records that another process probes an instance, so that this one need not.
    pub fn stand_by(&self) {
        self.polled();
    }

    /// Whether a probe has finished, successfully or not, or was not needed, so that the metrics have the values that this
    /// process can give them.
    #[must_use]
    pub fn has_polled(&self) -> bool {
        *self.polled.borrow()
    }

    /// Probes until `stop`; then waits for probes in flight, up to their deadlines.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (queue, mut due) = mpsc::channel(1024);
        let slots = Arc::new(Semaphore::new(MAX_CONCURRENT));
        let mut running = JoinSet::new();
        let clock = self.probers.load().values().next().map(|prober| prober.clock());
        let clock = clock.unwrap_or_default();
        running.spawn(schedule::run(self.plan.subscribe(), queue, clock, stop.clone()));
        let Some(mut extra) = self.extra.1.lock().take() else { return };
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(finished) = running.join_next() => report_panic(finished),
                Some(due) = due.recv() => self.start(due, &slots, &mut running),
                Some(due) = extra.recv() => self.start(due, &slots, &mut running),
            }
        }
        // Dropping the queue ends the schedule.
        drop(due);
        while let Some(finished) = running.join_next().await {
            report_panic(finished);
        }
    }

    fn start(self: &Arc<Self>, due: Due, slots: &Arc<Semaphore>, running: &mut JoinSet<()>) {
        let Some(prober) = self.probers.load().get(&due.key.instance).cloned() else { return };
        if !prober.has_lease() {
            return;
        }
        prober.missed(due.key.task, due.missed);
        let turn = match prober.admit(due.key.task) {
            Ok(turn) => turn,
            Err(reason) => {
                if reason == ProbeSkip::Fresh {
                    // Other traffic keeps the numbers fresh, so that the first probe may be long in coming.
                    self.polled();
                }
                return;
            }
        };
        let queued_at = Instant::now();
        let (slots, probes) = (Arc::clone(slots), Arc::clone(self));
        running.spawn(async move {
            // The semaphore is never closed; the probe's deadline covers this wait.
            let Ok(slot) = slots.acquire_owned().await else { return };
            if !prober.has_lease() {
                return;
            }
            match due.key.task {
                Task::Probe => prober.probe(queued_at).await,
                Task::CountUsers => prober.count_users().await,
            }
            drop(slot);
            drop(turn);
            probes.polled();
        });
    }

    fn polled(&self) {
        self.polled.send_if_modified(|polled| !std::mem::replace(polled, true));
    }
}

fn report_panic(finished: Result<(), tokio::task::JoinError>) {
    if let Err(error) = finished
        && error.is_panic()
    {
        tracing::error!("bug: a probe panicked; please report it. Probing continues");
    }
}
