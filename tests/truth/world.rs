//! One world: a simulated Clerk, the processes in front of it, their callers, and other clients of the instance.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use clerk_client::cache::{Cache, CacheOptions};
use clerk_client::limiter::{LimiterOptions, MemoryDistributedLimiter, Priority};
use clerk_client::outbound::{InstanceLimits, Outbound};
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::{MemoryTransport, Transport};
use clerk_exporter::gateway::{
    CallerToken, Gateway, GatewayOptions, InstanceOptions, InstancePolicies, Mode, RoutePolicies, UnknownKeyPolicy,
};
use clerk_exporter::probe::probe_once;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::{Handle, Ledger};
use clerk_quota::{Bucket, Coverage, Environment, Settings, Source};
use clerk_simulator::{HeaderProfile, LimitOverride, LimiterKind, Quota, SimulatedBucket, Simulator};
use clerk_test_support::{KEY, settings};
use http::Request;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceExt;

use crate::clients::{Calls, call};
use crate::model::{LIMIT, WINDOW};
use crate::tape::{Caller, Tape, Way, is_allowed};
use crate::truth::Watch;

/// The index of the process that only probes.
pub(crate) const PROBER: usize = 2;

/// Duration of the traffic.
const LENGTH: Duration = Duration::from_secs(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Headers {
    None,
    XRateLimit,
    /// On some routes only.
    Partial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Processes {
    /// A gateway, configured as the only one.
    Sole,
    /// Two with a shared log.
    Fleet,
    /// Two without knowledge of each other.
    Part,
    /// An exporter without a gateway.
    Probes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policies {
    Off,
    Saving,
    Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    None,
    /// 30 % of the limit, at random times.
    Poisson,
    Bursts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    Patient,
    /// After 0.8 s, while Clerk is slow at times.
    Leave,
    /// Connections to Clerk break after the request was received.
    Break,
}

const LIMITERS: [LimiterKind; 5] = [
    LimiterKind::FixedWindow,
    LimiterKind::FixedFromFirst,
    LimiterKind::SlidingWindow,
    LimiterKind::SlidingCounter,
    LimiterKind::TokenBucket { burst: None },
];
const HEADERS: [Headers; 3] = [Headers::None, Headers::XRateLimit, Headers::Partial];
const PROCESSES: [Processes; 4] = [Processes::Sole, Processes::Fleet, Processes::Part, Processes::Probes];
const POLICIES: [Policies; 3] = [Policies::Off, Policies::Saving, Policies::Pace];
const FOREIGN: [Foreign; 3] = [Foreign::None, Foreign::Poisson, Foreign::Bursts];
const CLIENTS: [Clients; 3] = [Clients::Patient, Clients::Leave, Clients::Break];

/// The parameters of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) limiter: LimiterKind,
    pub(crate) headers: Headers,
    pub(crate) processes: Processes,
    pub(crate) policies: Policies,
    pub(crate) foreign: Foreign,
    pub(crate) clients: Clients,
    pub(crate) seed: u64,
}

impl Case {
    /// Sizes of the dimensions, for [`Case::of`].
    pub(crate) const SIZES: [usize; 6] = [5, 3, 4, 3, 3, 3];

    pub(crate) fn of(row: &[usize], seed: u64) -> Self {
        Self {
            limiter: LIMITERS[row[0]],
            headers: HEADERS[row[1]],
            processes: PROCESSES[row[2]],
            policies: POLICIES[row[3]],
            foreign: FOREIGN[row[4]],
            clients: CLIENTS[row[5]],
            seed,
        }
    }

    /// Whether the limiter's windows are on the grid of the epoch, which is the ledger's default assumption.
    pub(crate) fn is_grid(&self) -> bool {
        self.limiter == LimiterKind::FixedWindow
    }

    pub(crate) const fn coverage(&self) -> Coverage {
        match self.processes {
            Processes::Fleet => Coverage::Fleet,
            Processes::Part => Coverage::Part,
            Processes::Sole | Processes::Probes => Coverage::Sole,
        }
    }

    pub(crate) fn numbers(&self) -> &'static [usize] {
        match self.processes {
            Processes::Sole => &[0],
            Processes::Fleet | Processes::Part => &[0, 1],
            Processes::Probes => &[PROBER],
        }
    }
}

/// An exporter, with or without a gateway.
pub(crate) struct Process {
    pub(crate) number: usize,
    pub(crate) gateway: Option<Arc<Gateway>>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) ledger: Handle,
    pub(crate) calls: Arc<Mutex<Calls>>,
}

