//! A stand-in for Clerk's Backend API with its rate limiter.
//!
//! The demo, this crate's tests and a user's own CI run against it without an account. [`Simulator::router`] is a plain
//! axum router: serve it on a socket, or reach it in memory under tokio's paused time and let hours pass in a second.
//! What really happened is in [`Simulator::truth`]; what is to go wrong is said with [`Simulator::set_faults`].
//!
//! It imports no other crate of this workspace, and shares no quota code with them: one wrong idea about a limit or
//! a header cannot hide in both.
//!
//! One request goes through `exchange` (faults, key), `route`, `meters` with `limiter` and `record`, `resources` and
//! `headers`. The users of `users` are computed from the seed, not stored.
//!
//! ```
//! use clerk_simulator::{Fault, FaultBody, Options, Plan, Simulator};
//!
//! let simulator = Simulator::new(Options { plan: Some(Plan::Free), ..Options::default() });
//! simulator.set_faults(Fault::Status { status: 503, body: FaultBody::Html }.times(2).into())?;
//! let router = simulator.router();
//! # let _: axum::Router = router;
//! # Ok::<(), clerk_simulator::FaultError>(())
//! ```

mod clock;
mod control;
mod error;
mod exchange;
mod fault_answers;
mod faults;
mod headers;
mod ids;
mod invitations;
mod keys;
mod limiter;
mod limits;
mod meters;
mod options;
mod organizations;
mod record;
mod resources;
mod route;
mod truth;
mod users;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use axum::Router;
use parking_lot::Mutex;

use clock::{Clock, system_time};
use faults::FaultPlan;
use keys::KeyRing;
use meters::Meters;
use record::Record;
use users::Directory;
use users::edits::Edits;

pub use faults::{Fault, FaultBody, FaultError, FaultRule, Faults};
pub use keys::KeyGrant;
pub use limits::{Environment, LimitOverride, Plan, Quota, SimulatedBucket};
pub use options::{HeaderProfile, LimiterKind, Options, ParseOptionError};
pub use truth::{BucketTruth, EventTruth, InstanceTruth, Requests, Truth, WindowTruth};

/// A simulated Clerk. Clones share everything.
#[derive(Debug, Clone)]
pub struct Simulator {
    shared: Arc<Shared>,
}

/// The state of a simulator. Locks are held for a moment and never across an `await`; where two are needed, `faults`
/// is taken before `keys`.
#[derive(Debug)]
struct Shared {
    options: Options,
    clock: Clock,
    directory: Directory,
    keys: Mutex<KeyRing>,
    meters: Mutex<Meters>,
    edits: Mutex<Edits>,
    faults: Mutex<FaultPlan>,
    requests: Mutex<Requests>,
    /// Number of answers that were begun, the source of trace identifiers.
    answers: AtomicU64,
}

impl Simulator {
    /// Starts a simulator. Its time runs with tokio's clock from now on.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let clock = Clock::starting_at(options.base.unwrap_or_else(SystemTime::now));
        let record = Record::new(options.kept_windows, options.kept_events);
        let shared = Shared {
            clock,
            directory: Directory::new(options.users, options.seed, clock.base()),
            keys: Mutex::new(KeyRing::new(&options.keys, options.seed)),
            meters: Mutex::new(Meters::new(options.limiter, record)),
            edits: Mutex::default(),
            faults: Mutex::new(FaultPlan::new(options.faults.clone(), options.seed)),
            requests: Mutex::default(),
            answers: AtomicU64::new(0),
            options,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The Backend API under `/v1`, and the control endpoints under `/_simulator`.
    pub fn router(&self) -> Router {
        control::routes().fallback(exchange::serve).with_state(self.clone())
    }

    /// What really happened since the start or the last reset.
    #[must_use]
    pub fn truth(&self) -> Truth {
        let requests = self.shared.requests.lock().clone();
        let instances = self.shared.keys.lock().instances().to_vec();
        let meters = self.shared.meters.lock();
        Truth::of(meters.record(), &instances, requests, self.now())
    }

    /// The simulator's wall-clock time, without skew.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        system_time(self.shared.clock.now())
    }

    /// The faults that are left.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.faults.lock().faults().clone()
    }

    /// Replaces the faults.
    ///
    /// # Errors
    ///
    /// A value is out of range; the old faults stay.
    pub fn set_faults(&self, faults: Faults) -> Result<(), FaultError> {
        self.change_faults(|_| faults).map(drop)
    }

    /// Makes of the present faults what `change` says, without another change in between.
    fn change_faults(&self, change: impl FnOnce(Faults) -> Faults) -> Result<Faults, FaultError> {
        let mut plan = self.shared.faults.lock();
        let faults = change(plan.faults().clone());
        faults.check()?;
        plan.replace(faults.clone());
        Ok(faults)
    }

    /// Identifier of the user with this number, from 0 (the first that was created) to one less than
    /// [`Options::users`]; `None` beyond.
    #[must_use]
    pub fn user_id(&self, number: u32) -> Option<String> {
        let directory = &self.shared.directory;
        (number < directory.len()).then(|| directory.id(number))
    }

    /// Fills every budget, forgets what happened and what clients changed, and goes back to the faults of the options.
    /// Keys keep their instances, and time goes on.
    pub fn reset(&self) {
        let shared = &self.shared;
        shared.meters.lock().reset();
        shared.edits.lock().clear();
        *shared.requests.lock() = Requests::default();
        *shared.faults.lock() = FaultPlan::new(shared.options.faults.clone(), shared.options.seed);
    }
}
