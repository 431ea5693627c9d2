//! A simulator of [Clerk's Backend API](https://clerk.com/docs/reference/backend-api) with its rate limiter, for tests
//! and demos without an account.
//!
//! [`Simulator::router`] is a plain axum router. Serve it on a socket, or call it in memory under tokio's paused time
//! to simulate hours in a second. [`Simulator::set_faults`] injects errors; [`Simulator::truth`] reports what was
//! really used.
//!
//! The crate imports no other crate of this workspace and shares no quota code with them, so that a wrong assumption
//! about a limit or a header cannot be in both.
//!
//! # Example
//!
//! ```
//! use axum::body::Body;
//! use clerk_simulator::{Fault, FaultBody, HeaderProfile, Options, Simulator};
//! use http::Request;
//! use tower::ServiceExt as _;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let simulator = Simulator::new(Options::default().headers(HeaderProfile::XRateLimit));
//! simulator.set_faults(Fault::Status { status: 503, body: FaultBody::Html }.times(1).into())?;
//!
//! let request = || Request::get("/v1/users/count").header("authorization", "Bearer sk_test_any").body(Body::empty());
//! let failed = simulator.router().oneshot(request()?).await?;
//! assert_eq!(failed.status(), 503);
//! let response = simulator.router().oneshot(request()?).await?;
//! assert_eq!(response.headers()["x-ratelimit-remaining"], "99");
//! # Ok(())
//! # }
//! ```
//!
//! # Which type to use
//!
//! | Task | Type |
//! |---|---|
//! | Choose users, keys, limits and the kind of limiter | [`Options`] |
//! | Change a limit | [`Plan`], [`LimitOverride`] |
//! | Choose how requests are counted and which headers are sent | [`LimiterKind`], [`HeaderProfile`] |
//! | Inject latency, errors, resets or malformed responses | [`Fault`], [`FaultRule`], [`Faults`] |
//! | Read what was used | [`Truth`] |
//! | Send webhooks of changes | [`Simulator::events`], [`WebhookSecret`] |
//! | Know which routes there are | [`Simulator::routes`] |
//!
//! A running simulator has the same functions as HTTP endpoints under `/_simulator`.
//!
//! # Features and MSRV
//!
//! The crate has no features. It requires Rust 1.95.

mod body;
mod clock;
mod collection;
mod context;
mod control;
mod error;
mod events;
mod exchange;
mod fault_responses;
mod faults;
mod headers;
mod ids;
mod index;
mod invitations;
mod keys;
mod limiter;
mod limits;
mod list_query;
mod machine_auth;
mod meters;
mod options;
mod organizations;
mod record;
mod resources;
mod route;
mod sessions;
mod setters;
mod state;
mod truth;
mod users;
mod webhook;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use axum::Router;
use http::Method;
use parking_lot::Mutex;

use clock::{Clock, system_time};
use events::EventSender;
use faults::FaultPlan;
use keys::KeyRing;
use meters::Meters;
use record::Record;
use route::Route;
use state::State;
use users::Directory;

pub use events::{EventStream, SimulatedEvent};
pub use faults::{Fault, FaultBody, FaultError, FaultRule, Faults};
pub use keys::KeyGrant;
pub use limits::{Environment, LimitOverride, Plan, Quota, SimulatedBucket};
pub use options::{HeaderProfile, LimiterKind, Options, ParseOptionError};
pub use route::RouteInfo;
pub use truth::{BucketTruth, EventTruth, InstanceTruth, Requests, Truth, WindowTruth};
pub use webhook::{Deliveries, DeliveryOutcome, WebhookSecret};

/// A simulated Clerk. Clones share all state.
#[derive(Debug, Clone)]
pub struct Simulator {
    shared: Arc<Shared>,
}

/// The state of a simulator. Locks are held briefly and never across an `await`; `faults` and `state` are locked
/// before `keys`.
#[derive(Debug)]
struct Shared {
    options: Options,
    clock: Clock,
    directory: Directory,
    keys: Mutex<KeyRing>,
    meters: Mutex<Meters>,
    state: Mutex<State>,
    events: EventSender,
    faults: Mutex<FaultPlan>,
    requests: Mutex<Requests>,
    deliveries: Mutex<Deliveries>,
    /// Number of responses started, the source of trace identifiers.
    responses: AtomicU64,
    /// Number of requests that may change the state, the source of identifiers.
    changes: AtomicU64,
}