pub(crate) struct World {
    pub(crate) case: Case,
    pub(crate) simulator: Simulator,
    pub(crate) tape: Arc<Tape>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) processes: Vec<Process>,
    users: Arc<[String]>,
}

impl World {
    pub(crate) fn new(case: Case) -> Self {
        // Not at the start of a window.
        let base = clerk_test_support::start() + Duration::from_millis(3_300);
        let quota = Quota::new(u32::try_from(LIMIT).unwrap(), WINDOW);
        let simulator = Simulator::new(
            clerk_test_support::simulator(case.seed)
                .limiter(case.limiter)
                // The transport removes the headers that must not be visible.
                .headers(HeaderProfile::XRateLimit)
                .limits(vec![LimitOverride { bucket: SimulatedBucket::Instance, quota }])
                .kept_windows(usize::MAX)
                .kept_events(usize::MAX)
                .base(Some(base)),
        );
        let users: Arc<[String]> = (0..60).filter_map(|number| simulator.user_id(number)).collect();
        let owners: HashMap<String, Caller> = users
            .iter()
            .enumerate()
            .map(|(place, id)| (id.clone(), if place < 30 { Caller::Billing } else { Caller::Import }))
            .collect();
        let since_epoch = base.duration_since(std::time::UNIX_EPOCH).unwrap();
        let tape = Tape::new(since_epoch, owners);
        let clock = Arc::new(Clock::simulated(base));
        let inner: Arc<dyn Transport> = MemoryTransport::new(simulator.router());
        let log = MemoryDistributedLimiter::new(Arc::clone(&clock), 2);
        let processes = case.numbers().iter().map(|number| {
            let way = Way {
                by: *number,
                case,
                inner: Arc::clone(&inner),
                tape: Arc::clone(&tape),
                random: Mutex::new(fastrand::Rng::with_seed(case.seed * 10 + *number as u64)),
            };
            process(case, *number, Arc::new(way), &clock, &log)
        });
        let processes = processes.collect();
        Self { case, simulator, tape, clock, processes, users }
    }

    /// Plays it to its end, and compares the values of the processes with the truth.
    pub(crate) async fn play(&self, watch: &mut Watch) {
        let mut background = JoinSet::new();
        for process in &self.processes {
            // As the first scrape does.
            process.ledger.lock().advance(self.clock.now());
            match &process.gateway {
                Some(gateway) => drop(background.spawn(traffic(
                    Arc::clone(gateway),
                    Arc::clone(&process.calls),
                    Arc::clone(&self.users),
                    self.case,
                    process.number,
                ))),
                None => drop(background.spawn(probes(Arc::clone(&process.outbound)))),
            }
            // What the program does once a second.
            if let Some(gateway) = process.gateway.clone() {
                background.spawn(async move {
                    loop {
                        gateway.read_fleet(&[Bucket::Instance]).await;
                        gateway.tell_counting();
                        sleep(Duration::from_secs(1)).await;
                    }
                });
            }
        }
        background.spawn(foreign(self.simulator.clone(), Arc::clone(&self.tape), self.case));
        let mut random = fastrand::Rng::with_seed(self.case.seed + 7);
        let end = Instant::now() + LENGTH + Duration::from_secs(30);
        while Instant::now() < end {
            sleep(Duration::from_micros(random.u64(1_000_000..3_000_000))).await;
            self.settle().await;
            watch.scrape(self);
        }
        watch.finish(self);
    }

