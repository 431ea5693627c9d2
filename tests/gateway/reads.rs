//! Cached, coalesced and batched reads: in simulated time against a simulated Clerk that records every request.

mod batch;
mod cache;
mod coalesce;
mod figures;
mod shadow;
mod verification;
mod writes;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request as Incoming;
use axum::middleware::{Next, from_fn};
use bytes::Bytes;
use clerk_client::secret::{Secret, SecretSource};
use clerk_client::transport::{MemoryTransport, Transport};
use clerk_client::webhook::{self, SigningSecret};
use clerk_exporter::gateway::{Decision, InstancePolicies, Mode, RoutePolicies, Saving};
use clerk_simulator::{Fault, FaultRule, LimitOverride, Options, Quota, SimulatedBucket, Simulator};
use futures_util::future::join_all;
use http::request::Builder;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use prometheus_web::Handler;

use crate::support::{Setup, World};
use clerk_test_support::KEY;

/// A signing secret for tests only.
const WEBHOOK_SECRET: &str = "whsec_CANARYf7SKAZopvozCjHEFxTrktz+dM+";

/// The client's address, which is ignored.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// All policies off.
pub(crate) const OFF: RoutePolicies = RoutePolicies {
    retry: Mode::Off,
    coalesce: Mode::Off,
    cache: Mode::Off,
    batch: Mode::Off,
    pace: Mode::Off,
    verify: Mode::Off,
    ttl: Duration::from_secs(60),
    verify_ttl: Duration::from_secs(60),
    is_explicit: false,
};

pub(crate) const COALESCE: RoutePolicies = RoutePolicies { coalesce: Mode::On, ..OFF };
pub(crate) const CACHE: RoutePolicies = RoutePolicies { cache: Mode::On, ..OFF };
pub(crate) const BATCH: RoutePolicies = RoutePolicies { batch: Mode::On, ..OFF };

/// The route of a single user.
pub(crate) const USER: (&str, &str) = ("GET", "/v1/users/{user_id}");

/// A request received by Clerk.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
}

/// A response of the gateway.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn decision(&self) -> Option<&str> {
        self.value("x-clerk-exporter-decision")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A gateway in front of a recording Clerk.
pub(crate) struct Reads {
    pub(crate) world: World,
    pub(crate) simulator: Simulator,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Delay of responses to GET after they were made.
    lag: Arc<Mutex<Duration>>,
}

/// A simulator with a few hundred users and more room than any test needs.
pub(crate) fn roomy() -> Options {
    let limits = vec![LimitOverride {
        bucket: SimulatedBucket::Instance,
        quota: Quota::new(1_000_000, Duration::from_secs(10)),
    }];
    clerk_test_support::simulator(1).users(400).limits(limits)
}

impl Reads {
    pub(crate) fn new(policies: RoutePolicies) -> Self {
        Self::with(
            roomy(),
            Setup { plan: InstancePolicies { policies, ..InstancePolicies::default() }, ..Setup::default() },
        )
    }

    /// With separate policies for one route.
    pub(crate) fn routed(policies: RoutePolicies, route: (&'static str, &'static str), own: RoutePolicies) -> Self {
        let plan = InstancePolicies { policies, routes: [(route, own)].into(), ..InstancePolicies::default() };
        Self::with(roomy(), Setup { plan, ..Setup::default() })
    }

    pub(crate) fn with(options: Options, setup: Setup) -> Self {
        let simulator = Simulator::new(options);
        let router = simulator.router();
        Self::over(simulator, router, setup)
    }

    /// In front of another server.
    pub(crate) fn before(router: Router, policies: RoutePolicies) -> Self {
        let setup = Setup { plan: InstancePolicies { policies, ..InstancePolicies::default() }, ..Setup::default() };
        Self::over(Simulator::new(roomy()), router, setup)
    }

    /// Another process in front of the same Clerk.
    pub(crate) fn beside(&self, setup: Setup) -> Self {
        Self::over(self.simulator.clone(), self.simulator.router(), setup)
    }

