//! The gateway's own access log: its analysis finds the windows of the run, and foretells what each policy saves.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::UNIX_EPOCH;

use axum::body::Body;
use clerk_client::cache::{Cache, CacheOptions};
use clerk_client::outbound::Outbound;
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::{MemoryTransport, Transport};
use clerk_client::webhook::{SigningSecret, WebhookOptions};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_simulator::{Fault, HeaderProfile, LimitOverride, Quota as SimulatedQuota, SimulatedBucket, Simulator};
use clerk_test_support::KEY;
use http::Request;
use http_body_util::BodyExt;
use prometheus_web::Handler;

use super::*;
use crate::gateway::{
    AccessLog, Gateway, GatewayOptions, InstanceOptions, InstancePolicies, LogMessage, Mode, RoutePolicies, Saving,
    UnknownKeyPolicy,
};

/// A signing secret for tests only.
const SECRET: &str = "whsec_CANARYf7SKAZopvozCjHEFxTrktz+dM+";

const WEBHOOKS: &str = "/webhooks/clerk";

/// The client's address, which is ignored.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// Odd, while requests begin at even milliseconds: no request begins when another ends.
const LATENCY_MILLIS: u64 = 41;

/// From one burst to the next, so that the age of a response is never near the end of its lifetime, which is random by a
/// tenth.
const BURST_MILLIS: u64 = 12_000;

/// A limit that no plan reaches.
const ROOMY: u64 = 1_000_000;

const TTL: Duration = Duration::from_secs(10);

const OFF: RoutePolicies = RoutePolicies {
    retry: Mode::Off,
    coalesce: Mode::Off,
    cache: Mode::Off,
    batch: Mode::Off,
    pace: Mode::Off,
    verify: Mode::Off,
    ttl: TTL,
    verify_ttl: TTL,
    is_explicit: false,
};

#[derive(Debug, Clone, Copy)]
enum Action {
    Read(u8),
    ReadMissing,
    List(u8),
    Count,
    Sessions(u8),
    Rename(u8),
    Delete(u8),
    Announce(u8),
    AnnounceAll,
}

/// Actions by the time at which they begin, in milliseconds.
type Plan = BTreeMap<u64, (u8, Action)>;

fn plans(most: usize) -> impl Strategy<Value = Plan> {
    let action = prop_oneof![
        12 => (0_u8..5).prop_map(Action::Read),
        1 => Just(Action::ReadMissing),
        4 => (1_u8..3).prop_map(Action::List),
        2 => Just(Action::Count),
        2 => (0_u8..3).prop_map(Action::Sessions),
        2 => (0_u8..5).prop_map(Action::Rename),
        1 => (5_u8..8).prop_map(Action::Delete),
        2 => (0_u8..5).prop_map(Action::Announce),
        1 => Just(Action::AnnounceAll),
    ];
    let time = (1_u64..5, prop_oneof![0_u64..20, 0_u64..450]).prop_map(|(burst, step)| burst * BURST_MILLIS + step * 2);
    prop::collection::btree_map(time, (0_u8..3, action), 1..most)
}

struct Run {
    log: String,
    stats: crate::gateway::InstanceStats,
    /// Windows, low and exhausted ones.
    windows: [u64; 3],
}

/// Runs a plan through a gateway before a simulated Clerk, in simulated time.
fn run(plan: &Plan, policies: RoutePolicies, limit: u64) -> Run {
    fastrand::seed(1);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(played(plan, policies, limit))
}