    /// Runs everything that is due at this time.
    async fn settle(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
}

fn process(
    case: Case,
    number: usize,
    way: Arc<Way>,
    clock: &Arc<Clock>,
    log: &Arc<MemoryDistributedLimiter>,
) -> Process {
    let is_gateway = case.processes != Processes::Probes;
    let sources = if is_gateway { vec![Source::Probe, Source::Gateway] } else { vec![Source::Probe] };
    let ledger = Ledger::new([Settings { sources, coverage: case.coverage(), ..settings("test") }]);
    let handle = ledger.instance("test").unwrap();
    let limit = handle.lock().settings().limit;
    let key = Arc::new(KeySource::new(SecretSource::Inline(Secret::new(KEY.to_owned()))));
    let base = "http://clerk.test".to_owned();
    let mut outbound = Outbound::new(way, base, key, Arc::clone(&handle), Arc::clone(clock));
    let options = LimiterOptions::default().limit(limit).environment(Environment::Development);
    outbound.limits.limiter.reconfigure(options);
    if case.processes == Processes::Fleet {
        let log: Arc<MemoryDistributedLimiter> = Arc::clone(log);
        outbound.limits = Arc::new(InstanceLimits::sharing(options, Arc::clone(clock), log));
    }
    let outbound = Arc::new(outbound);
    let gateway = is_gateway.then(|| {
        let instance = InstanceOptions {
            name: "test".into(),
            outbound: Arc::clone(&outbound),
            further_keys: Vec::new(),
            caller: None,
            policies: InstancePolicies { policies: policies(case.policies), ..InstancePolicies::default() },
            cache: Cache::new(CacheOptions::new("test"), Arc::clone(clock)),
            verifications: None,
        };
        let token = |caller: Caller| CallerToken {
            caller: name(caller).into(),
            instance: "test".into(),
            token: Secret::new(token(caller).to_owned()),
            priority: Priority::High,
            min_share: 0.0,
            max_share: 1.0,
            max_wait: None,
        };
        let tokens = vec![token(Caller::Billing), token(Caller::Import)];
        let unknown_keys = UnknownKeyPolicy::Reject;
        let options = GatewayOptions {
            instances: vec![instance],
            unknown_keys,
            tokens,
            max_callers: GatewayOptions::MAX_CALLERS,
            access_log: None,
            forwards_trace_context: false,
            tracer: None,
        };
        Arc::new(Gateway::new(options).unwrap())
    });
    Process { number, gateway, outbound, ledger: handle, calls: Arc::default() }
}

fn policies(policies: Policies) -> RoutePolicies {
    let (off, ttl) = (RoutePolicies::default(), Duration::from_secs(5));
    let on = Mode::On;
    match policies {
        Policies::Off => off,
        Policies::Saving => RoutePolicies { retry: on, coalesce: on, cache: on, batch: on, ttl, ..off },
        Policies::Pace => RoutePolicies { pace: on, ..off },
    }
}

/// The name of a caller at the gateway.
pub(crate) const fn name(caller: Caller) -> &'static str {
    match caller {
        Caller::Billing => "billing",
        Caller::Import => "import",
        Caller::Both => "billing or import",
        Caller::Probe => "probe",
    }
}

/// Its token.
pub(crate) const fn token(caller: Caller) -> &'static str {
    match caller {
        Caller::Import => "import-token-CANARY",
        _ => "billing-token-CANARY",
    }
}

/// An application: the rate changes every few seconds, from none to more than the limit.
async fn traffic(gateway: Arc<Gateway>, calls: Arc<Mutex<Calls>>, users: Arc<[String]>, case: Case, number: usize) {
    let mut random = fastrand::Rng::with_seed(case.seed * 100 + number as u64);
    let share = if case.processes == Processes::Sole { 1.0 } else { 0.55 };
    // Saved requests are not sent: request more, so that as many arrive.
    let share = if case.policies == Policies::Saving { share * 2.0 } else { share };
    let end = Instant::now() + LENGTH;
    let mut running = JoinSet::new();
    while Instant::now() < end {
        let rate = [0.0, 2.0, 5.0, 8.0, 9.4, 11.0, 16.0][random.usize(..7)] * share;
        let until = (Instant::now() + Duration::from_secs_f64(2.0 + random.f64() * 9.0)).min(end);
        while rate > 0.1 && Instant::now() < until {
            sleep(Duration::from_secs_f64(-random.f64().max(1e-9).ln() / rate)).await;
            running.spawn(call(Arc::clone(&gateway), Arc::clone(&calls), Arc::clone(&users), case, random.fork()));
            while running.try_join_next().is_some() {}
        }
        sleep_until(until).await;
    }
    while running.join_next().await.is_some() {}
}

/// An exporter's probes.
async fn probes(outbound: Arc<Outbound>) {
    loop {
        sleep(Duration::from_millis(1_900)).await;
        probe_once(&outbound, "/v1/users/count", Duration::from_secs(5)).await;
    }
}

/// Other clients, with a separate connection to Clerk.
async fn foreign(simulator: Simulator, tape: Arc<Tape>, case: Case) {
    let mut random = fastrand::Rng::with_seed(case.seed * 1000);
    let router = simulator.router();
    loop {
        let (pause, count) = match case.foreign {
            Foreign::None => return,
            Foreign::Poisson => (-random.f64().max(1e-9).ln() / (0.3 * LIMIT as f64 / WINDOW.as_secs_f64()), 1),
            Foreign::Bursts => (4.0 + random.f64() * 16.0, random.usize(20..90)),
        };
        sleep(Duration::from_secs_f64(pause)).await;
        for _ in 0..count {
            let request = Request::get("/v1/users/count").header("authorization", format!("Bearer {KEY}"));
            let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            tape.foreigner(is_allowed(&response));
        }
    }
}