    fn over(simulator: Simulator, router: Router, setup: Setup) -> Self {
        let (asked, lag) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<Mutex<Duration>>::default());
        let (kept, delay) = (Arc::clone(&asked), Arc::clone(&lag));
        let router = router.layer(from_fn(move |request: Incoming, next: Next| {
            kept.lock().push(Asked { target: request.uri().to_string(), headers: request.headers().clone() });
            let lag = if request.method() == "GET" { *delay.lock() } else { Duration::ZERO };
            async move {
                let answer = next.run(request).await;
                tokio::time::sleep(lag).await;
                answer
            }
        }));
        let upstream: Arc<dyn Transport> = MemoryTransport::new(router);
        let mut secrets =
            webhook::WebhookOptions::new(vec![SecretSource::Inline(Secret::new(WEBHOOK_SECRET.to_owned()))]);
        secrets.wall_clock = Arc::new(clerk_test_support::start);
        let world = World::new(&upstream, "http://clerk.test", Setup { webhooks: Some(secrets), ..setup });
        Self { world, simulator, asked, lag }
    }

    /// From now on responses to GET take this long, and show the state before it.
    pub(crate) fn lag(&self, millis: u64) {
        *self.lag.lock() = Duration::from_millis(millis);
    }

    /// From now on this fault occurs.
    pub(crate) fn fault(&self, rule: FaultRule) {
        self.simulator.set_faults(rule.into()).unwrap();
    }

    pub(crate) fn heal(&self) {
        self.simulator.set_faults(clerk_simulator::Faults::default()).unwrap();
    }

    /// The ID of a user.
    pub(crate) fn user(&self, number: u32) -> String {
        self.simulator.user_id(number).unwrap()
    }

    /// The path of a user.
    pub(crate) fn path(&self, number: u32) -> String {
        format!("/v1/users/{}", self.user(number))
    }

    pub(crate) async fn send(&self, request: Builder) -> Answer {
        self.send_body(request, "").await
    }

    pub(crate) async fn send_body(&self, request: Builder, body: &str) -> Answer {
        let body = if body.is_empty() { Body::empty() } else { Body::from(body.to_owned()) };
        let answer = Handler::handle(&*self.world.gateway, request.body(body).unwrap(), PEER).await;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(get(path)).await
    }

    /// Sends all of them at the same time; returns the responses in the order of the requests.
    pub(crate) async fn together(&self, requests: impl IntoIterator<Item = Builder>) -> Vec<Answer> {
        join_all(requests.into_iter().map(|request| self.send(request))).await
    }

    /// Changes a user's first name through the gateway.
    pub(crate) async fn rename(&self, number: u32, name: &str) {
        let request = authorized("PATCH", &self.path(number), KEY).header("content-type", "application/json");
        let answer = self.send_body(request, &format!(r#"{{"first_name":"{name}"}}"#)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Changes it in Clerk's dashboard, bypassing the gateway.
    pub(crate) async fn rename_elsewhere(&self, number: u32, name: &str) {
        let request = authorized("PATCH", &self.path(number), KEY).header("content-type", "application/json");
        let request = request.body(Body::from(format!(r#"{{"first_name":"{name}"}}"#))).unwrap();
        assert_eq!(self.simulator.router().handle(request, PEER).await.status(), 200);
    }

    /// Deletes it in Clerk's dashboard, bypassing the gateway.
    pub(crate) async fn delete_elsewhere(&self, number: u32) {
        let request = authorized("DELETE", &self.path(number), KEY).body(Body::empty()).unwrap();
        assert_eq!(self.simulator.router().handle(request, PEER).await.status(), 200);
    }

    /// Delivers the webhook of a changed user.
    pub(crate) async fn announce(&self, number: u32) {
        let answer = self.deliver(number).await;
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }

    /// Delivers the webhook of a changed user, and returns the response.
    pub(crate) async fn deliver(&self, number: u32) -> Answer {
        let event = format!(
            r#"{{"data":{{"id":"{}"}},"object":"event","type":"user.updated","timestamp":1795608000000,"instance_id":"ins_1"}}"#,
            self.user(number)
        );
        let id = format!("msg_{}", fastrand::u64(..));
        let timestamp = clerk_test_support::start().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let signature = SigningSecret::parse(WEBHOOK_SECRET).unwrap().sign(&id, timestamp, event.as_bytes());
        let request = Request::post("/webhooks/clerk")
            .header("svix-id", id)
            .header("svix-timestamp", timestamp)
            .header("svix-signature", signature);
        self.send_body(request, &event).await
    }

    /// The requests that Clerk received.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// The number of requests that Clerk received.
    pub(crate) fn sent(&self) -> usize {
        self.asked.lock().len()
    }

    /// The paths and queries that Clerk received.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.asked.lock().iter().map(|asked| asked.target.clone()).collect()
    }

    pub(crate) fn decided(&self, decision: Decision) -> u64 {
        self.world.numbers().decisions[decision.index()]
    }

    pub(crate) fn shadowed(&self, decision: Decision) -> u64 {
        self.world.numbers().shadowed[decision.index()]
    }

    pub(crate) fn saved(&self, saving: Saving) -> u64 {
        self.world.numbers().saved[saving as usize]
    }
}

/// A request without a body, with this key or token.
pub(crate) fn authorized(method: &str, path: &str, key: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "gateway")
        .header("authorization", format!("Bearer {key}"))
}

/// A GET request with the known key.
pub(crate) fn get(path: &str) -> Builder {
    authorized("GET", path, KEY)
}

pub(crate) fn status(status: u16) -> Fault {
    Fault::Status { status, body: clerk_simulator::FaultBody::Clerk }
}

pub(crate) fn throttled(retry_after: u32) -> Fault {
    let body = clerk_simulator::FaultBody::Clerk;
    Fault::Throttled { retry_after: Some(retry_after.to_string()), body }
}

/// Advances the simulated time.
pub(crate) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