impl Simulator {
    /// Creates a simulator. Its time runs with tokio's clock from now on.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let clock = Clock::starting_at(options.base.unwrap_or_else(SystemTime::now));
        let record = Record::new(options.kept_windows, options.kept_events);
        let shared = Shared {
            clock,
            directory: Directory::new(options.users, options.seed, clock.base()),
            keys: Mutex::new(KeyRing::new(&options.keys, options.seed)),
            meters: Mutex::new(Meters::new(options.limiter, record)),
            state: Mutex::default(),
            events: EventSender::new(),
            faults: Mutex::new(FaultPlan::new(options.faults.clone(), options.seed)),
            requests: Mutex::default(),
            deliveries: Mutex::default(),
            responses: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            options,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns a router with the Backend API under `/v1` and the control endpoints under `/_simulator`.
    pub fn router(&self) -> Router {
        control::routes().fallback(exchange::serve).with_state(self.clone())
    }

    /// Returns what was used since the start or the last reset.
    #[must_use]
    pub fn truth(&self) -> Truth {
        let requests = self.shared.requests.lock().clone();
        let instances = self.shared.keys.lock().instances().to_vec();
        let meters = self.shared.meters.lock();
        Truth::of(meters.record(), &instances, requests, self.now())
    }

    /// Returns the simulator's wall-clock time, without skew.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        system_time(self.shared.clock.now())
    }

    /// Returns the faults that are still active.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.faults.lock().faults().clone()
    }

    /// Replaces the faults.
    ///
    /// # Errors
    ///
    /// Returns an error if a value is out of range. The old faults stay.
    pub fn set_faults(&self, faults: Faults) -> Result<(), FaultError> {
        self.change_faults(|_| faults).map(drop)
    }

    /// Replaces the faults with the result of `change`, atomically.
    fn change_faults(&self, change: impl FnOnce(Faults) -> Faults) -> Result<Faults, FaultError> {
        let mut plan = self.shared.faults.lock();
        let faults = change(plan.faults().clone());
        faults.check()?;
        plan.replace(faults.clone());
        Ok(faults)
    }

    /// Returns the identifier of the user with this number, in the order of creation from 0.
    ///
    /// `None` from [`Options::users`] on.
    #[must_use]
    pub fn user_id(&self, number: u32) -> Option<String> {
        let directory = &self.shared.directory;
        (number < directory.len()).then(|| directory.id(number))
    }

    /// Returns the identifier of a generated organization, in the order of creation from 0.
    ///
    /// `None` from [`Options::organizations`] on.
    #[must_use]
    pub fn organization_id(&self, number: u32) -> Option<String> {
        let options = &self.shared.options;
        let count = options.organizations.min(organizations::MAX_GENERATED);
        (number < count).then(|| organizations::generated_id(options.seed, number))
    }

    /// Returns an OAuth access token of the user with this number, for `…/access_tokens/verify`.
    ///
    /// `None` from [`Options::users`] on.
    #[must_use]
    pub fn oauth_token(&self, number: u32) -> Option<String> {
        let directory = &self.shared.directory;
        (number < directory.len()).then(|| machine_auth::oauth_tokens::token(directory, number))
    }

    /// Returns the routes of the Backend API that the simulator has.
    #[must_use]
    pub fn routes() -> &'static [RouteInfo] {
        route::ROUTES
    }

    /// Returns the changes from now on, for webhooks.
    #[must_use]
    pub fn events(&self) -> EventStream {
        self.shared.events.subscribe()
    }

    /// Returns the route of a request; `None` if the simulator has none.
    #[must_use]
    pub fn route_of(method: &Method, path: &str) -> Option<&'static RouteInfo> {
        Route::of(method, path).info
    }

    /// Counts an attempt to deliver a webhook, for `GET /_simulator/`.
    pub fn count_delivery(&self, outcome: DeliveryOutcome) {
        self.shared.deliveries.lock().count(outcome);
    }

    /// Returns the webhooks so far.
    #[must_use]
    pub fn deliveries(&self) -> Deliveries {
        *self.shared.deliveries.lock()
    }

    /// Fills every budget, clears the recorded requests and the changes of clients, and restores the faults of the
    /// options.
    ///
    /// Keys keep their instances, and time goes on.
    pub fn reset(&self) {
        let shared = &self.shared;
        shared.meters.lock().reset();
        shared.state.lock().clear();
        *shared.requests.lock() = Requests::default();
        *shared.faults.lock() = FaultPlan::new(shared.options.faults.clone(), shared.options.seed);
    }
}
