//! Valid and invalid options, and counters across a reconfiguration.

use std::sync::Arc;

use clerk_client::cache::{self, Cache};
use clerk_client::limiter::Priority;
use clerk_client::outbound::Outbound;
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::MemoryTransport;
use clerk_exporter::gateway::{
    CallerToken, ConfigureError, FurtherKey, Gateway, GatewayOptions, InstanceOptions, InstancePolicies,
    UnknownKeyPolicy,
};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_simulator::Simulator;
use http::Request;
use http_body_util::{BodyExt, Empty};

use crate::support::TOKEN;
use clerk_test_support::{KEY, settings};

const ROTATED: &str = "sk_test_rotatedCANARY01";

fn key(text: &str) -> Arc<KeySource> {
    Arc::new(KeySource::new(SecretSource::Inline(Secret::new(text.to_owned()))))
}

fn instance(name: &str, base: &str) -> InstanceOptions {
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let ledger = Ledger::new([settings(name)]);
    let (handle, clock) = (ledger.instance(name).unwrap(), Arc::new(Clock::simulated(clerk_test_support::start())));
    let cache = Cache::new(cache::CacheOptions::new(name), Arc::clone(&clock));
    let outbound = Outbound::new(MemoryTransport::new(simulator.router()), base.to_owned(), key(KEY), handle, clock);
    let further_keys = vec![FurtherKey { source: key(ROTATED), caller: Some("team-b".into()) }];
    InstanceOptions {
        name: name.into(),
        outbound: Arc::new(outbound),
        further_keys,
        caller: Some("team-a".into()),
        policies: InstancePolicies::default(),
        cache,
        verifications: None,
    }
}

fn options(instances: Vec<InstanceOptions>, tokens: Vec<CallerToken>) -> GatewayOptions {
    GatewayOptions {
        instances,
        unknown_keys: UnknownKeyPolicy::Reject,
        tokens,
        max_callers: GatewayOptions::MAX_CALLERS,
        access_log: None,
        forwards_trace_context: false,
        tracer: None,
    }
}

fn token(instance: &str, text: &str) -> CallerToken {
    let (token, priority) = (Secret::new(text.to_owned()), Priority::High);
    CallerToken {
        caller: "billing".into(),
        instance: instance.into(),
        token,
        priority,
        min_share: 0.0,
        max_share: 1.0,
        max_wait: None,
    }
}

fn gateway(options: GatewayOptions) -> Result<Gateway, ConfigureError> {
    Gateway::new(options)
}

async fn get(gateway: &Gateway, key: &str) -> u16 {
    let request = Request::get("/v1/users/count").header("host", "g").header("authorization", format!("Bearer {key}"));
    let answer = gateway.handle(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await;
    let status = answer.status().as_u16();
    answer.into_body().collect().await.unwrap();
    status
}

#[tokio::test(start_paused = true)]
async fn contradictory_options_are_rejected_by_name() {
    let (base, a) = ("http://clerk.test", || instance("a", "http://clerk.test"));
    for (options, expected) in [
        (options(vec![a(), a()], vec![]), "two instances are called a"),
        (options(vec![instance("other", base)], vec![]), "no instance can be called other"),
        (options(vec![instance("a", "nonsense")], vec![]), "the address of a is not a URL"),
        (options(vec![a()], vec![token("b", TOKEN)]), "for the instance b, which is not configured"),
        (options(vec![a()], vec![token("a", "short")]), "must have 16 characters or more"),
        (options(vec![a()], vec![token("a", TOKEN), token("a", TOKEN)]), "different from every other token"),
    ] {
        let error = gateway(options).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("CANARY"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_of_an_instance_may_name_its_caller() {
    let gateway = gateway(options(vec![instance("a", "http://clerk.test")], vec![])).unwrap();
    assert_eq!((get(&gateway, KEY).await, get(&gateway, "sk_test_unknown").await), (200, 401));
    get(&gateway, ROTATED).await;
    let numbers = gateway.stats();
    let callers: Vec<_> = numbers.instances[0].1.requests.iter().map(|request| &*request.caller).collect();
    assert_eq!(callers, ["team-a", "team-b"]);
}

#[tokio::test(start_paused = true)]
async fn counters_survive_reconfiguration_and_invalid_options_are_ignored() {
    let base = "http://clerk.test";
    let gateway = gateway(options(vec![instance("a", base)], vec![])).unwrap();
    get(&gateway, KEY).await;
    assert!(gateway.configure(options(vec![instance("other", base)], vec![])).is_err());
    assert_eq!(get(&gateway, KEY).await, 200);
    gateway.configure(options(vec![instance("b", base), instance("a", base)], vec![token("a", TOKEN)])).unwrap();
    assert_eq!(get(&gateway, TOKEN).await, 200);
    let numbers = gateway.stats();
    let counts: Vec<_> = numbers
        .instances
        .iter()
        .map(|(name, numbers)| (&**name, numbers.requests.iter().map(|request| request.count).sum::<u64>()))
        .collect();
    assert_eq!(counts, [("b", 0), ("a", 3), ("other", 0)]);
}