async fn played(plan: &Plan, policies: RoutePolicies, limit: u64) -> Run {
    let start = clerk_test_support::start();
    let limits = vec![LimitOverride {
        bucket: SimulatedBucket::Instance,
        quota: SimulatedQuota::new(u32::try_from(limit).unwrap(), Duration::from_secs(10)),
    }];
    let simulator =
        Simulator::new(clerk_test_support::simulator(1).users(20).headers(HeaderProfile::None).limits(limits));
    simulator.set_faults(Fault::Latency { millis: LATENCY_MILLIS }.always().into()).unwrap();
    let clock = Arc::new(Clock::simulated(start));
    let settings = Settings {
        limit: Some(Limit { requests: limit, window: WINDOW }),
        environment: Environment::Production,
        sources: vec![Source::Gateway],
        ..clerk_test_support::settings("test")
    };
    let ledger = Ledger::new([settings]);
    let handle = ledger.instance("test").unwrap();
    // Nothing was sent before.
    handle.lock().count_since(clock.now());
    let (messages, lines) = sync_channel(10_000);
    let transport: Arc<dyn Transport> = MemoryTransport::new(simulator.router());
    let key = Arc::new(KeySource::new(SecretSource::Inline(Secret::new(KEY.to_owned()))));
    let outbound =
        Outbound::new(transport, "http://clerk.test".to_owned(), key, Arc::clone(&handle), Arc::clone(&clock));
    let instance = InstanceOptions {
        name: "test".into(),
        outbound: Arc::new(outbound),
        further_keys: Vec::new(),
        caller: None,
        policies: InstancePolicies { policies, ..InstancePolicies::default() },
        cache: Cache::new(CacheOptions::new("test"), Arc::clone(&clock)),
        verifications: None,
    };
    let options = GatewayOptions {
        instances: vec![instance],
        unknown_keys: UnknownKeyPolicy::Reject,
        tokens: Vec::new(),
        max_callers: GatewayOptions::MAX_CALLERS,
        // A fixed key: the same tags share a slot in every run, or none do.
        access_log: Some(AccessLog::with_key(messages, Arc::clone(&clock), (1, 2))),
        forwards_trace_context: false,
        tracer: None,
    };
    let mut secrets = WebhookOptions::new(vec![SecretSource::Inline(Secret::new(SECRET.to_owned()))]);
    secrets.wall_clock = Arc::new(clerk_test_support::start);
    let gateway = Gateway::new(options).unwrap().with_webhooks(WEBHOOKS.to_owned(), secrets).unwrap();
    let gateway = Arc::new(gateway);
    let begin = tokio::time::Instant::now();
    let mut requests = tokio::task::JoinSet::new();
    for (number, (at, (caller, action))) in plan.iter().enumerate() {
        tokio::time::sleep_until(begin + Duration::from_millis(*at)).await;
        let (gateway, request) = (Arc::clone(&gateway), request(&simulator, number, *caller, *action));
        requests.spawn(async move {
            let is_webhook = request.uri().path() == WEBHOOKS;
            let response = Handler::handle(&*gateway, request, PEER).await;
            assert!(!is_webhook || response.status().is_success(), "{response:?}");
            let _ = response.into_body().collect().await;
        });
    }
    while let Some(ended) = requests.join_next().await {
        ended.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    let snapshot = handle.lock().snapshot(clock.now());
    let bucket = snapshot.bucket(Bucket::Instance).unwrap();
    let windows = [bucket.windows, bucket.low_windows, bucket.exhausted_windows];
    let stats = gateway.stats();
    assert_eq!(stats.access_log.unwrap().lost, 0);
    let stats = stats.instances.into_iter().find(|(name, _)| &**name == "test").unwrap().1;
    Run { log: text(&lines), stats, windows }
}

fn text(lines: &Receiver<LogMessage>) -> String {
    let lines = lines.try_iter().map(|message| match message {
        LogMessage::Line(line) => String::from_utf8(line).unwrap(),
        LogMessage::Stop => String::new(),
    });
    lines.collect()
}

fn request(simulator: &Simulator, number: usize, caller: u8, action: Action) -> Request<Body> {
    let user = |number: u8| simulator.user_id(number.into()).unwrap();
    let (method, path) = match action {
        Action::Read(number) => ("GET", format!("/v1/users/{}", user(number))),
        Action::ReadMissing => ("GET", "/v1/users/user_missing".to_owned()),
        Action::List(limit) => ("GET", format!("/v1/users?limit={limit}")),
        Action::Count => ("GET", "/v1/users/count".to_owned()),
        Action::Sessions(number) => ("GET", format!("/v1/sessions?user_id={}", user(number))),
        Action::Rename(number) => ("PATCH", format!("/v1/users/{}", user(number))),
        Action::Delete(number) => ("DELETE", format!("/v1/users/{}", user(number))),
        Action::Announce(number) => return webhook(number.into(), &format!("{{\"id\":\"{}\"}}", user(number))),
        Action::AnnounceAll => return webhook(number, "{}"),
    };
    let request = Request::builder().method(method).uri(path).header("host", "gateway");
    let request =
        request.header("authorization", format!("Bearer {KEY}")).header("user-agent", format!("app{caller}/1"));
    let body = if method == "PATCH" { Body::from("{\"first_name\":\"Ada\"}") } else { Body::empty() };
    request.body(body).unwrap()
}

fn webhook(number: usize, data: &str) -> Request<Body> {
    let event = format!(
        "{{\"data\":{data},\"object\":\"event\",\"type\":\"user.updated\",\"timestamp\":1795608000000,\
         \"instance_id\":\"ins_1\"}}"
    );
    let id = format!("msg_{number}_{}", fastrand::u64(..));
    let timestamp = clerk_test_support::start().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let signature = SigningSecret::parse(SECRET).unwrap().sign(&id, timestamp, event.as_bytes());
    let request = Request::post(WEBHOOKS).header("svix-id", id).header("svix-timestamp", timestamp);
    request.header("svix-signature", signature).body(Body::from(event)).unwrap()
}

/// What the analysis says that a policy would have saved.
fn foretold(report: &AnalysisReport, policy: &str, ttl: Option<Duration>) -> u64 {
    let is_it = |saving: &&SavingReport| saving.policy == policy && saving.ttl_seconds == ttl.map(|ttl| ttl.as_secs());
    report.savings.iter().find(is_it).unwrap().requests
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn windows_are_those_of_the_run(plan in plans(150)) {
        let run = run(&plan, OFF, LIMIT);
        let report = analyzed(vec![run.log]);
        let found = report.buckets.iter().find(|bucket| bucket.bucket == "instance");
        let found = found.map(|bucket| [bucket.windows, bucket.low_windows, bucket.exhausted_windows]);
        prop_assert_eq!(found.unwrap_or_default(), run.windows);
        let counted: BTreeMap<_, u64> = run.stats.requests.iter().fold(BTreeMap::new(), |mut sum, request| {
            *sum.entry((request.caller.to_string(), request.method.as_str(), request.route)).or_default() += request.count;
            sum
        });
        let spent: BTreeMap<_, u64> = report.spenders.iter().map(|spender| {
            ((spender.caller.to_string(), spender.method, spender.route), spender.counts.requests)
        }).collect();
        prop_assert_eq!(spent, counted);
        prop_assert_eq!(report.logs.skipped.len(), 0, "{:?}", report.logs.skipped);
    }

    #[test]
    fn savings_of_coalescing_and_caching_are_those_of_the_run(plan in plans(250)) {
        let report = analyzed(vec![run(&plan, OFF, ROOMY).log]);
        let saved = run(&plan, RoutePolicies { coalesce: Mode::On, ..OFF }, ROOMY).stats.saved;
        prop_assert_eq!(foretold(&report, "coalesce", None), saved[Saving::Coalesce as usize]);
        let saved = run(&plan, RoutePolicies { cache: Mode::On, ..OFF }, ROOMY).stats.saved;
        let both = saved[Saving::Cache as usize] + saved[Saving::Coalesce as usize];
        prop_assert_eq!(foretold(&report, "cache", Some(TTL)), both);
    }

    #[test]
    fn savings_of_batches_are_those_of_the_run(plan in plans(150)) {
        // A user that is not in the list is requested again, which a dry run does not foresee.
        let plan: Plan = plan.into_iter().filter(|(_, (_, action))| !matches!(action, Action::ReadMissing)).collect();
        let report = analyzed(vec![run(&plan, OFF, ROOMY).log]);
        let saved = run(&plan, RoutePolicies { batch: Mode::On, ..OFF }, ROOMY).stats.saved;
        prop_assert_eq!(foretold(&report, "batch", None), saved[Saving::Batch as usize]);
    }
}
